//! Who is away finds everything at the next connect, in order, and what was confirmed is gone.

use std::collections::{HashMap, HashSet};

use tidings_nats::Inbox;
use tidings_protocol::{ChatId, Codec, NewMessage, ServerFrame};
use tidings_tests::{Device, Identity, Stored, System};

/// Hears and confirms until so many messages have come; says them in the order they came.
async fn hear_messages(device: &mut Device, count: usize) -> Vec<NewMessage> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let (delivery, message) = device
            .expect("a delivery", |heard| match heard {
                ServerFrame::NewMessage(message) => Some((message.delivery, Some(message.clone()))),
                ServerFrame::ChatUpdate(update) => Some((update.delivery, None)),
                _ => None,
            })
            .await;
        messages.extend(message);
        if delivery % 64 == 0 || messages.len() == count {
            device.confirm_through(delivery).await;
        }
    }
    messages
}

fn assert_in_order(messages: &[NewMessage]) {
    let mut last: HashMap<ChatId, u64> = HashMap::new();
    for message in messages {
        let before = last.insert(message.chat_id, message.seq);
        assert!(
            before.is_none_or(|before| before < message.seq),
            "{} after {before:?}",
            message.seq
        );
    }
    let distinct: HashSet<_> = messages.iter().map(|message| message.message_id).collect();
    assert_eq!(distinct.len(), messages.len(), "something came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_wait_and_then_are_gone() {
    let system = System::shared().await;
    let stored = Stored::of(system).await;
    let bob = Identity::fresh("bob");
    Device::of(system, &bob).await.close().await;

    let mut alice = Device::fresh(system, "alice").await;
    let mut chats = Vec::new();
    for _ in 0..5 {
        chats.push(alice.create_group(std::slice::from_ref(&bob.user_id)).await);
    }
    for number in 0..1_000 {
        alice.say(chats[number % 5], &number.to_string()).await;
    }
    stored.until(&bob.user_id, bob.client_id, 1_005).await;
    assert_eq!(stored.durable(&bob.user_id, bob.client_id).await, (1_005, 0));

    let mut device = Device::welcomed(system, 1, &bob, Codec::Json).await;
    let messages = hear_messages(&mut device, 1_000).await;
    assert_in_order(&messages);
    device.until_caught_up().await;
    stored.until(&bob.user_id, bob.client_id, 0).await;
    assert_eq!(stored.durable(&bob.user_id, bob.client_id).await, (0, 0));
    let rest = device.settle().await;
    assert!(
        rest.iter()
            .all(|heard| matches!(heard, ServerFrame::ChatUpdate(_))),
        "{rest:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_confirmed_comes_again() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let mut bob = Device::fresh(system, "bob").await;
    let identity = bob.identity.clone();
    let chat_id = alice.direct_chat(&bob.user_id()).await;
    for number in 1..=4 {
        alice.say(chat_id, &number.to_string()).await;
    }
    bob.update().await;
    let mut deliveries = Vec::new();
    for _ in 0..4 {
        deliveries.push(bob.message().await.delivery);
    }
    bob.confirm(1).await;
    bob.confirm(deliveries[1]).await;
    Stored::of(system)
        .await
        .until(&identity.user_id, identity.client_id, 3)
        .await;
    bob.close().await;

    let mut again = Device::on(system, 1, &identity, Codec::Json).await;
    let mut texts = Vec::new();
    for _ in 0..3 {
        let message = again.message().await;
        texts.push((message.delivery, message.message));
    }
    let expected: Vec<(u64, String)> = [(1, "1"), (2, "3"), (3, "4")]
        .map(|(n, text)| (n, text.to_owned()))
        .into();
    assert_eq!(texts, expected);
    assert_eq!(again.settle().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_before_the_first_connect_is_inherited_once() {
    let system = System::shared().await;
    let stored = Stored::of(system).await;
    let phone = Identity::fresh("bob");
    let mut alice = Device::fresh(system, "alice").await;
    let chat_id = alice.direct_chat(&phone.user_id).await;
    alice.say(chat_id, "are you there yet?").await;
    tidings_tests::eventually("the first inbox holds it", async || {
        let entries = stored.entries(&phone.user_id, Inbox::First).await;
        if entries == 2 { Ok(()) } else { Err(entries) }
    })
    .await;

    let mut phone = Device::of(system, &phone).await;
    assert_eq!(phone.update().await.chat_id, chat_id);
    let message = phone.message().await;
    assert_eq!(message.message, "are you there yet?");

    // A second client gets what is sent from its first caughtUp on, and nothing older.
    let mut tablet = Device::on(system, 1, &Identity::new(&phone.user_id()), Codec::Json).await;
    alice.say(chat_id, "hello to both").await;
    assert_eq!(phone.message().await.message, "hello to both");
    assert_eq!(tablet.message().await.message, "hello to both");
    assert_eq!(tablet.settle().await, []);

    phone.confirm_through(3).await;
    tidings_tests::eventually("the first inbox is empty", async || {
        let entries = stored.entries(&phone.user_id(), Inbox::First).await;
        if entries == 0 { Ok(()) } else { Err(entries) }
    })
    .await;
}
