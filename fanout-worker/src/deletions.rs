//! Deleting finished events from CHATS. It is what an ack would be elsewhere: what is stored is not finished (adr/0019).

use std::time::Duration;

use tidings_nats::{ApiError, Bus, CHATS};
use tokio::sync::Semaphore;

/// For one deletion: an election of the stream takes about as long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// So many at once, as many as a gateway has on their way for confirmations: the server queues 10,000 requests of all
/// clients, and drops all of them when there are more.
const DELETIONS_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Deletions {
    bus: Bus,
    permits: Semaphore,
}

impl Deletions {
    pub(crate) fn new(bus: Bus) -> Self {
        Self {
            bus,
            permits: Semaphore::new(DELETIONS_MAX),
        }
    }

    /// Deletes an event, once there is room for the request. One that is gone already is deleted.
    pub(crate) async fn delete(&self, sequence: u64) -> Result<(), ApiError> {
        let _permit = self.permits.acquire().await.expect("it is never closed");
        let result = self.bus.delete_message(CHATS, sequence, TIMEOUT).await;
        if result.is_err() {
            metrics::counter!("tidings_fanout_deletion_failures_total").increment(1);
        }
        result
    }
}
