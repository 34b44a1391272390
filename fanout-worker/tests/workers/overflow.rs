//! What a full inbox refuses is marked.

use std::time::Duration;

use tidings_nats::{Inbox, Lost, inbox_stream, inbox_subject, lost_subject};
use tidings_protocol::{ChatId, TrimReason, UserId};

use crate::support::System;

const TIMEOUT: Duration = Duration::from_secs(5);

impl System {
    /// Lets the inboxes of a user's shard hold so many entries, and as many marks: two at least, since a mark is
    /// replaced before it is deleted.
    async fn bound_inboxes(&self, user_id: &UserId, entries_max: i64) {
        let jetstream = self.context.bus.jetstream();
        let name = inbox_stream(self.context.topology.shard(user_id));
        let mut stream = jetstream.get_stream(name).await.expect("the stream is there");
        let mut config = stream.info().await.expect("the stream answers").config.clone();
        config.max_messages_per_subject = entries_max;
        jetstream
            .update_stream(config)
            .await
            .expect("the bound may change");
    }

    /// The marks of an inbox, with their sequences.
    async fn marks(&self, user_id: &UserId, inbox: Inbox) -> Vec<(u64, Lost)> {
        let topology = &self.context.topology;
        let stream = inbox_stream(topology.shard(user_id));
        let subject = lost_subject(&inbox_subject(topology, user_id, inbox));
        let bus = &self.context.bus;
        let marks = bus.leader_all(&stream, &subject, 1, 100, TIMEOUT).await;
        marks
            .expect("the stream answers")
            .iter()
            .map(|mark| {
                let lost = Lost::decode(&mark.payload).expect("a worker wrote it");
                (mark.sequence, lost)
            })
            .collect()
    }
}

fn sorted(mut chats: Vec<ChatId>) -> Vec<ChatId> {
    chats.sort_unstable();
    chats
}

#[tokio::test]
async fn one_mark_counts_what_was_refused_and_names_the_chats() {
    let system = System::start(2).await;
    let alice = system.register("alice").await;
    let bob = system.register("bob").await;
    let inbox = Inbox::Client(bob.client_id);
    system.bound_inboxes(&bob.user_id, 3).await;
    let (lunch, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let (dinner, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    for text in ["a", "b", "c", "d", "e"] {
        system.send(lunch, &alice, text).await;
        system.send(dinner, &alice, text).await;
    }
    let worker = system.worker().await;
    system.wait_until_fanned_out().await;
    assert_eq!(system.inbox(&bob.user_id, inbox).await.len(), 3);
    let marks = system.marks(&bob.user_id, inbox).await;
    let [(first_mark, lost)] = &marks[..] else {
        panic!("one mark is expected: {marks:?}");
    };
    assert_eq!(
        (lost.reason, lost.missed, sorted(lost.chats.clone())),
        (TrimReason::Full, Some(9), sorted(vec![lunch, dinner]))
    );

    // The client confirms the mark and nothing else: what is refused after that is marked again.
    let stream = inbox_stream(system.context.topology.shard(&bob.user_id));
    let bus = &system.context.bus;
    let confirmed = bus.delete_message(&stream, *first_mark, TIMEOUT).await;
    confirmed.expect("the stream answers");
    system.send(dinner, &alice, "f").await;
    system.wait_until_fanned_out().await;
    let marks = system.marks(&bob.user_id, inbox).await;
    let [(_, lost)] = &marks[..] else {
        panic!("one mark is expected: {marks:?}");
    };
    assert_eq!((lost.missed, &lost.chats[..]), (Some(1), &[dinner][..]));
    worker.stop().await;
}

#[tokio::test]
async fn the_inbox_that_waits_for_a_first_client_is_marked_like_any() {
    let system = System::start(1).await;
    let alice = system.register("alice").await;
    let carol = UserId::new("carol").expect("a user id");
    system.bound_inboxes(&carol, 2).await;
    let (chat, _) = system.chat(&[&alice.user_id, &carol]).await;
    let worker = system.worker().await;
    for text in ["a", "b", "c"] {
        system.send(chat, &alice, text).await;
    }
    system.wait_until_fanned_out().await;
    let marks = system.marks(&carol, Inbox::First).await;
    let [(_, lost)] = &marks[..] else {
        panic!("one mark is expected: {marks:?}");
    };
    assert_eq!((lost.missed, &lost.chats[..]), (Some(2), &[chat][..]));
    worker.stop().await;
}
