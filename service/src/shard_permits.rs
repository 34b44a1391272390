//! How much may be under way at JetStream, so that a shard that does not answer takes no other's place.
//!
//! What is asked of a stream without a leader waits for its whole time limit. Thousands of such requests, tried again and
//! again, would hold all permits all the time. So a shard that has not answered gets few until it answers again.

use std::sync::atomic::{AtomicBool, Ordering};

use tidings_nats::{Shard, Topology};
use tokio::sync::{Semaphore, SemaphorePermit};

/// See the module.
#[derive(Debug)]
pub struct ShardPermits {
    all: Semaphore,
    shards: Vec<Few>,
}

/// Of one shard.
#[derive(Debug)]
struct Few {
    silent: AtomicBool,
    few: Semaphore,
}

/// For one request; given back when it is dropped.
#[derive(Debug)]
pub struct ShardPermit<'a> {
    shard: &'a Few,
    _few: Option<SemaphorePermit<'a>>,
    _all: SemaphorePermit<'a>,
}

impl ShardPermits {
    /// `all` at once over all shards, `silent_max` of them to a shard that has not answered.
    pub fn new(all: usize, silent_max: usize, topology: Topology) -> Self {
        let shards = topology.shards().map(|_| Few {
            silent: AtomicBool::new(false),
            few: Semaphore::new(silent_max),
        });
        Self {
            all: Semaphore::new(all),
            shards: shards.collect(),
        }
    }

    /// Waits for a permit to ask something of a shard.
    pub async fn acquire(&self, shard: Shard) -> ShardPermit<'_> {
        let shard = &self.shards[usize::from(shard.0)];
        loop {
            let silent = shard.silent.load(Ordering::Relaxed);
            let few = if silent {
                Some(acquire(&shard.few).await)
            } else {
                None
            };
            if silent && !shard.silent.load(Ordering::Relaxed) {
                // It answers again: no reason to queue here.
                continue;
            }
            let all = acquire(&self.all).await;
            if !silent && shard.silent.load(Ordering::Relaxed) {
                continue;
            }
            return ShardPermit {
                shard,
                _few: few,
                _all: all,
            };
        }
    }
}

impl ShardPermit<'_> {
    /// Whether the shard has answered. Dropped without this, the permit says nothing about the shard.
    pub fn done(self, answered: bool) {
        self.shard.silent.store(!answered, Ordering::Relaxed);
    }
}

async fn acquire(semaphore: &Semaphore) -> SemaphorePermit<'_> {
    semaphore.acquire().await.expect("it is never closed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const SILENT_MAX: usize = 4;

    #[tokio::test]
    async fn a_silent_shard_gets_few_permits_and_others_all() {
        let topology = Topology {
            partitions: 1,
            shards: 2,
        };
        let permits = ShardPermits::new(16, SILENT_MAX, topology);
        permits.acquire(Shard(0)).await.done(false);
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
        held.pop().expect("it was just pushed").done(true);
        for _ in held.len()..16 {
            held.push(permits.acquire(Shard(0)).await);
        }
    }
}
