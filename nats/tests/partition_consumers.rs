//! The consumers of CHATS have their state in memory: they come and go, and events do not (adr/0024).

mod support;

use bytes::Bytes;
use serde_json::{Value, json};
use tidings_nats::setup::{self, SetupOptions};
use tidings_nats::{ApiError, Bus, Partition, Topology, partition_consumer_config};
use tidings_stack::NatsServer;

use support::{TIMEOUT, ask, connect};

const PARTITION: Partition = Partition(0);

fn options() -> SetupOptions {
    SetupOptions {
        topology: Topology {
            partitions: 2,
            shards: 1,
        },
        ..SetupOptions::default()
    }
}

async fn apply(bus: &Bus, dry_run: bool) -> Vec<String> {
    let changes = setup::apply(bus, &options(), dry_run).await;
    let changes = changes.expect("the server answers");
    changes.iter().map(ToString::to_string).collect()
}

async fn config(bus: &Bus) -> Value {
    let mut info = ask(bus, "CONSUMER.INFO.CHATS.fanout-00", &json!({})).await;
    info["config"].take()
}

/// It is, afterwards.
async fn was_there(bus: &Bus) -> Result<bool, ApiError> {
    let consumer = bus.ensure_partition_consumer(PARTITION, TIMEOUT).await;
    consumer.map(|consumer| consumer.is_some())
}

/// As an earlier version of setup made it, with something that an operator has added.
async fn make_on_file(bus: &Bus) {
    ask(bus, "CONSUMER.DELETE.CHATS.fanout-00", &json!({})).await;
    let mut config = partition_consumer_config(PARTITION);
    config["mem_storage"] = json!(false);
    config["metadata"]["team"] = json!("x");
    let body = json!({ "stream_name": "CHATS", "config": config });
    ask(bus, "CONSUMER.CREATE.CHATS.fanout-00.chat.00.*", &body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_makes_one_anew_that_was_on_file() {
    let server = NatsServer::start_temp().await.expect("nats-server starts");
    let bus = connect(&server.url()).await;
    apply(&bus, false).await;
    make_on_file(&bus).await;
    let published = bus.publish_with_id("chat.00.a".to_owned(), "1", Bytes::from_static(b"said"), TIMEOUT);
    published.await.expect("it is accepted");

    let wanted = ["consumer CHATS/fanout-00: make anew mem_storage (null -> true)"];
    assert_eq!(apply(&bus, true).await, wanted);
    assert_eq!(
        config(&bus).await["mem_storage"],
        Value::Null,
        "a dry run changes nothing"
    );
    assert_eq!(apply(&bus, false).await, wanted);
    let made = config(&bus).await;
    assert_eq!(made["mem_storage"], json!(true));
    assert_eq!(made["metadata"]["team"], json!("x"), "an operator has set it");
    let consumer = bus.partition_consumer(PARTITION, TIMEOUT).await;
    assert_eq!(consumer.expect("it is there").unprocessed, 1);
    assert!(apply(&bus, false).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_server_has_forgotten_is_made_and_delivers_what_is_stored() {
    let mut server = NatsServer::start_temp().await.expect("nats-server starts");
    let bus = connect(&server.url()).await;
    apply(&bus, false).await;
    let published = bus.publish_with_id("chat.00.a".to_owned(), "1", Bytes::from_static(b"said"), TIMEOUT);
    published.await.expect("it is accepted");
    assert_eq!(was_there(&bus).await, Ok(true));

    server.kill().await;
    server.start().await.expect("nats-server starts again");
    // It answers again.
    ask(&bus, "STREAM.INFO.CHATS", &json!({})).await;
    let forgotten = bus.partition_consumer(PARTITION, TIMEOUT).await;
    assert!(forgotten.is_err_and(|error| error.not_found()));
    assert_eq!(was_there(&bus).await, Ok(false));
    let made = bus.partition_consumer(PARTITION, TIMEOUT).await;
    assert_eq!(made.expect("it is there").unprocessed, 1);
    assert_eq!(apply(&bus, true).await, ["consumer CHATS/fanout-01: create"]);
}
