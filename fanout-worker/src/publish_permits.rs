//! How many entries may be on their way to NATS, so that a shard that does not answer takes no other's place.

use tidings_nats::{Accepted, PublishError, Shard, Topology};
use tidings_service::{ShardPermit, ShardPermits};

/// To a shard that has not answered. With all 64 in trouble they hold at most a quarter of the permits.
const SILENT_MAX: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct PublishPermits(ShardPermits);

/// For one publish.
#[derive(Debug)]
pub(crate) struct PublishPermit<'a>(ShardPermit<'a>);

impl PublishPermits {
    /// So many at once over all shards.
    pub(crate) fn new(all: u32, topology: Topology) -> Self {
        Self(ShardPermits::new(all as usize, SILENT_MAX, topology))
    }

    /// Waits for a permit to publish to a shard.
    pub(crate) async fn acquire(&self, shard: Shard) -> PublishPermit<'_> {
        PublishPermit(self.0.acquire(shard).await)
    }
}

impl PublishPermit<'_> {
    /// How the publish ended. A refusal is an answer.
    pub(crate) fn done(self, result: &Result<Accepted, PublishError>) {
        self.0.done(!matches!(result, Err(PublishError::Unknown(_))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use tidings_nats::ApiError;

    /// How many permits a shard gets at once after a publish that ended like this.
    fn permits_after(result: &Result<Accepted, PublishError>) -> usize {
        let topology = Topology {
            partitions: 1,
            shards: 2,
        };
        let permits = PublishPermits::new(16, topology);
        let permit = permits.acquire(Shard(0)).now_or_never();
        permit.expect("all are free").done(result);
        let held: Vec<_> = std::iter::from_fn(|| permits.acquire(Shard(0)).now_or_never()).collect();
        held.len()
    }

    #[test]
    fn whoever_refuses_has_answered() {
        let failed = Err(PublishError::Unknown(ApiError::Timeout));
        assert_eq!(permits_after(&failed), SILENT_MAX);
        let stored = Ok(Accepted {
            sequence: 1,
            duplicate: false,
        });
        assert_eq!(permits_after(&stored), 16);
        assert_eq!(permits_after(&Err(PublishError::SubjectFull)), 16);
    }
}
