//! Deleting finished events from CHATS. It is what an ack would be elsewhere: what is stored is not finished (adr/0019).

use std::time::Duration;

use tidings_nats::{ApiError, Bus, CHATS};
use tokio::sync::Semaphore;

use crate::rounds::Rounds;

/// For one deletion: an election of the stream takes about as long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// So many at once, as many as a gateway has on their way for confirmations: the server queues 10,000 requests of all
/// clients, and drops all of them when there are more.
const DELETIONS_MAX: usize = 256;
/// Events may lie there a little longer: nobody waits for it but who writes to a chat that holds 500 (`CHATS`), and who
/// takes over a partition. At 200 messages a second it takes nats-server and the worker about a tenth less CPU not to be
/// woken for each (docs/PERFORMANCE.md).
const ROUND: Duration = Duration::from_millis(100);
/// As soon as so many are finished, they are deleted: an eighth of what one chat may hold.
const ROUND_EVENTS: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Deletions {
    bus: Bus,
    permits: Semaphore,
    rounds: Rounds,
}

impl Deletions {
    pub(crate) fn new(bus: Bus) -> Self {
        Self {
            bus,
            permits: Semaphore::new(DELETIONS_MAX),
            rounds: Rounds::new(ROUND, ROUND_EVENTS),
        }
    }

    /// Deletes an event together with others that are finished at about that time, once there is room for the request. One
    /// that is gone already is deleted.
    pub(crate) async fn delete(&self, sequence: u64) -> Result<(), ApiError> {
        self.rounds.next().await;
        let _permit = self.permits.acquire().await.expect("it is never closed");
        let result = self.bus.delete_message(CHATS, sequence, TIMEOUT).await;
        if result.is_err() {
            metrics::counter!("tidings_fanout_deletion_failures_total").increment(1);
        }
        result
    }
}
