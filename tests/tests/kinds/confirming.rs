//! What is confirmed goes, once and for all, and nothing else waits for it.

use std::time::Duration;

use async_nats::jetstream;
use tidings_nats::{Bus, Inbox, Topology, inbox_stream};
use tidings_protocol::WINDOW_MAX;
use tidings_tests::{Device, Stored, System, eventually};

use crate::support::{SPOILED, hear, person, say_many};

/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The server has three answers for "there is nothing to delete", depending on where in the stream it is. An answer
/// that gets lost makes any deletion come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_already_is_deleted() {
    let system = System::shared().await;
    let bus = Bus::new(system.nats().await);
    let jetstream = jetstream::new(bus.client().clone());
    let config = jetstream::stream::Config {
        name: "KINDS".to_owned(),
        subjects: vec!["kinds".to_owned()],
        ..jetstream::stream::Config::default()
    };
    jetstream.create_stream(config).await.expect("there is none");
    for number in 1..=4 {
        let id = number.to_string();
        let accepted = bus
            .publish_with_id("kinds".to_owned(), &id, "x".into(), TIMEOUT)
            .await;
        assert_eq!(accepted.expect("it is stored").sequence, number);
    }
    // In the middle, at the beginning, at the end, and beyond the end, each twice.
    for sequence in [2, 1, 4, 9, 3] {
        for time in ["first", "second"] {
            let deleted = bus.delete_message("KINDS", sequence, TIMEOUT).await;
            assert_eq!(deleted, Ok(()), "{sequence}, the {time} time");
        }
    }
}

/// PROTOCOL advises to confirm every 64 deliveries; who waits for a whole window is not kept waiting for its rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_confirms_a_window_at_a_time_hears_everything() {
    /// More than half a window.
    const FIRST: usize = 150;
    /// Each is in a partition of its own, mostly: what is told of it first is a reason to read.
    const CHATS: usize = 10;
    let system = System::shared().await;
    let mut bob = Device::of(system, &person("bob", false)).await;
    let mut chats = Vec::new();
    for _ in 0..CHATS {
        let mut alice = Device::of(system, &person("alice", false)).await;
        let chat_id = alice.direct_chat(&bob.user_id()).await;
        chats.push((alice, chat_id));
    }
    let (alice, chat_id) = &mut chats[0];
    say_many(alice, *chat_id, FIRST).await;
    hear(&mut bob, FIRST).await;
    for (alice, chat_id) in &mut chats[1..] {
        alice.say(*chat_id, "hello").await;
        bob.message().await;
    }
    let (alice, chat_id) = &mut chats[0];
    let rest = WINDOW_MAX - FIRST - 2 * CHATS;
    say_many(alice, *chat_id, WINDOW_MAX).await;
    let heard = hear(&mut bob, rest).await;
    bob.confirm_through(heard.last().expect("there are some").delivery)
        .await;
    hear(&mut bob, WINDOW_MAX - rest).await;
}

/// One stream of inboxes refuses to delete: whoever is in another one notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inboxes_that_cannot_be_emptied_keep_nobody_else_waiting() {
    /// Together more than a gateway deletes at once.
    const EACH: usize = 150;
    let system = System::shared().await;
    let stored = Stored::of(system).await;
    let mut alice = Device::of(system, &person("alice", false)).await;
    let mut carol = Device::of(system, &person("carol", false)).await;
    let mut bobs = Vec::new();
    for _ in 0..2 {
        bobs.push(Device::of(system, &person("bob", true)).await);
    }
    let chat_id = alice.create_group(&[bobs[0].user_id(), bobs[1].user_id()]).await;
    let with_carol = alice.direct_chat(&carol.user_id()).await;
    say_many(&mut alice, chat_id, EACH).await;
    // What is confirmed sooner is never stored, and nobody has to delete it.
    for bob in &bobs {
        let identity = &bob.identity;
        let all = EACH as u64 + 1;
        stored.until(&identity.user_id, identity.client_id, all).await;
    }

    let jetstream = jetstream::new(system.nats().await);
    let mut stream = jetstream
        .get_stream(inbox_stream(SPOILED))
        .await
        .expect("the stream is there");
    let mut config = stream.info().await.expect("the stream answers").config.clone();
    config.deny_delete = true;
    jetstream.update_stream(config).await.expect("it may be denied");
    for bob in &mut bobs {
        let heard = hear(bob, EACH).await;
        let last = heard.last().expect("there are many").delivery;
        bob.confirm_through(last).await;
        bob.settle().await;
    }
    alice.say(with_carol, "hello").await;
    let message = carol.message().await;
    carol.confirm_through(message.delivery).await;
    let identity = carol.identity.clone();
    stored.until(&identity.user_id, identity.client_id, 0).await;
    let bob = &bobs[0].identity;
    let kept = stored.entries(&bob.user_id, Inbox::Client(bob.client_id)).await;
    assert!(kept >= EACH as u64, "the server did not refuse");
}

/// A consumer whose messages are deleted from under it must not count them for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_durable_of_an_emptied_inbox_counts_nothing() {
    const COUNT: usize = 60;
    let system = System::shared().await;
    let mut alice = Device::of(system, &person("alice", false)).await;
    let bob = person("bob", false);
    Device::of(system, &bob).await.close().await;
    let chat_id = alice.direct_chat(&bob.user_id).await;
    say_many(&mut alice, chat_id, COUNT).await;
    // Through the durable: all of it is outstanding there.
    let mut device = Device::of(system, &bob).await;
    let update = device.update().await;
    let heard = hear(&mut device, COUNT).await;
    // The last first, then every other one, then what is left.
    let order = heard.iter().rev().step_by(2).chain(heard.iter());
    for message in order {
        device.confirm(message.delivery).await;
    }
    device.confirm(update.delivery).await;
    device.settle().await;
    let bus = Bus::new(system.nats().await);
    let shard = Topology::default().shard(&bob.user_id);
    eventually("the durable counts nothing", async || {
        let info = bus.durable_info(shard, bob.client_id, TIMEOUT).await;
        match info.map(|info| info.unconfirmed()) {
            Ok(0) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}
