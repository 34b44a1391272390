//! Catching up while others go on sending: no loss, no duplicate, no reordering.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidings_protocol::{ChatId, ClientFrame, Codec, MessageId, SendMessage, ServerFrame};
use tidings_tests::{Device, Identity, Stored, System};
use tokio::time::Instant;
use uuid::Uuid;

/// Messages a second into the one inbox.
const RATE: u64 = 500;
/// How often the client connects and disconnects meanwhile.
const CONNECTIONS: usize = 50;

/// Sends numbered messages at the rate, from several senders, each to a chat of its own, until told to stop. Says
/// how many each has sent once all are accepted.
async fn send(mut sender: Device, chat_id: ChatId, rate: u64, stop: Arc<AtomicU64>) -> (ChatId, u64) {
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut number = 0;
    let mut ids = Vec::new();
    while stop.load(Ordering::Relaxed) == 0 {
        pace.tick().await;
        let id = sender.id();
        let message = number.to_string();
        let message_id = MessageId(Uuid::new_v4());
        sender
            .send(ClientFrame::from(SendMessage {
                id,
                chat_id,
                message_id,
                message,
                attachments: vec![],
            }))
            .await;
        ids.push(id);
        number += 1;
        if ids.len() >= 32 {
            for id in ids.drain(..) {
                sender.reply(id).await.expect("accepted");
            }
        }
    }
    for id in ids {
        sender.reply(id).await.expect("accepted");
    }
    (chat_id, number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered_over_fifty_connections() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let system = System::shared().await;
    let bob = Identity::fresh("bob");
    Device::of(system, &bob).await.close().await;

    let stop = Arc::new(AtomicU64::new(0));
    let mut senders = Vec::new();
    for number in 0..4 {
        let sender = Identity::fresh("sender");
        let mut sender = Device::on(system, number, &sender, Codec::Json).await;
        let chat_id = sender.direct_chat(&bob.user_id).await;
        senders.push(tokio::spawn(send(sender, chat_id, RATE / 4, stop.clone())));
    }

    // What bob has stored, as a client that drops what it knows: the next number of each chat.
    let mut next = std::collections::HashMap::<ChatId, u64>::new();
    let mut hear = |heard: &ServerFrame| match heard {
        ServerFrame::NewMessage(message) => {
            let number: u64 = message.message.parse().expect("a number");
            let next = next.entry(message.chat_id).or_default();
            assert!(
                number <= *next,
                "seed {seed}: {number} came before {next} in {}",
                message.chat_id
            );
            if number == *next {
                *next += 1;
            }
            Some(message.delivery)
        }
        ServerFrame::ChatUpdate(update) => Some(update.delivery),
        _ => None,
    };
    for _ in 0..CONNECTIONS {
        let gateway = rng.random_range(0..2);
        let mut device = Device::welcomed(system, gateway, &bob, Codec::Json).await;
        let leave_at = Instant::now() + Duration::from_millis(rng.random_range(0..400));
        let mut last = 0;
        let mut seen_here = std::collections::HashSet::new();
        while let Ok(delivery) =
            tokio::time::timeout_at(leave_at, device.expect("a delivery", &mut hear)).await
        {
            assert!(
                seen_here.insert(delivery),
                "seed {seed}: delivery {delivery} twice on one connection"
            );
            last = delivery;
            if delivery % 16 == 0 {
                device.confirm_through(delivery).await;
            }
        }
        if last > 0 && rng.random_bool(0.5) {
            device.confirm_through(last).await;
        }
        if rng.random_bool(0.5) {
            device.close().await;
        }
    }
    stop.store(1, Ordering::Relaxed);
    let mut sent = std::collections::HashMap::new();
    for sender in senders {
        let (chat_id, count) = sender.await.expect("a sender goes on to its end");
        sent.insert(chat_id, count);
    }
    let total: u64 = sent.values().sum();
    assert!(total > 1_000, "only {total} were sent");

    let mut device = Device::welcomed(system, 0, &bob, Codec::Json).await;
    loop {
        let delivery = device
            .expect("a delivery or caughtUp", |heard| match heard {
                ServerFrame::CaughtUp(_) => Some(None),
                heard => hear(heard).map(Some),
            })
            .await;
        let Some(delivery) = delivery else { break };
        device.confirm_through(delivery).await;
    }
    assert_eq!(next, sent, "seed {seed}");
    Stored::of(system)
        .await
        .until(&bob.user_id, bob.client_id, 0)
        .await;
}
