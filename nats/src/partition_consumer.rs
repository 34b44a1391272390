//! The durable that reads a partition of CHATS.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::{ApiError, Bus, CHATS, Partition, fanout_consumer};

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

impl Bus {
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
