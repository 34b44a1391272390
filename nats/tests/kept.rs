//! An event stays in CHATS until somebody deletes it, whatever happens to its consumer on three servers (adr/0019).

mod support;

use std::time::{Duration, Instant};

use async_nats::Subscriber;
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tidings_nats::setup::{SetupOptions, consumers, streams};
use tidings_nats::{
    Bus, CHATS, ConsumerStatus, FANOUT_GROUP, Partition, Pull, fanout_consumer, partition_subjects,
};
use tidings_stack::NatsCluster;

use support::{PATIENCE, TIMEOUT, ask, connect};

const PARTITION: Partition = Partition(0);
const EVENTS: u64 = 5;
/// With `"retention": "workqueue"` half of the rounds lose events.
const ROUNDS: u64 = 8;

/// Publishes until it is accepted.
async fn publish(bus: &Bus, subject: &str, id: String) {
    let began = Instant::now();
    let payload = Bytes::from_static(b"said");
    // While a leader is elected it is not.
    while let Err(error) = bus
        .publish_with_id(subject.to_owned(), &id, payload.clone(), TIMEOUT)
        .await
    {
        assert!(began.elapsed() < PATIENCE, "{id}: {error}");
    }
}

async fn unpin(bus: &Bus) {
    let consumer = fanout_consumer(PARTITION);
    let group = json!({ "group": FANOUT_GROUP });
    ask(bus, &format!("CONSUMER.UNPIN.{CHATS}.{consumer}"), &group).await;
}

/// The consumer begins with the first event again.
async fn reset(bus: &Bus) {
    let consumer = fanout_consumer(PARTITION);
    ask(
        bus,
        &format!("CONSUMER.RESET.{CHATS}.{consumer}"),
        &json!({ "seq": 1 }),
    )
    .await;
}

/// Sends the pull so often, and gives where it is answered.
async fn send(bus: &Bus, pull: &Pull<'_>, times: usize) -> Subscriber {
    let client = bus.client();
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await.expect("a subscription");
    let subject = Pull::subject(CHATS, &fanout_consumer(PARTITION));
    for _ in 0..times {
        let sent = client.publish_with_reply(subject.clone(), inbox.clone(), pull.encode());
        sent.await.expect("it is sent");
    }
    answers
}

/// Asks the consumer for messages with this pin, and hears so many; returns the pin. Or the status with which the pull
/// has ended before.
async fn hear(bus: &Bus, pin: Option<&str>, count: u64) -> Result<String, ConsumerStatus> {
    let pull = Pull {
        batch: 1_000,
        expires: PATIENCE.as_nanos() as u64,
        group: Some(FANOUT_GROUP),
        id: pin,
        ..Pull::default()
    };
    let mut answers = send(bus, &pull, 1).await;
    let mut pin = String::new();
    for _ in 0..count {
        let next = tokio::time::timeout(PATIENCE, answers.next()).await;
        let message = next.expect("it comes in time").expect("a message");
        if let Some(status) = ConsumerStatus::of(&message) {
            return Err(status);
        }
        let named = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Pin-Id"));
        pin = named.expect("a delivery of who is pinned").to_string();
    }
    Ok(pin)
}

/// As [`hear`]. Where nobody answers for the consumer, as when it was just made, its leader changes, or the pin is lost (to
/// that, or after 5 s), nobody knows who has heard what: it is reset, and this hears `in_all`, which is what it has from its
/// beginning.
async fn pull(bus: &Bus, pin: Option<&str>, count: u64, in_all: u64) -> String {
    let began = Instant::now();
    let mut heard = hear(bus, pin, count).await;
    loop {
        match heard {
            Ok(pin) => return pin,
            Err(ConsumerStatus::NoResponders | ConsumerStatus::Ended | ConsumerStatus::NotPinned)
                if began.elapsed() < PATIENCE => {}
            Err(status) => panic!("{status:?}"),
        }
        unpin(bus).await;
        reset(bus).await;
        heard = hear(bus, None, in_all).await;
    }
}

/// Somebody else who would like to be pinned asks while the consumer is reset.
async fn reset_beside_another(bus: &Bus) {
    let ask_too = Pull {
        batch: 1,
        expires: Duration::from_secs(3).as_nanos() as u64,
        group: Some(FANOUT_GROUP),
        ..Pull::default()
    };
    // The reset is on its way first.
    let ((), _answers) = tokio::join!(biased; reset(bus), send(bus, &ask_too, 20));
}

async fn kept(bus: &Bus) -> u64 {
    let body = json!({ "subjects_filter": partition_subjects(PARTITION) });
    let info: Value = ask(bus, &format!("STREAM.INFO.{CHATS}"), &body).await;
    let subjects = info["state"]["subjects"].as_object().cloned().unwrap_or_default();
    subjects.values().filter_map(Value::as_u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_that_was_not_deleted() {
    let cluster = NatsCluster::start_temp().await.expect("three servers start");
    let bus = connect(&cluster.url()).await;
    let options = SetupOptions {
        replicas: 3,
        ..SetupOptions::default()
    };
    ask(&bus, &format!("STREAM.CREATE.{CHATS}"), &streams(&options)[0]).await;
    let consumer = fanout_consumer(PARTITION);
    let body = json!({ "stream_name": CHATS, "config": consumers(&options)[0] });
    let create = format!(
        "CONSUMER.CREATE.{CHATS}.{consumer}.{}",
        partition_subjects(PARTITION)
    );
    ask(&bus, &create, &body).await;

    // What is lost is gone within a second or two of the next election: a later round sees it.
    for round in 1..=ROUNDS {
        let before = (round - 1) * (EVENTS + 1);
        unpin(&bus).await;
        for event in 0..EVENTS {
            publish(&bus, "chat.00.a", format!("{round} {event}")).await;
        }
        let pin = pull(&bus, None, EVENTS, before + EVENTS).await;
        // Others' events, which the consumer passes over.
        for event in 0..EVENTS {
            publish(&bus, "chat.01.b", format!("{round} other {event}")).await;
        }
        reset_beside_another(&bus).await;
        let pin = pull(&bus, Some(&pin), before + EVENTS, before + EVENTS).await;
        publish(&bus, "chat.00.a", format!("{round} last")).await;
        pull(&bus, Some(&pin), 1, before + EVENTS + 1).await;
        // The next leader looks what its consumers are done with; a work queue's is mistaken.
        ask(&bus, &format!("STREAM.LEADER.STEPDOWN.{CHATS}"), &json!({})).await;
        publish(&bus, "chat.01.b", format!("{round} after")).await;
        assert_eq!(kept(&bus).await, before + EVENTS + 1, "round {round}");
    }
}
