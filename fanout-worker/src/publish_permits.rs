//! How many entries may be on their way to NATS, so that a shard that does not answer takes no other's place.
//!
//! A publish to a shard without a leader waits for its whole time limit. Thousands of them, tried again and again, would hold
//! all permits all the time. So a shard that has not answered gets few until it answers again.

use std::sync::atomic::{AtomicBool, Ordering};

use tidings_nats::{Accepted, PublishError, Shard, Topology};
use tokio::sync::{Semaphore, SemaphorePermit};

/// To a shard that has not answered. With all 64 in trouble they hold at most a quarter of the permits.
const SILENT_MAX: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct PublishPermits {
    all: Semaphore,
    shards: Vec<ShardPermits>,
}

#[derive(Debug)]
struct ShardPermits {
    silent: AtomicBool,
    few: Semaphore,
}

/// For one publish.
#[derive(Debug)]
pub(crate) struct PublishPermit<'a> {
    shard: &'a ShardPermits,
    _few: Option<SemaphorePermit<'a>>,
    _all: SemaphorePermit<'a>,
}

impl PublishPermits {
    /// So many at once over all shards.
    pub(crate) fn new(all: u32, topology: Topology) -> Self {
        let shards = topology.shards().map(|_| ShardPermits {
            silent: AtomicBool::new(false),
            few: Semaphore::new(SILENT_MAX),
        });
        Self {
            all: Semaphore::new(all as usize),
            shards: shards.collect(),
        }
    }

    /// Waits for a permit to publish to a shard.
    pub(crate) async fn acquire(&self, shard: Shard) -> PublishPermit<'_> {
        let shard = &self.shards[usize::from(shard.0)];
        loop {
            let silent = shard.silent.load(Ordering::Relaxed);
            let few = if silent {
                Some(shard.few.acquire().await.expect("the semaphore is never closed"))
            } else {
                None
            };
            if silent && !shard.silent.load(Ordering::Relaxed) {
                // It answers again: no reason to queue here.
                continue;
            }
            let all = self.all.acquire().await.expect("the semaphore is never closed");
            if !silent && shard.silent.load(Ordering::Relaxed) {
                continue;
            }
            return PublishPermit {
                shard,
                _few: few,
                _all: all,
            };
        }
    }
}

impl PublishPermit<'_> {
    /// How the publish ended. A refusal is an answer.
    pub(crate) fn done(self, result: &Result<Accepted, PublishError>) {
        let silent = matches!(result, Err(PublishError::Unknown(_)));
        self.shard.silent.store(silent, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use tidings_nats::ApiError;

    #[tokio::test]
    async fn a_silent_shard_gets_few_permits_and_others_all() {
        let permits = PublishPermits::new(
            16,
            Topology {
                partitions: 1,
                shards: 2,
            },
        );
        let failed = Err(PublishError::Unknown(ApiError::Timeout));
        let stored = Ok(Accepted {
            sequence: 1,
            duplicate: false,
        });
        permits.acquire(Shard(0)).await.done(&failed);
        let mut held = Vec::new();
        for _ in 0..SILENT_MAX {
            held.push(permits.acquire(Shard(0)).await);
        }
        assert!(permits.acquire(Shard(0)).now_or_never().is_none());
        for _ in SILENT_MAX..16 {
            held.push(permits.acquire(Shard(1)).await);
        }
        assert!(permits.acquire(Shard(1)).now_or_never().is_none());
        held.truncate(SILENT_MAX - 1);
        held.push(permits.acquire(Shard(0)).await);
        held.pop().expect("it was just pushed").done(&stored);
        for _ in held.len()..16 {
            held.push(permits.acquire(Shard(0)).await);
        }
    }
}
