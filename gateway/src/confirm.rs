//! Deleting what clients have confirmed: in the background, a bounded number at a time, until it is done.
//! Deleting *is* the ack: it frees the durable's pending entry and moves its floor.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tidings_nats::{Bus, Shard, inbox_stream};
use tokio::sync::mpsc;

/// Deletions under way. More would wait in JetStream's queue of API requests, which is emptied at 10,000.
const IN_FLIGHT_MAX: usize = 256;
/// Confirmations that wait; then connections wait with them. As many as 256 full windows.
const WAITING_MAX: usize = 65_536;
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Before a failed deletion is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Takes confirmations.
#[derive(Clone, Debug)]
pub(crate) struct Confirmer {
    confirmed: mpsc::Sender<(Shard, u64)>,
}

impl Confirmer {
    /// With the task that does the work; it ends when every sender is gone and everything is deleted.
    pub(crate) fn new(bus: Bus) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (confirmed, waiting) = mpsc::channel(WAITING_MAX);
        (Self { confirmed }, delete(bus, waiting))
    }

    /// Hands an entry over to be deleted. Waits only if tens of thousands wait already.
    pub(crate) async fn confirm(&self, shard: Shard, sequence: u64) {
        // The task outlives every sender, so this cannot fail.
        let _ = self.confirmed.send((shard, sequence)).await;
    }
}

async fn delete(bus: Bus, mut waiting: mpsc::Receiver<(Shard, u64)>) {
    let bus = Arc::new(bus);
    let mut in_flight = FuturesUnordered::new();
    let mut open = true;
    while open || !in_flight.is_empty() {
        tokio::select! {
            confirmed = waiting.recv(), if open && in_flight.len() < IN_FLIGHT_MAX => match confirmed {
                Some((shard, sequence)) => in_flight.push(delete_one(bus.clone(), shard, sequence)),
                None => open = false,
            },
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
        }
    }
}

async fn delete_one(bus: Arc<Bus>, shard: Shard, sequence: u64) {
    let stream = inbox_stream(shard);
    let mut failures = 0_u32;
    while let Err(error) = bus.delete_message(&stream, sequence, TIMEOUT).await {
        failures += 1;
        metrics::counter!("tidings_confirm_retries_total").increment(1);
        if failures == 1 {
            tracing::debug!(%stream, stream.sequence = sequence, %error, "an entry could not be deleted; retrying");
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
    metrics::counter!("tidings_confirmed_total").increment(1);
}
