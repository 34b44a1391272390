//! Connections that are dead and do not know it, and those that come again and again.

use serde_json::{Value, json};
use tidings_nats::{Inbox, Topology, inbox_stream};
use tidings_protocol::{CloseCode, Codec};
use tidings_tests::{Device, Stored, System};

use crate::support::{hear, person};

/// A connection that takes everything and confirms nothing, as one whose other end has gone without a word: what it
/// was sent comes again on the next one, and its own late confirmation takes nothing away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_connection_swallowed_comes_again() {
    let system = System::shared().await;
    let stored = Stored::of(system).await;
    let mut alice = Device::of(system, &person("alice", false)).await;
    let bob = person("bob", false);
    let mut dead = Device::on(system, 0, &bob, Codec::Json).await;
    let chat_id = alice.direct_chat(&bob.user_id).await;
    let update = dead.update().await;
    dead.confirm(update.delivery).await;
    for text in ["one", "two", "three"] {
        alice.say(chat_id, text).await;
    }
    let swallowed = hear(&mut dead, 3).await;
    stored.until(&bob.user_id, bob.client_id, 3).await;

    let mut alive = Device::on(system, 1, &bob, Codec::Json).await;
    let through = tidings_protocol::Received {
        delivery: None,
        through: Some(swallowed[2].delivery),
    };
    // The socket may be closed by now.
    let _ = dead.connection().send(&through.into()).await;
    let (closed, _) = dead.until_closed().await;
    assert_eq!(closed.close_code(), Some(CloseCode::Replaced));
    let again = hear(&mut alive, 3).await;
    let texts: Vec<&str> = again.iter().map(|message| message.message.as_str()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    let entries = stored.entries(&bob.user_id, Inbox::Client(bob.client_id)).await;
    assert_eq!(entries, 3, "nobody confirmed them");
    alive.confirm_through(again[2].delivery).await;
    stored.until(&bob.user_id, bob.client_id, 0).await;
}

/// Whoever reconnects in a loop leaves nothing behind: one durable, one key, no consumer of a watcher.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnecting_piles_nothing_up() {
    const TIMES: usize = 20;
    let system = System::shared().await;
    let bob = person("bob", false);
    let jetstream = async_nats::jetstream::new(system.nats().await);
    let consumers = async |stream: &str| -> u64 {
        let info: Value = jetstream
            .request(format!("STREAM.INFO.{stream}"), &json!({}))
            .await
            .expect("the stream answers");
        info["state"]["consumer_count"].as_u64().expect("a number")
    };
    let sessions = consumers("KV_SESSIONS").await;
    for gateway in 0..TIMES {
        let device = Device::welcomed(system, gateway, &bob, Codec::Json).await;
        // Some say goodbye, others are just gone.
        if gateway.is_multiple_of(3) {
            device.close().await;
        }
    }
    assert_eq!(consumers("KV_SESSIONS").await, sessions);
    let stream = inbox_stream(Topology::default().shard(&bob.user_id));
    let names: Value = jetstream
        .request(format!("CONSUMER.NAMES.{stream}"), &json!({}))
        .await
        .expect("the stream answers");
    let names = names["consumers"].as_array().cloned().unwrap_or_default();
    let own = names
        .iter()
        .filter(|name| name.as_str() == Some(&bob.client_id.to_string()));
    assert_eq!(own.count(), 1, "{names:?}");
    let mut device = Device::of(system, &bob).await;
    assert!(device.settle().await.is_empty());
}
