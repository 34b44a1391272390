//! Events that lie in CHATS while the consumer of their partition believes that there is nothing to deliver (adr/0019).

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tidings_nats::{ApiError, Bus, CHATS, Partition, fanout_consumer, partition_subjects};

/// For each request.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    priority_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    pinned_client_id: String,
}

/// Resets the consumer of a partition when something is stored and nobody is pinned; says what is the first of it. To be
/// asked by somebody who waits for a delivery: none comes, so the consumer knows of nothing. Whoever is pinned has reset
/// it himself.
pub(crate) async fn remind(bus: &Bus, partition: Partition) -> Result<Option<u64>, ApiError> {
    let subjects = partition_subjects(partition);
    let Some(first) = bus.leader_next(CHATS, &subjects, 1, TIMEOUT).await? else {
        return Ok(None);
    };
    let consumer = fanout_consumer(partition);
    let info: Info = bus
        .api(&format!("CONSUMER.INFO.{CHATS}.{consumer}"), &json!({}), TIMEOUT)
        .await?;
    let pinned = info
        .priority_groups
        .iter()
        .any(|group| !group.pinned_client_id.is_empty());
    if pinned {
        return Ok(None);
    }
    let subject = format!("CONSUMER.RESET.{CHATS}.{consumer}");
    bus.api::<IgnoredAny>(&subject, &json!({ "seq": 1 }), TIMEOUT)
        .await?;
    metrics::counter!("tidings_fanout_reminders_total").increment(1);
    Ok(Some(first.sequence))
}
