//! Events that lie in CHATS while the consumer of their partition believes that there is nothing to deliver (adr/0019).

use std::time::Duration;

use tidings_nats::{ApiError, Bus, CHATS, Partition, partition_subjects};

/// For each request.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Resets the consumer of a partition when something is stored and nobody is pinned, and makes it when it is not there; says
/// what is the first that is stored. To be asked by somebody who waits for a delivery: none comes, so the consumer knows of
/// nothing. Whoever is pinned has reset it himself.
pub(crate) async fn remind(bus: &Bus, partition: Partition) -> Result<Option<u64>, ApiError> {
    let subjects = partition_subjects(partition);
    let first = bus.leader_next(CHATS, &subjects, 1, TIMEOUT).await?;
    let consumer = bus.ensure_partition_consumer(partition, TIMEOUT).await?;
    let Some(first) = first else {
        return Ok(None);
    };
    match consumer {
        Some(consumer) if consumer.pinned => return Ok(None),
        Some(_) => bus.reset_partition_consumer(partition, TIMEOUT).await?,
        None => {}
    }
    metrics::counter!("tidings_fanout_reminders_total").increment(1);
    Ok(Some(first.sequence))
}
