//! The durable that reads a partition of CHATS.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::setup::definition;
use crate::{ApiError, Bus, CHATS, Partition, fanout_consumer, partition_subjects};

/// Where the consumer of a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionConsumer {
    /// The highest sequence of CHATS that it has delivered since it was reset; 0 if none.
    pub delivered: u64,
    /// Events that it has yet to deliver.
    pub unprocessed: u64,
    /// Events that it has delivered and that are still stored.
    pub outstanding: u64,
    /// Pulls that wait for an event.
    pub waiting: u64,
    /// Whether a worker is pinned.
    pub pinned: bool,
}

#[derive(Deserialize)]
struct Info {
    delivered: Delivered,
    num_pending: u64,
    num_ack_pending: u64,
    num_waiting: u64,
    #[serde(default)]
    priority_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Delivered {
    stream_seq: u64,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    pinned_client_id: String,
}

/// The consumer of a partition as it is to be, for `$JS.API.CONSUMER.CREATE`. Its state is in memory: which events are
/// delivered is of no use to a worker that takes over, and nothing else is in it (adr/0024).
pub fn partition_consumer_config(partition: Partition) -> Value {
    let mut config = definition(include_str!("../definitions/fanout.json"));
    let description = config["description"].as_str().expect("a description");
    config["description"] = json!(description.replace("Partition 00", &format!("Partition {partition}")));
    config["name"] = json!(fanout_consumer(partition));
    config["durable_name"] = json!(fanout_consumer(partition));
    config["filter_subject"] = json!(partition_subjects(partition));
    config
}

impl Bus {
    /// Makes it where it is not there: a single server that was started again has forgotten it. Says how it
    /// was, or nothing if it was made.
    pub async fn ensure_partition_consumer(
        &self,
        partition: Partition,
        timeout: Duration,
    ) -> Result<Option<PartitionConsumer>, ApiError> {
        match self.partition_consumer(partition, timeout).await {
            Err(error) if error.not_found() => {
                let config = partition_consumer_config(partition);
                self.create_partition_consumer(&config, timeout).await?;
                Ok(None)
            }
            there => there.map(Some),
        }
    }

    /// Where it is there already and the same, nothing happens.
    pub(crate) async fn create_partition_consumer(
        &self,
        config: &Value,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        let text = |key: &str| config[key].as_str().expect("the definition has it");
        let subject = format!(
            "CONSUMER.CREATE.{CHATS}.{}.{}",
            text("name"),
            text("filter_subject")
        );
        let body = json!({ "stream_name": CHATS, "config": config });
        self.api::<IgnoredAny>(&subject, &body, timeout).await.map(drop)
    }

    /// Asks its leader.
    pub async fn partition_consumer(
        &self,
        partition: Partition,
        timeout: Duration,
    ) -> Result<PartitionConsumer, ApiError> {
        let subject = format!("CONSUMER.INFO.{CHATS}.{}", fanout_consumer(partition));
        let info: Info = self.api(&subject, &json!({}), timeout).await?;
        Ok(PartitionConsumer {
            delivered: info.delivered.stream_seq,
            unprocessed: info.num_pending,
            outstanding: info.num_ack_pending,
            waiting: info.num_waiting,
            pinned: info
                .priority_groups
                .iter()
                .any(|group| !group.pinned_client_id.is_empty()),
        })
    }

    /// Has it deliver again whatever is stored, in order, with consumer sequences 1, 2, 3, …; a pin is kept. To the
    /// beginning of the stream, not to its own floor, which may have passed what is not done (adr/0019).
    pub async fn reset_partition_consumer(
        &self,
        partition: Partition,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        let subject = format!("CONSUMER.RESET.{CHATS}.{}", fanout_consumer(partition));
        self.api::<IgnoredAny>(&subject, &json!({ "seq": 1 }), timeout)
            .await
            .map(drop)
    }
}
