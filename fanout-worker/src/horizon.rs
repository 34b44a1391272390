//! How far the worker's caches are in INVALIDATIONS, as gateways may believe it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidings_service::Applied;
use tokio::sync::watch;

/// What was applied, less what work in hand has not seen. A client that inherits `first` reads it a last time once
/// every worker is beyond its registration: whoever looked before that must have written by then.
#[derive(Debug)]
pub(crate) struct Horizon {
    applied: watch::Receiver<Applied>,
    looks: Mutex<BTreeMap<u64, usize>>,
}

/// Work that began at some point of INVALIDATIONS; the horizon stays there until this is dropped.
#[derive(Debug)]
pub(crate) struct Look {
    horizon: Arc<Horizon>,
    sequence: u64,
}

impl Horizon {
    pub(crate) fn new(applied: watch::Receiver<Applied>) -> Arc<Self> {
        Arc::new(Self {
            applied,
            looks: Mutex::default(),
        })
    }

    /// Holds the horizon at where the caches are now. To be called before looking.
    pub(crate) fn look(self: &Arc<Self>) -> Look {
        let mut looks = self.looks.lock();
        let sequence = self.applied.borrow().sequence;
        *looks.entry(sequence).or_default() += 1;
        Look {
            horizon: self.clone(),
            sequence,
        }
    }

    /// Up to which sequence everything that this worker writes knows of it.
    pub(crate) fn sequence(&self) -> u64 {
        let looks = self.looks.lock();
        let applied = self.applied.borrow().sequence;
        looks.keys().next().map_or(applied, |oldest| applied.min(*oldest))
    }

    /// For waiting until more is applied.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Applied> {
        self.applied.clone()
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let mut looks = self.horizon.looks.lock();
        if let Some(count) = looks.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                looks.remove(&self.sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn the_oldest_look_is_the_horizon() {
        let applied = |sequence| Applied {
            sequence,
            complete_at: Instant::now(),
        };
        let (sender, receiver) = watch::channel(applied(5));
        let horizon = Horizon::new(receiver);
        let first = horizon.look();
        sender.send_replace(applied(7));
        let (second, third) = (horizon.look(), horizon.look());
        sender.send_replace(applied(9));
        assert_eq!(horizon.sequence(), 5);
        drop(first);
        assert_eq!(horizon.sequence(), 7);
        drop(third);
        assert_eq!(horizon.sequence(), 7);
        drop(second);
        assert_eq!(horizon.sequence(), 9);
    }
}
