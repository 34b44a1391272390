//! Readings of inboxes under way in this process: a bounded number, so that a storm of reconnects, or a doubt about
//! thousands of sessions, is worked off in an orderly way. A shard whose last reading got no answer is read by one
//! session at a time, and leaves the other places to the others.

use tidings_nats::{ApiError, Shard, Topology};
use tidings_service::{ShardPermit, ShardPermits};

/// Readings at once; one takes a few milliseconds.
const READINGS_MAX: usize = 32;
/// Of a shard whose last reading got no answer.
const SILENT_MAX: usize = 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct Readings(ShardPermits);

/// The right to read, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a>(ShardPermit<'a>);

impl Readings {
    pub(crate) fn new(topology: Topology) -> Self {
        Self(ShardPermits::new(READINGS_MAX, SILENT_MAX, topology))
    }

    /// Waits for a place.
    pub(crate) async fn begin(&self, shard: Shard) -> Place<'_> {
        Place(self.0.acquire(shard).await)
    }
}

impl Place<'_> {
    /// What came of it, and somebody else's turn.
    pub(crate) fn end<T>(self, result: &Result<T, ApiError>) {
        let silent = matches!(
            result,
            Err(ApiError::Timeout
                | ApiError::Forbidden(_)
                | ApiError::NoResponders(_)
                | ApiError::Disconnected)
        );
        self.0.done(!silent);
    }
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
