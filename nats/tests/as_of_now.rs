//! What was acknowledged before a question is in its answer, whoever leads the stream meanwhile.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidings_nats::Bus;
use tidings_stack::{NatsCluster, NatsServer};

use support::{PATIENCE, TIMEOUT, ask, connect};

const STREAM: &str = "INBOX_00";
/// People who publish, one message after the other.
const WRITERS: usize = 32;
/// Answers that are looked at before and after each.
const ANSWERS: usize = 30;

fn inbox_stream(replicas: usize) -> Value {
    json!({
        "name": STREAM,
        "subjects": ["inbox.00.>"],
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": true,
    })
}

/// What each writer was told last.
type Acknowledged = Arc<Mutex<BTreeMap<String, u64>>>;

async fn write(bus: Bus, subject: String, acknowledged: Acknowledged, end: Arc<AtomicBool>) {
    while !end.load(Ordering::Relaxed) {
        let payload = Bytes::from_static(&[7; 512]);
        match bus
            .publish(subject.clone(), HeaderMap::new(), payload, TIMEOUT)
            .await
        {
            Ok(accepted) => {
                acknowledged.lock().insert(subject.clone(), accepted.sequence);
            }
            // At once where there is no connection: who never waits cannot be stopped when the test has failed.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Asks so often, and looks at each answer. Returns how many questions were not answered.
async fn look(bus: &Bus, acknowledged: &Acknowledged, round: &str) -> usize {
    let began = Instant::now();
    let (mut answers, mut unanswered) = (0, 0);
    while answers < ANSWERS {
        // Two seconds for each that is not answered, on a machine that has other things to do.
        assert!(began.elapsed() < 3 * PATIENCE, "round {round}: {answers} answers");
        let before = acknowledged.lock().clone();
        let subjects: Vec<String> = before.keys().cloned().collect();
        let Ok(found) = bus.last_by_subjects_now(STREAM, &subjects, TIMEOUT).await else {
            unanswered += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        answers += 1;
        let found: BTreeMap<String, u64> = found
            .into_iter()
            .map(|message| (message.subject, message.sequence))
            .collect();
        for (subject, sequence) in before {
            let last = found.get(&subject).copied().unwrap_or(0);
            assert!(
                last >= sequence,
                "round {round}: {subject} was acknowledged {sequence}, and {last} was its last"
            );
        }
    }
    unanswered
}

/// The index of the server that leads the stream, according to whoever answers here.
async fn leader(bus: &Bus) -> Option<usize> {
    let info = ask(bus, &format!("STREAM.INFO.{STREAM}"), &json!({})).await;
    let number = info["cluster"]["leader"].as_str()?.strip_prefix("nats-")?;
    number.parse::<usize>().ok()?.checked_sub(1)
}

/// Until all servers have what was acknowledged: while one is still behind, no other may fail.
async fn until_whole(bus: &Bus) {
    let began = Instant::now();
    loop {
        let info = ask(bus, &format!("STREAM.INFO.{STREAM}"), &json!({})).await;
        let others = info["cluster"]["replicas"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if others.len() == 2 && others.iter().all(|other| other["current"] == true) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "still behind: {others:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn signal(node: &NatsServer, name: &str) {
    let pid = node.pid().expect("it runs");
    let status = std::process::Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(status.expect("kill is there").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_die_and_are_stopped_hide_nothing() {
    let mut cluster = NatsCluster::start_temp().await.expect("three servers start");
    let bus = connect(&cluster.url()).await;
    let mut at_each = Vec::new();
    for node in &cluster.nodes {
        at_each.push(connect(&node.url()).await);
    }
    ask(&bus, &format!("STREAM.CREATE.{STREAM}"), &inbox_stream(3)).await;
    let (acknowledged, end) = (Acknowledged::default(), Arc::new(AtomicBool::new(false)));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let bus = connect(&cluster.url()).await;
        let subject = format!("inbox.00.user-{writer}.first");
        writers.push(tokio::spawn(write(
            bus,
            subject,
            acknowledged.clone(),
            end.clone(),
        )));
    }
    for round in ["killed", "stopped"] {
        until_whole(&bus).await;
        look(&bus, &acknowledged, round).await;
        let led = leader(&bus).await.expect("one leads");
        let (there, elsewhere) = (&at_each[led], &at_each[(led + 1) % 3]);
        let node = &mut cluster.nodes[led];
        let unanswered = if round == "killed" {
            node.kill().await;
            let unanswered = look(elsewhere, &acknowledged, round).await;
            node.start().await.expect("it starts again");
            unanswered
        } else {
            signal(node, "STOP");
            let began = Instant::now();
            while leader(elsewhere).await.is_none_or(|now| now == led) {
                assert!(began.elapsed() < PATIENCE, "nobody else is elected");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            look(elsewhere, &acknowledged, round).await;
            signal(node, "CONT");
            look(there, &acknowledged, round).await
        };
        println!(
            "nats-{} was {round}, {unanswered} questions went unanswered",
            led + 1
        );
    }
    end.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("it ends when it is told to");
    }
}

/// One server with a stream, and what publishes to it.
async fn single(config: Value) -> (NatsServer, Bus) {
    let server = NatsServer::start_temp().await.expect("a server starts");
    let bus = connect(&server.url()).await;
    ask(&bus, &format!("STREAM.CREATE.{STREAM}"), &config).await;
    (server, bus)
}

async fn store(bus: &Bus, subject: &str) -> u64 {
    let stored = bus.publish(
        subject.to_owned(),
        HeaderMap::new(),
        Bytes::from_static(b"x"),
        TIMEOUT,
    );
    stored.await.expect("it is stored").sequence
}

/// The last sequences of these subjects.
async fn ends(bus: &Bus, subjects: &[&str]) -> Vec<Option<u64>> {
    let named: Vec<String> = subjects.iter().map(ToString::to_string).collect();
    let found = bus.last_by_subjects_now(STREAM, &named, TIMEOUT).await;
    let found: BTreeMap<String, u64> = found
        .expect("the stream answers")
        .into_iter()
        .map(|message| (message.subject, message.sequence))
        .collect();
    subjects
        .iter()
        .map(|subject| found.get(*subject).copied())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_last_hides_nothing() {
    const ALICE: &str = "inbox.00.alice.first";
    const BOB: &str = "inbox.00.bob.first";
    let (_server, bus) = single(inbox_stream(1)).await;
    assert_eq!(ends(&bus, &[ALICE, BOB]).await, [None, None]);
    let waits = store(&bus, ALICE).await;
    let confirmed = store(&bus, BOB).await;
    bus.delete_message(STREAM, confirmed, TIMEOUT)
        .await
        .expect("it is deleted");
    assert_eq!(ends(&bus, &[BOB]).await, [None]);
    assert_eq!(ends(&bus, &[ALICE]).await, [Some(waits)]);
    assert!(last_sequence(&bus).await >= confirmed);
    bus.delete_message(STREAM, waits, TIMEOUT)
        .await
        .expect("it is deleted");
    assert_eq!(ends(&bus, &[ALICE, BOB]).await, [None, None]);
    assert!(last_sequence(&bus).await >= confirmed);
    // Nothing of ours stays.
    let began = Instant::now();
    loop {
        let info = ask(&bus, &format!("STREAM.INFO.{STREAM}"), &json!({})).await;
        if info["state"]["messages"] == json!(0) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{info}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn last_sequence(bus: &Bus) -> u64 {
    let last = bus.last_sequence(STREAM, TIMEOUT).await;
    last.expect("the stream answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_is_asked_like_any() {
    const ALICE: &str = "inbox.00.alice.first";
    let mut config = inbox_stream(1);
    config["max_bytes"] = json!(200);
    config["discard"] = json!("new");
    let (_server, bus) = single(config).await;
    let mut last = None;
    while let Ok(accepted) = bus
        .publish(
            ALICE.to_owned(),
            HeaderMap::new(),
            Bytes::from_static(b"x"),
            TIMEOUT,
        )
        .await
    {
        last = Some(accepted.sequence);
    }
    assert!(last.is_some(), "one fits");
    assert_eq!(ends(&bus, &[ALICE]).await, [last]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_come_up_to_a_barrier_has_seen_all_before() {
    let server = NatsServer::start_temp().await.expect("a server starts");
    let bus = connect(&server.url()).await;
    let bucket = json!({
        "name": "KV_SESSIONS",
        "subjects": ["$KV.SESSIONS.>"],
        "storage": "file",
        "max_msgs_per_subject": 1,
        "allow_direct": true,
        "deny_delete": true,
    });
    ask(&bus, "STREAM.CREATE.KV_SESSIONS", &bucket).await;
    let key = store(&bus, "$KV.SESSIONS.key").await;
    let barrier = bus.barrier("KV_SESSIONS", TIMEOUT).await.expect("it is stored");
    assert!(barrier > key);
    let last = bus
        .last_by_subject_now("KV_SESSIONS", "$KV.SESSIONS.key", TIMEOUT)
        .await;
    assert_eq!(
        last.expect("it answers").map(|message| message.sequence),
        Some(key)
    );
    let info = ask(&bus, "STREAM.INFO.KV_SESSIONS", &json!({})).await;
    assert_eq!(info["state"]["messages"], json!(2), "one barrier stays");
}
