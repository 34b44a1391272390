//! What these tests do beside what a device does.

use std::time::Duration;

use async_nats::jetstream;
use serde_json::{Value, json};
use tidings_nats::{Bus, Inbox, Lost, Topology, durable_config, inbox_stream, inbox_subject, lost_subject};
use tidings_protocol::{InboxTrimmed, ServerFrame, UserId};
use tidings_tests::{Device, Identity, System};

/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Somebody whose inbox is in this shard, so that its stream can be changed without changing other tests'.
pub(crate) fn in_shard(name: &str, shard: u16) -> Identity {
    std::iter::repeat_with(|| Identity::fresh(name))
        .find(|identity| Topology::default().shard(&identity.user_id).0 == shard)
        .expect("one in 64 is")
}

/// Somebody whose inbox is in none of the first shards, which [`in_shard`] is for.
pub(crate) fn elsewhere(name: &str) -> Identity {
    std::iter::repeat_with(|| Identity::fresh(name))
        .find(|identity| Topology::default().shard(&identity.user_id).0 >= 16)
        .expect("three in four are")
}

/// Lets the inboxes of a user's shard hold so many entries.
pub(crate) async fn bound_inboxes(system: &System, user_id: &UserId, entries_max: i64) {
    let jetstream = jetstream::new(system.nats().await);
    let name = inbox_stream(Topology::default().shard(user_id));
    let mut stream = jetstream.get_stream(name).await.expect("the stream is there");
    let mut config = stream.info().await.expect("the stream answers").config.clone();
    config.max_messages_per_subject = entries_max;
    jetstream
        .update_stream(config)
        .await
        .expect("the bound may change");
}

/// The marks of an inbox.
pub(crate) async fn marks(system: &System, user_id: &UserId, inbox: Inbox) -> Vec<Lost> {
    let topology = Topology::default();
    let subject = lost_subject(&inbox_subject(&topology, user_id, inbox));
    let bus = Bus::new(system.nats().await);
    let stream = inbox_stream(topology.shard(user_id));
    let marks = bus.leader_all(&stream, &subject, 1, 100, TIMEOUT).await;
    let marks = marks.expect("the stream answers");
    marks
        .iter()
        .map(|mark| Lost::decode(&mark.payload).expect("it is a mark"))
        .collect()
}

/// The next `inboxTrimmed`.
pub(crate) async fn trimmed(device: &mut Device) -> InboxTrimmed {
    device
        .expect("inboxTrimmed", |heard| match heard {
            ServerFrame::InboxTrimmed(trimmed) => Some(trimmed.clone()),
            _ => None,
        })
        .await
}

/// The subjects that a client's durable reads.
pub(crate) async fn durable_subjects(system: &System, of: &Identity) -> Vec<String> {
    let jetstream = jetstream::new(system.nats().await);
    let stream = inbox_stream(Topology::default().shard(&of.user_id));
    let info: Value = jetstream
        .request(format!("CONSUMER.INFO.{stream}.{}", of.client_id), &json!({}))
        .await
        .expect("JetStream answers");
    serde_json::from_value(info["config"]["filter_subjects"].clone()).unwrap_or_default()
}

/// Makes a client's durable as the first version did: it reads the client's own subject alone.
pub(crate) async fn narrow_durable(system: &System, of: &Identity) {
    let topology = Topology::default();
    let mut config = durable_config(&topology, &of.user_id, of.client_id, false);
    config["filter_subjects"] = json!([]);
    config["filter_subject"] = json!(inbox_subject(&topology, &of.user_id, Inbox::Client(of.client_id)));
    let bus = Bus::new(system.nats().await);
    let shard = topology.shard(&of.user_id);
    let made = bus.create_durable(shard, &config, TIMEOUT).await;
    made.expect("the durable may change");
}

/// The durables of a user's shard.
pub(crate) async fn durables(system: &System, user_id: &UserId) -> Vec<String> {
    let jetstream = jetstream::new(system.nats().await);
    let stream = inbox_stream(Topology::default().shard(user_id));
    let names: Value = jetstream
        .request(format!("CONSUMER.NAMES.{stream}"), &json!({}))
        .await
        .expect("JetStream answers");
    serde_json::from_value(names["consumers"].clone()).unwrap_or_default()
}
