//! A full inbox: its client is told what it refused, and nobody else is affected.

use tidings_nats::Inbox;
use tidings_protocol::{Codec, TrimReason};
use tidings_tests::{Device, Stored, System, eventually};

use crate::support::{bound_inboxes, durable_subjects, elsewhere, in_shard, marks, narrow_durable, trimmed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_to_a_full_inbox_is_told_what_is_missing() {
    let system = System::shared().await;
    let stored = Stored::of(system).await;
    let bob = in_shard("bob", 0);
    bound_inboxes(system, &bob.user_id, 5).await;
    Device::of(system, &bob).await.close().await;
    let mut alice = Device::of(system, &elsewhere("alice")).await;
    let mut carol = Device::of(system, &elsewhere("carol")).await;
    let people = [bob.user_id.clone(), carol.user_id()];
    let (lunch, dinner) = (
        alice.create_group(&people).await,
        alice.create_group(&people).await,
    );
    for text in ["a", "b", "c", "d"] {
        alice.say(lunch, text).await;
        alice.say(dinner, text).await;
    }
    for _ in 0..8 {
        // Nobody else is affected.
        carol.message().await;
    }
    let inbox = Inbox::Client(bob.client_id);
    let missed = async || {
        marks(system, &bob.user_id, inbox)
            .await
            .first()
            .and_then(|mark| mark.missed)
    };
    eventually("everything that was refused is marked", async || {
        let missed = missed().await;
        if missed == Some(5) { Ok(()) } else { Err(missed) }
    })
    .await;

    // What comes while the inbox is full and its mark is being read is marked as well.
    let mut device = Device::welcomed(system, 1, &bob, Codec::Json).await;
    let told = trimmed(&mut device).await;
    assert_eq!(
        (told.delivery, told.reason, told.missed),
        (6, TrimReason::Full, Some(5))
    );
    let mut chats = told.chats.clone();
    chats.sort_unstable();
    let mut expected = vec![lunch, dinner];
    expected.sort_unstable();
    assert_eq!(chats, expected);
    device.confirm(told.delivery).await;
    eventually("the mark is deleted", async || {
        if missed().await.is_none() {
            Ok(())
        } else {
            Err("it is there")
        }
    })
    .await;
    alice.say(lunch, "e").await;
    let told = trimmed(&mut device).await;
    assert_eq!((told.missed, &told.chats[..]), (Some(1), &[lunch][..]));

    device.until_caught_up().await;
    device.confirm_through(told.delivery).await;
    stored.until(&bob.user_id, bob.client_id, 0).await;
    alice.say(lunch, "f").await;
    let found = device
        .expect("what was sent when there was room", |heard| match heard {
            tidings_protocol::ServerFrame::NewMessage(message) if message.message == "f" => Some(message.seq),
            _ => None,
        })
        .await;
    assert!(found > 0);
    assert_eq!(marks(system, &bob.user_id, inbox).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_heir_is_told_what_the_inbox_before_it_refused() {
    let system = System::shared().await;
    let dave = in_shard("dave", 1);
    bound_inboxes(system, &dave.user_id, 3).await;
    let mut alice = Device::of(system, &elsewhere("alice")).await;
    let chat = alice.create_group(std::slice::from_ref(&dave.user_id)).await;
    for text in ["a", "b", "c", "d"] {
        alice.say(chat, text).await;
    }
    eventually("everything that was refused is marked", async || {
        let marks = marks(system, &dave.user_id, Inbox::First).await;
        match &marks[..] {
            [mark] if mark.missed == Some(2) => Ok(()),
            _ => Err(marks),
        }
    })
    .await;
    let mut device = Device::welcomed(system, 0, &dave, Codec::Postcard).await;
    let told = trimmed(&mut device).await;
    assert_eq!((told.delivery, told.missed), (4, Some(2)));
    device.confirm_through(told.delivery).await;
    eventually("entries and mark are deleted", async || {
        let left = marks(system, &dave.user_id, Inbox::First).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// A durable that an earlier version made reads the client's own subject alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_of_an_earlier_version_is_brought_up_to_date() {
    let system = System::shared().await;
    let erin = in_shard("erin", 2);
    Device::of(system, &erin).await.close().await;
    narrow_durable(system, &erin).await;
    bound_inboxes(system, &erin.user_id, 2).await;
    let mut alice = Device::of(system, &elsewhere("alice")).await;
    let chat = alice.create_group(std::slice::from_ref(&erin.user_id)).await;
    for text in ["a", "b", "c"] {
        alice.say(chat, text).await;
    }
    let mut device = Device::welcomed(system, 0, &erin, Codec::Json).await;
    assert_eq!(trimmed(&mut device).await.reason, TrimReason::Full);
    let filters = durable_subjects(system, &erin).await;
    assert_eq!(
        filters.len(),
        4,
        "its own, that of the first inbox, and their marks: {filters:?}"
    );
}
