//! A worker that was stopped for longer than others wait for it catches up before it works again.

use std::time::Duration;

use nix::sys::signal::Signal;
use tidings_nats::{Bus, INSTANCES};
use tidings_tests::{Device, Identity, System, SystemOptions, eventually};
use tokio::time::Instant;

/// Deliveries resume this soon after what was away is back; on a busy machine a little later.
const RESUMED: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_came_while_a_worker_was_stopped_is_known_to_it() {
    let system = System::start(&SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    })
    .await;
    let bus = Bus::new(system.nats().await);
    let mut alice = Device::fresh(&system, "alice").await;
    let mut bob = Device::fresh(&system, "bob").await;
    let carol = Identity::fresh("carol");
    Device::of(&system, &carol).await.close().await;
    let others = [bob.user_id(), carol.user_id.clone()];
    let chat_id = alice.create_group(&others).await;
    alice.say(chat_id, "before").await;
    assert_eq!(bob.message().await.message, "before");

    system.signal("fanout-worker-1", Signal::SIGSTOP);
    let workers = format!("$KV.{INSTANCES}.fanout-worker.*");
    eventually("nobody reckons with the worker", async || {
        let timeout = Duration::from_secs(1);
        let living = bus
            .last_by_filter(&format!("KV_{INSTANCES}"), &workers, 16, timeout)
            .await;
        match living {
            Ok(living) if living.iter().all(|key| key.payload.is_empty()) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    // Both are caught up though the worker knows neither of the connection nor of the client.
    let mut carol = Device::of(&system, &carol).await;
    assert_eq!(carol.message().await.message, "before");
    let mut tablet = Device::of(&system, &Identity::new(&bob.user_id())).await;
    alice.say(chat_id, "while it was stopped").await;

    system.signal("fanout-worker-1", Signal::SIGCONT);
    let resumed = Instant::now();
    for device in [&mut bob, &mut carol, &mut tablet] {
        assert_eq!(device.message().await.message, "while it was stopped");
    }
    assert!(resumed.elapsed() < RESUMED, "{:?}", resumed.elapsed());
    alice.say(chat_id, "after").await;
    for device in [&mut bob, &mut carol, &mut tablet] {
        assert_eq!(device.message().await.message, "after");
    }
}
