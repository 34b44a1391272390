//! Deleting what clients have confirmed: in the background, a bounded number at a time, until it is done.
//! Deleting *is* the ack: it frees the durable's pending entry and moves its floor.
//!
//! Each shard has a lane of its own: one whose stream does not answer tries one deletion at a time, and keeps only
//! its own connections waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tidings_nats::{Bus, Shard, Topology, inbox_stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::metrics::CONFIRMED;

/// Deletions under way. More would wait in JetStream's queue of API requests, which is emptied at 10,000.
const IN_FLIGHT_MAX: usize = 256;
/// Of those, a shard's: one that falls silent holds no more than these for as long as the first of them takes.
const IN_FLIGHT_OF_SHARD_MAX: usize = 64;
/// Confirmations of a shard that wait; then its connections wait with them. As many as 16 full windows.
const WAITING_MAX: usize = 4_096;
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Before a shard that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Takes confirmations. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Confirmer {
    /// By shard.
    lanes: Arc<[mpsc::Sender<u64>]>,
}

impl Confirmer {
    /// With the task that does the work; it ends when every sender is gone and everything is deleted.
    pub(crate) fn new(bus: &Bus, topology: Topology) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let requests = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let (lanes, work): (Vec<_>, Vec<_>) = topology
            .shards()
            .map(|shard| {
                let (confirmed, waiting) = mpsc::channel(WAITING_MAX);
                let lane = Lane {
                    bus: bus.clone(),
                    stream: inbox_stream(shard).into(),
                    requests: requests.clone(),
                };
                (confirmed, lane.delete(waiting))
            })
            .unzip();
        let work = async {
            futures::future::join_all(work).await;
        };
        (Self { lanes: lanes.into() }, work)
    }

    /// Hands an entry over to be deleted. Waits only if thousands of its shard wait already.
    pub(crate) async fn confirm(&self, shard: Shard, sequence: u64) {
        // The task outlives every sender, so this cannot fail.
        let _ = self.lanes[usize::from(shard.0)].send(sequence).await;
    }
}

/// What deletes the entries of one shard.
#[derive(Clone, Debug)]
struct Lane {
    bus: Bus,
    stream: Arc<str>,
    /// Of all shards.
    requests: Arc<Semaphore>,
}

impl Lane {
    async fn delete(self, mut waiting: mpsc::Receiver<u64>) {
        let mut in_flight = FuturesUnordered::new();
        // What failed. No more than were in flight at once.
        let mut again = VecDeque::new();
        let (mut open, mut failing) = (true, false);
        while open || !in_flight.is_empty() {
            let room = if failing { 1 } else { IN_FLIGHT_OF_SHARD_MAX };
            while in_flight.len() < room
                && let Some(sequence) = again.pop_front()
            {
                in_flight.push(self.clone().delete_one(sequence, failing));
            }
            tokio::select! {
                confirmed = waiting.recv(), if open && in_flight.len() < room => match confirmed {
                    Some(sequence) => in_flight.push(self.clone().delete_one(sequence, failing)),
                    None => open = false,
                },
                Some((sequence, deleted)) = in_flight.next(), if !in_flight.is_empty() => {
                    if !deleted {
                        again.push_back(sequence);
                    }
                    failing = !deleted;
                }
            }
        }
    }

    /// Says whether it is deleted.
    async fn delete_one(self, sequence: u64, after_failure: bool) -> (u64, bool) {
        if after_failure {
            tokio::time::sleep(RETRY_DELAY).await;
        }
        let _permit = self
            .requests
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let began = Instant::now();
        let deleted = self.bus.delete_message(&self.stream, sequence, TIMEOUT).await;
        match &deleted {
            Ok(()) => {
                CONFIRMED.increment(1);
                metrics::histogram!("tidings_confirm_delete_seconds").record(began.elapsed());
                tracing::trace!(
                    stream = &*self.stream,
                    stream.sequence = sequence,
                    "an entry is deleted"
                );
            }
            Err(error) => {
                metrics::counter!("tidings_confirm_retries_total").increment(1);
                let stream = &*self.stream;
                tracing::debug!(stream, stream.sequence = sequence, %error, "an entry could not be deleted; retrying");
            }
        }
        (sequence, deleted.is_ok())
    }
}
