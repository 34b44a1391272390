//! The keys in SESSIONS are put again, whoever took them away.

use std::time::Duration;

use tidings_nats::setup::{self, SetupOptions};
use tidings_nats::{Bus, SESSIONS, SessionKey};
use tidings_protocol::{ChatId, ClientId};
use tidings_tests::{Device, PATIENCE, System, SystemOptions};
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(5);

fn stream() -> String {
    format!("KV_{SESSIONS}")
}

fn subject(client_id: ClientId) -> String {
    format!("$KV.{SESSIONS}.{client_id}")
}

/// Waits until a client's key is there; says its revision and content. A check comes round every 30 s.
async fn until_key(bus: &Bus, client_id: ClientId) -> (u64, SessionKey) {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let found = bus.leader_last(&stream(), &subject(client_id), TIMEOUT).await;
        if let Ok(Some(found)) = &found
            && let Some(key) = SessionKey::decode(&found.payload)
        {
            return (found.sequence, key);
        }
        assert!(Instant::now() < deadline, "the key is not put again: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends and waits until it is delivered; says how long that took.
async fn pass(alice: &mut Device, bob: &mut Device, chat_id: ChatId, text: &str) -> Duration {
    alice.say(chat_id, text).await;
    let sent = Instant::now();
    let message = bob.message().await;
    assert_eq!(message.message, text);
    bob.confirm(message.delivery).await;
    sent.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_gone_is_put_again() {
    let system = System::start(&SystemOptions {
        inbox_workers: 1,
        ..SystemOptions::default()
    })
    .await;
    let bus = Bus::new(system.nats().await);
    let mut alice = Device::fresh(&system, "alice").await;
    let mut bob = Device::fresh(&system, "bob").await;
    let chat_id = alice.direct_chat(&bob.user_id()).await;
    bob.update().await;
    pass(&mut alice, &mut bob, chat_id, "before").await;
    let client_id = bob.identity.client_id;
    let (first, own) = until_key(&bus, client_id).await;

    // Somebody deletes the key, as `nats kv del SESSIONS <client>` does.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    bus.publish(subject(client_id), headers, Vec::new().into(), TIMEOUT)
        .await
        .expect("SESSIONS takes it");
    // What is sent now is noticed by nobody, and comes with the check.
    alice.say(chat_id, "unnoticed").await;
    let (second, again) = until_key(&bus, client_id).await;
    assert!(second > first && again == own, "{second} {again:?}");
    let unnoticed = bob.message().await;
    assert_eq!(unnoticed.message, "unnoticed");
    bob.confirm(unnoticed.delivery).await;
    let live = pass(&mut alice, &mut bob, chat_id, "live again").await;
    assert!(live < Duration::from_secs(5), "{live:?}");

    // The whole bucket is lost and made anew: revisions count from 1 again.
    let topology = setup::check(&bus).await.expect("the system is set up");
    bus.api::<serde_json::Value>(
        &format!("STREAM.DELETE.{}", stream()),
        &serde_json::json!({}),
        TIMEOUT,
    )
    .await
    .expect("the bucket is deleted");
    let options = SetupOptions {
        topology,
        replicas: 1,
        ..SetupOptions::default()
    };
    setup::apply(&bus, &options, false)
        .await
        .expect("the bucket is made anew");
    let (third, again) = until_key(&bus, client_id).await;
    assert!(third < second && again == own, "{third} {again:?}");
    // Workers may follow the old bucket for some seconds; until none does, the session reads twice a second.
    for number in 0..20 {
        let took = pass(&mut alice, &mut bob, chat_id, &number.to_string()).await;
        assert!(took < Duration::from_secs(5), "{number}: {took:?}");
    }
    // A connection to the new bucket is the newest one, though its revision is lower than the first one's was.
    let identity = bob.identity.clone();
    let mut newer = Device::of(&system, &identity).await;
    bob.until_closed().await;
    pass(&mut alice, &mut newer, chat_id, "to the newest").await;
}
