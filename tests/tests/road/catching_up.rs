//! Catching up while others go on sending: no loss, no duplicate, no reordering.

use std::collections::{HashMap, HashSet};
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
/// So many people send, each to a chat of its own: a chat takes no more once 500 events wait, which at this rate are those of
/// 16 s. A busy machine falls behind for less.
const SENDERS: u64 = 16;
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

/// What a client has stored that drops what it knows: the next number of each chat. Says which delivery it was.
fn hear(next: &mut HashMap<ChatId, u64>, heard: &ServerFrame, seed: u64) -> Option<u64> {
    match heard {
        ServerFrame::NewMessage(message) => {
            let number: u64 = message.message.parse().expect("a number");
            let next = next.entry(message.chat_id).or_default();
            assert!(
                number <= *next,
                "seed {seed}: {number} came before {next} in {}",
                message.chat_id
            );
            *next = (*next).max(number + 1);
            Some(message.delivery)
        }
        ServerFrame::ChatUpdate(update) => Some(update.delivery),
        _ => None,
    }
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
    for number in 0..SENDERS {
        let sender = Identity::fresh("sender");
        let mut sender = Device::on(system, number as usize % 2, &sender, Codec::Json).await;
        let chat_id = sender.direct_chat(&bob.user_id).await;
        senders.push(tokio::spawn(send(sender, chat_id, RATE / SENDERS, stop.clone())));
    }

    let mut next = HashMap::new();
    for _ in 0..CONNECTIONS {
        let gateway = rng.random_range(0..2);
        let mut device = Device::welcomed(system, gateway, &bob, Codec::Json).await;
        let leave_at = Instant::now() + Duration::from_millis(rng.random_range(0..400));
        let mut last = 0;
        let mut seen_here = HashSet::new();
        while let Ok(delivery) = tokio::time::timeout_at(
            leave_at,
            device.expect("a delivery", |heard| hear(&mut next, heard, seed)),
        )
        .await
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
    let mut sent = HashMap::new();
    for sender in senders {
        let (chat_id, count) = sender.await.expect("a sender goes on to its end");
        sent.insert(chat_id, count);
    }
    let total: u64 = sent.values().sum();
    assert!(total > 1_000, "only {total} were sent");

    // Everything that was accepted, also what the workers have yet to fan out.
    let mut device = Device::welcomed(system, 0, &bob, Codec::Json).await;
    let mut left = total - next.values().sum::<u64>();
    while left > 0 {
        let (delivery, new) = device
            .expect("the rest", |heard| {
                let before: u64 = next.values().sum();
                let delivery = hear(&mut next, heard, seed)?;
                Some((delivery, next.values().sum::<u64>() - before))
            })
            .await;
        left -= new;
        device.confirm_through(delivery).await;
    }
    device.until_caught_up().await;
    assert_eq!(next, sent, "seed {seed}");
    Stored::of(system)
        .await
        .until(&bob.user_id, bob.client_id, 0)
        .await;
}
