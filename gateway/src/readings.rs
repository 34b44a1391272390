//! Readings of inboxes under way in this process: a bounded number, so that a storm of reconnects, or a doubt about
//! thousands of sessions, is worked off in an orderly way. A shard whose last reading got no answer is read by one
//! session at a time, and leaves the other places to the others.

use std::sync::atomic::{AtomicBool, Ordering};

use tidings_nats::{ApiError, Shard, Topology};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Readings at once; one takes a few milliseconds.
const READINGS_MAX: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct Readings {
    places: Semaphore,
    shards: Vec<Turns>,
}

/// Whose turn it is in a shard that does not answer.
#[derive(Debug)]
struct Turns {
    silent: AtomicBool,
    one: Semaphore,
}

/// The right to read, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    turns: &'a Turns,
    _permit: SemaphorePermit<'a>,
    _turn: Option<SemaphorePermit<'a>>,
}

impl Readings {
    pub(crate) fn new(topology: Topology) -> Self {
        let turns = |_| Turns {
            silent: AtomicBool::new(false),
            one: Semaphore::new(1),
        };
        Self {
            places: Semaphore::new(READINGS_MAX),
            shards: topology.shards().map(turns).collect(),
        }
    }

    /// Waits for a place.
    pub(crate) async fn begin(&self, shard: Shard) -> Place<'_> {
        let turns = &self.shards[usize::from(shard.0)];
        let mut turn = None;
        loop {
            let place = acquire(&self.places).await;
            if !turns.silent.load(Ordering::Relaxed) {
                turn = None;
            } else if turn.is_none() {
                // Without the place: whoever waits here waits for long.
                drop(place);
                turn = Some(acquire(&turns.one).await);
                continue;
            }
            return Place {
                turns,
                _permit: place,
                _turn: turn,
            };
        }
    }
}

impl Place<'_> {
    /// What came of it, and somebody else's turn.
    pub(crate) fn end<T>(self, result: &Result<T, ApiError>) {
        let silent = matches!(
            result,
            Err(ApiError::Timeout | ApiError::NoResponders(_) | ApiError::Disconnected)
        );
        self.turns.silent.store(silent, Ordering::Relaxed);
    }
}

async fn acquire(semaphore: &Semaphore) -> SemaphorePermit<'_> {
    semaphore.acquire().await.expect("it is never closed")
}

#[cfg(test)]
mod tests {
    use futures::future::poll_immediate;
    use std::pin::pin;

    use super::*;

    const SILENT: Shard = Shard(1);
    const OTHER: Shard = Shard(2);

    #[tokio::test]
    async fn a_silent_shard_takes_one_place_and_leaves_the_others() {
        let readings = Readings::new(Topology::default());
        let mut storm = Vec::new();
        for _ in 0..READINGS_MAX {
            storm.push(readings.begin(SILENT).await);
        }
        let mut late = pin!(readings.begin(SILENT));
        assert!(
            poll_immediate(late.as_mut()).await.is_none(),
            "all places are taken"
        );
        storm
            .pop()
            .expect("it is full")
            .end(&Err::<(), _>(ApiError::Timeout));
        let mut later = pin!(readings.begin(SILENT));
        let late = poll_immediate(late.as_mut()).await.expect("one at a time");
        for place in storm {
            place.end(&Err::<(), _>(ApiError::Timeout));
        }
        assert!(poll_immediate(later.as_mut()).await.is_none());
        let mut others = Vec::new();
        for _ in 1..READINGS_MAX {
            others.push(readings.begin(OTHER).await);
        }
        drop(others);
        late.end(&Ok(()));
        let later = later.await;
        let latest = readings.begin(SILENT).await;
        later.end(&Ok(()));
        latest.end(&Err::<(), _>(ApiError::Malformed(
            "no trouble of the shard's".to_owned(),
        )));
        let _all = [readings.begin(SILENT).await, readings.begin(SILENT).await];
    }
}
