//! Events that lie in CHATS while the consumer of their partition believes that there is nothing to deliver (adr/0019).

use std::time::Duration;

use tidings_nats::{ApiError, Bus, CHATS, Partition, partition_subjects};

/// For each request.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Resets the consumer of a partition when something is stored and nobody is pinned, and makes it when it is not there; says
/// what is the first that is stored. To be asked by somebody who waits for a delivery: none comes, so the consumer knows of
/// nothing. Whoever is pinned has reset it himself.
pub(crate) async fn remind(bus: &Bus, partition: Partition) -> Result<Option<u64>, ApiError> {
    let made = bus.ensure_partition_consumer(partition, TIMEOUT).await?;
    let subjects = partition_subjects(partition);
    let Some(first) = bus.leader_next(CHATS, &subjects, 1, TIMEOUT).await? else {
        return Ok(None);
    };
    if !made {
        if bus.partition_consumer(partition, TIMEOUT).await?.pinned {
            return Ok(None);
        }
        bus.reset_partition_consumer(partition, TIMEOUT).await?;
    }
    metrics::counter!("tidings_fanout_reminders_total").increment(1);
    Ok(Some(first.sequence))
}
