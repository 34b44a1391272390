//! An event stays in CHATS until somebody deletes it, whatever happens to its consumer on three servers (adr/0019).

mod support;

use std::time::{Duration, Instant};

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

/// Asks the consumer for messages with this pin, and hears so many; returns the pin. `in_all` is what the consumer
/// has from its beginning: who is not pinned any more (the consumer's leader has changed, or 5 s have passed) cannot
/// know who has heard what, resets it and hears all. While nobody answers for it, as where it was just made, this
/// asks again.
async fn pull(bus: &Bus, mut pin: Option<String>, mut count: u64, in_all: u64) -> String {
    let began = Instant::now();
    'ask: loop {
        let inbox = bus.client().new_inbox();
        let mut replies = bus
            .client()
            .subscribe(inbox.clone())
            .await
            .expect("a subscription");
        let pull = Pull {
            batch: 1_000,
            expires: PATIENCE.as_nanos() as u64,
            group: Some(FANOUT_GROUP),
            id: pin.as_deref(),
            ..Pull::default()
        };
        let subject = Pull::subject(CHATS, &fanout_consumer(PARTITION));
        bus.client()
            .publish_with_reply(subject, inbox, pull.encode())
            .await
            .expect("it is sent");
        while count > 0 {
            let next = tokio::time::timeout(PATIENCE, replies.next()).await;
            let message = next.expect("it comes in time").expect("a message");
            if let Some(status) = ConsumerStatus::of(&message) {
                assert!(
                    began.elapsed() < PATIENCE,
                    "{status:?}, {count} of {in_all} are missing"
                );
                match status {
                    ConsumerStatus::NoResponders | ConsumerStatus::Ended => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    ConsumerStatus::NotPinned => {
                        (pin, count) = (None, in_all);
                        unpin(bus).await;
                        let reset = format!("CONSUMER.RESET.{CHATS}.{}", fanout_consumer(PARTITION));
                        ask(bus, &reset, &json!({ "seq": 1 })).await;
                    }
                    other => panic!("{other:?}, {count} of {in_all} are missing"),
                }
                continue 'ask;
            }
            let named = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get("Nats-Pin-Id"));
            pin = Some(named.expect("a delivery of who is pinned").to_string());
            count -= 1;
        }
        return pin.expect("something was heard");
    }
}

/// Somebody else who would like to be pinned asks while the consumer is reset.
async fn reset_beside_another(bus: &Bus) {
    let consumer = fanout_consumer(PARTITION);
    let waiting = bus.client().new_inbox();
    let subscription = bus
        .client()
        .subscribe(waiting.clone())
        .await
        .expect("a subscription");
    let ask_too = Pull {
        batch: 1,
        expires: Duration::from_secs(3).as_nanos() as u64,
        group: Some(FANOUT_GROUP),
        ..Pull::default()
    };
    let answered = bus.client().new_inbox();
    let mut answers = bus
        .client()
        .subscribe(answered.clone())
        .await
        .expect("a subscription");
    let reset = format!("$JS.API.CONSUMER.RESET.{CHATS}.{consumer}");
    let sent = bus
        .client()
        .publish_with_reply(reset, answered, r#"{"seq":1}"#.into());
    sent.await.expect("it is sent");
    for _ in 0..20 {
        let subject = Pull::subject(CHATS, &consumer);
        let sent = bus
            .client()
            .publish_with_reply(subject, waiting.clone(), ask_too.encode());
        sent.await.expect("it is sent");
    }
    let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
    let answer = answer.expect("in time").expect("an answer");
    let said: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert!(said.get("error").is_none(), "the consumer was not reset: {said}");
    drop(subscription);
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
        let pin = pull(&bus, Some(pin), before + EVENTS, before + EVENTS).await;
        publish(&bus, "chat.00.a", format!("{round} last")).await;
        pull(&bus, Some(pin), 1, before + EVENTS + 1).await;
        // The next leader looks what its consumers are done with; a work queue's is mistaken.
        ask(&bus, &format!("STREAM.LEADER.STEPDOWN.{CHATS}"), &json!({})).await;
        publish(&bus, "chat.01.b", format!("{round} after")).await;
        assert_eq!(kept(&bus).await, before + EVENTS + 1, "round {round}");
    }
}
