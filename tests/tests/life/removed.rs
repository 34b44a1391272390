//! Removed while connected: out at once, refused for ever, nothing left.

use tidings_nats::Inbox;
use tidings_protocol::{CloseCode, Codec, ErrorCode, RemoveClient};
use tidings_tests::{Device, Identity, Stored, System, eventually};

use crate::support::{durables, elsewhere};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_removed_leaves_nothing_behind() {
    let system = System::shared().await;
    let stored = Stored::of(system).await;
    let phone = elsewhere("bob");
    let tablet = Identity::new(&phone.user_id);
    let mut alice = Device::of(system, &elsewhere("alice")).await;
    // The phone inherits what waits.
    let chat = alice.create_group(std::slice::from_ref(&phone.user_id)).await;
    eventually("something waits", async || {
        let waits = stored.entries(&phone.user_id, Inbox::First).await;
        if waits == 1 { Ok(()) } else { Err(waits) }
    })
    .await;
    let mut removed = Device::on(system, 0, &phone, Codec::Json).await;
    let mut other = Device::on(system, 1, &tablet, Codec::Json).await;
    alice.say(chat, "a").await;
    removed.message().await;
    assert_eq!(stored.entries(&phone.user_id, Inbox::First).await, 1);
    assert_eq!(
        stored
            .entries(&phone.user_id, Inbox::Client(phone.client_id))
            .await,
        1
    );

    // The gateway that is told, and the one where it is connected, are different ones.
    let id = other.id();
    let request = RemoveClient {
        id,
        client_id: phone.client_id,
    };
    other.request(request).await.expect("it is bob's");
    let (closed, _) = removed.until_closed().await;
    assert_eq!(closed.code, CloseCode::Forbidden.number(), "{closed}");
    let (_, refused) = Device::hello(system, 0, &phone, Codec::Json, None).await;
    assert_eq!(refused.expect_err("it is final").code, ErrorCode::ClientRemoved);

    alice.say(chat, "b").await;
    eventually("nothing of it is stored", async || {
        let left = [
            stored.entries(&phone.user_id, Inbox::First).await,
            stored
                .entries(&phone.user_id, Inbox::Client(phone.client_id))
                .await,
        ];
        if left == [0, 0] { Ok(()) } else { Err(left) }
    })
    .await;
    eventually("its durable is gone", async || {
        let durables = durables(system, &phone.user_id).await;
        if durables.contains(&phone.client_id.to_string()) {
            Err(durables)
        } else {
            Ok(())
        }
    })
    .await;
    // Everybody else goes on.
    assert_eq!(other.message().await.message, "a");
    assert_eq!(other.message().await.message, "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_suspended_is_out_at_once() {
    let system = System::shared().await;
    let mut mallory = Device::of(system, &elsewhere("mallory")).await;
    let metadata = system.metadata();
    let suspended = metadata.suspend_user(&mallory.user_id()).await;
    assert!(suspended.expect("Postgres answers"));
    // The relay publishes what nobody has published.
    let (closed, _) = mallory.until_closed().await;
    assert_eq!(closed.code, CloseCode::Forbidden.number(), "{closed}");
}
