//! Ids that a stream remembers can be asked for without leaving anything behind.

mod support;

use bytes::Bytes;
use serde_json::json;
use tidings_nats::Bus;
use tidings_stack::{NatsCluster, NatsServer};

use support::{TIMEOUT, ask, connect};

const STREAM: &str = "CHATS";
const SUBJECT: &str = "chat.00.a";

async fn with_stream(bus: &Bus, replicas: usize) {
    let config = json!({
        "name": STREAM,
        "subjects": ["chat.*.*"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "discard_new_per_subject": true,
        "max_msgs_per_subject": 500,
        "num_replicas": replicas,
        "duplicate_window": 600_000_000_000_u64,
    });
    ask(bus, &format!("STREAM.CREATE.{STREAM}"), &config).await;
}

async fn publish(bus: &Bus, id: &str) -> tidings_nats::Accepted {
    let payload = Bytes::from_static(b"said");
    let published = bus
        .publish_with_id(SUBJECT.to_owned(), id, payload, TIMEOUT)
        .await;
    published.expect("the stream takes it")
}

async fn remembered(bus: &Bus, id: &str) -> Option<u64> {
    let remembered = bus.remembered(SUBJECT, id, TIMEOUT).await;
    remembered.expect("the stream answers")
}

async fn asks_leave_nothing_behind(bus: &Bus) {
    assert_eq!(remembered(bus, "one").await, None);
    let first = publish(bus, "one").await;
    assert!(!first.duplicate, "asking has not taken the id");
    assert_eq!(remembered(bus, "one").await, Some(first.sequence));
    bus.delete_message(STREAM, first.sequence, TIMEOUT)
        .await
        .expect("it is deleted");
    assert_eq!(
        remembered(bus, "one").await,
        Some(first.sequence),
        "it has left the stream"
    );

    let before = bus.stream_bounds(STREAM, TIMEOUT).await.expect("bounds");
    for id in 0..100 {
        assert_eq!(remembered(bus, &format!("other {id}")).await, None);
    }
    let after = bus.stream_bounds(STREAM, TIMEOUT).await.expect("bounds");
    assert_eq!(
        (after.messages, after.last_sequence),
        (before.messages, before.last_sequence)
    );
    let next = publish(bus, "other 7").await;
    assert_eq!((next.duplicate, next.sequence), (false, before.last_sequence + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server() {
    let server = NatsServer::start_temp().await.expect("it starts");
    let bus = connect(&server.url()).await;
    with_stream(&bus, 1).await;
    asks_leave_nothing_behind(&bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers() {
    let cluster = NatsCluster::start_temp().await.expect("three servers start");
    let bus = connect(&cluster.url()).await;
    with_stream(&bus, 3).await;
    asks_leave_nothing_behind(&bus).await;
}
