//! Partitions move while people talk: chats stay in order, and few readings come of it.

use std::collections::HashMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use tidings_protocol::{ChatId, ServerFrame};
use tidings_tests::{Device, System, SystemOptions};

use crate::cluster::counter;

const CHATS: usize = 8;
const PEOPLE: usize = 10;
const MESSAGES: usize = 200;
/// After so many a worker dies.
const KILL_AT: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_dies_while_people_talk() {
    let system = System::start(&SystemOptions {
        gateways: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    })
    .await;
    let mut alice = Device::fresh(&system, "alice").await;
    let mut people = Vec::new();
    for _ in 0..PEOPLE {
        people.push(Device::fresh(&system, "someone").await);
    }
    let others: Vec<_> = people.iter().map(Device::user_id).collect();
    let mut chats: Vec<ChatId> = Vec::new();
    for _ in 0..CHATS {
        chats.push(alice.create_group(&others).await);
    }
    let hearing: Vec<_> = people
        .into_iter()
        .map(|device| tokio::spawn(hear(device)))
        .collect();
    let admin = system.process("gateway-1").admin.expect("a gateway has one");
    let admin = admin.trim_start_matches("http://").to_owned();
    let mut readings = 0;
    for number in 0..MESSAGES {
        if number == KILL_AT {
            readings = counter(&admin, "tidings_inbox_readings_total").await;
            system.signal("fanout-worker-1", Signal::SIGKILL);
        }
        alice.say(chats[number % CHATS], &number.to_string()).await;
        // As people do; it also takes the run beyond the take-over.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for device in hearing {
        device.await.expect("everything is heard, in order");
    }
    let readings = counter(&admin, "tidings_inbox_readings_total").await - readings;
    eprintln!("{readings} readings of {PEOPLE} sessions in {CHATS} chats after a worker's death");
}

/// Hears every message of every chat, each once and in order.
async fn hear(mut device: Device) {
    let mut last: HashMap<ChatId, u64> = HashMap::new();
    let mut count = 0;
    while count < MESSAGES {
        let (delivery, message) = device
            .expect("a delivery", |heard| match heard {
                ServerFrame::NewMessage(message) => Some((message.delivery, Some(message.clone()))),
                ServerFrame::ChatUpdate(update) => Some((update.delivery, None)),
                _ => None,
            })
            .await;
        device.confirm(delivery).await;
        let Some(message) = message else { continue };
        let before = last.insert(message.chat_id, message.seq);
        assert!(before < Some(message.seq), "{} after {before:?}", message.seq);
        count += 1;
    }
}
