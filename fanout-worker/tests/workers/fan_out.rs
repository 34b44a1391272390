//! One worker on real servers: what is accepted arrives in every inbox it is meant for, and gateways hear of it.

use crate::support::{Gateway, PATIENCE, System, changes, texts};
use serde_json::{Value, json};
use tidings_nats::Inbox;
use tidings_protocol::{Operation, UserId};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_in_every_inbox_and_gateways_hear_of_it() {
    let system = System::start(4).await;
    let (alice, alice_too) = (system.register("alice").await, system.register("alice").await);
    let bob = system.register("bob").await;
    let carol = UserId::new("carol@example.org").expect("a user id");
    let mut gateway = Gateway::listen(&system, "g1").await;
    let worker = system.worker().await;
    let revision = system.connect(&bob, "g1", 7).await;
    let beacon = gateway
        .beacon(|beacon| beacon.sessions_revision >= revision)
        .await;
    assert_eq!((beacon.worker, beacon.notices), (worker.context.boot_id.0, 0));

    let (chat_id, created) = system.chat(&[&alice.user_id, &bob.user_id, &carol]).await;
    let sent = system.send(chat_id, &alice, "hello").await;
    let entries = system.wait_for_entries(&bob, 2).await;
    assert_eq!(entries[0].1.seq, created);
    assert_eq!(changes(&entries)[0].participants.len(), 3);
    assert_eq!(
        (entries[1].1.seq, &texts(&entries)[&chat_id][..]),
        (sent, &["hello".to_owned()][..])
    );

    let (first, second) = (gateway.notice().await, gateway.notice().await);
    assert_eq!((first.number, second.number), (1, 2));
    assert_eq!(second.entry, entries[1].1.encode());
    assert_eq!(second.recipients.len(), 1, "only bob is connected there");
    let recipient = second.recipients[0];
    assert_eq!((recipient.client_id, recipient.connection), (bob.client_id, 7));
    assert_eq!(recipient.sequence, entries[1].0);
    gateway.beacon(|beacon| beacon.notices == 2).await;

    // The sender's other client gets it; the sending one does not, but learns of the chat.
    system.wait_for_entries(&alice_too, 2).await;
    system.wait_until_fanned_out().await;
    let own = system.inbox(&alice.user_id, Inbox::Client(alice.client_id)).await;
    assert_eq!((own.len(), changes(&own).len()), (1, 1));
    // Who has no client yet finds it when the first one comes.
    assert_eq!(system.inbox(&carol, Inbox::First).await.len(), 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_gets_nothing_more_and_who_was_added_gets_everything() {
    let system = System::start(4).await;
    let alice = system.register("alice").await;
    let bob = system.register("bob").await;
    let carol = system.register("carol").await;
    // Everything is there before a worker is: nothing is in its caches.
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    system.send(chat_id, &alice, "1").await;
    let added = system
        .modify(chat_id, &alice.user_id, Operation::Add, &carol.user_id)
        .await;
    system.send(chat_id, &alice, "2").await;
    let removed = system
        .modify(chat_id, &alice.user_id, Operation::Remove, &bob.user_id)
        .await;
    system.send(chat_id, &alice, "3").await;
    let worker = system.worker().await;
    system.wait_until_fanned_out().await;
    let of_bob = system.wait_for_entries(&bob, 5).await;
    assert_eq!(texts(&of_bob)[&chat_id], ["1", "2"]);
    assert_eq!(
        of_bob.last().expect("five entries").1.seq,
        removed,
        "he hears of his removal"
    );
    let of_carol = system.wait_for_entries(&carol, 4).await;
    assert_eq!(of_carol[0].1.seq, added);
    assert_eq!(texts(&of_carol)[&chat_id], ["2", "3"]);
    worker.stop().await;
}

/// A consumer whose replica took events for delivered delivers them to nobody, and so nobody is pinned and resets it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_consumer_has_forgotten_is_fanned_out() {
    let system = System::start(1).await;
    let alice = system.register("alice").await;
    let bob = system.register("bob").await;
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let last = system.send(chat_id, &alice, "1").await;
    system.move_consumer(chat_id, last + 1).await;
    let worker = system.worker().await;
    system.wait_until_fanned_out().await;
    assert_eq!(texts(&system.wait_for_entries(&bob, 2).await)[&chat_id], ["1"]);
    worker.stop().await;
}

/// A worker that was connected all the time finds out by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_was_deleted_is_made_anew() {
    let system = System::start(1).await;
    let alice = system.register("alice").await;
    let bob = system.register("bob").await;
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let worker = system.worker().await;
    system.wait_until_fanned_out().await;
    let subject = "CONSUMER.DELETE.CHATS.fanout-00";
    let deleted = system
        .context
        .bus
        .api::<Value>(subject, &json!({}), PATIENCE)
        .await;
    deleted.expect("it was there");
    system.send(chat_id, &alice, "1").await;
    assert_eq!(texts(&system.wait_for_entries(&bob, 2).await)[&chat_id], ["1"]);
    system.wait_until_fanned_out().await;
    worker.stop().await;
}

/// The deletion of a message is lost, that of a later change of its chat is not: only the message comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_does_not_come_again_counts() {
    let system = System::start(4).await;
    let alice = system.register("alice").await;
    let bob = system.register("bob").await;
    let carol = system.register("carol").await;
    let (chat_id, created) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    system.send(chat_id, &alice, "1").await;
    let added = system
        .modify(chat_id, &alice.user_id, Operation::Add, &carol.user_id)
        .await;
    system.send(chat_id, &alice, "2").await;
    let removed = system
        .modify(chat_id, &alice.user_id, Operation::Remove, &bob.user_id)
        .await;
    system.send(chat_id, &alice, "3").await;
    for change in [created, added, removed] {
        system.take_away(change).await;
    }
    let worker = system.worker().await;
    system.wait_until_fanned_out().await;
    assert_eq!(
        texts(&system.wait_for_entries(&bob, 2).await)[&chat_id],
        ["1", "2"]
    );
    assert_eq!(
        texts(&system.wait_for_entries(&carol, 2).await)[&chat_id],
        ["2", "3"]
    );
    worker.stop().await;
}

/// The same, where a change comes again and a later one does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_comes_again_is_not_the_last_one() {
    let system = System::start(4).await;
    let alice = system.register("alice").await;
    let bob = system.register("bob").await;
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let removed = system
        .modify(chat_id, &alice.user_id, Operation::Remove, &bob.user_id)
        .await;
    system.send(chat_id, &alice, "1").await;
    system.take_away(removed).await;
    let worker = system.worker().await;
    system.wait_until_fanned_out().await;
    let of_bob = system.wait_for_entries(&bob, 1).await;
    assert!(texts(&of_bob).is_empty(), "he was out: {of_bob:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_registers_gets_everything_after_the_worker_knows() {
    let system = System::start(4).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let mut gateway = Gateway::listen(&system, "g1").await;
    let worker = system.worker().await;
    system.connect(&alice, "g1", 1).await;
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    system.send(chat_id, &alice, "before").await;
    system.wait_for_entries(&bob, 2).await;
    let bob_too = system.register("bob").await;
    let last = last_invalidation(&system).await;
    gateway
        .beacon(|beacon| beacon.invalidations_sequence >= last)
        .await;
    system.send(chat_id, &alice, "after").await;
    let entries = system.wait_for_entries(&bob_too, 1).await;
    assert_eq!(texts(&entries)[&chat_id], ["after"]);
    worker.stop().await;
}

async fn last_invalidation(system: &System) -> u64 {
    let stream = system.context.bus.jetstream().get_stream("INVALIDATIONS").await;
    stream
        .expect("the stream is there")
        .cached_info()
        .state
        .last_sequence
}
