//! Which events a connection has shown of late.
//!
//! An event that a worker left half done is worked on again by another one. Its entries have ids, so those that are
//! stored are not stored twice; but a NATS server that was started again has forgotten the ids of what was confirmed
//! meanwhile (nats-server 2.15.1), and takes such an entry for a new one.

use std::collections::VecDeque;

/// How many are remembered; 1 KiB a connection at most. Between the two tries of an event pass some seconds, in which a
/// client gets a few others. Beyond, its reader knows it (PROTOCOL §4).
const SHOWN_MAX: usize = 128;

/// See the module.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(super) struct Shown(VecDeque<u64>);

impl Shown {
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn contains(&self, event: u64) -> bool {
        self.0.contains(&event)
    }

    pub(super) fn insert(&mut self, event: u64) {
        if self.0.len() == SHOWN_MAX {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut shown = Shown::new();
        for event in 0..=SHOWN_MAX as u64 {
            assert!(!shown.contains(event));
            shown.insert(event);
            assert!(shown.contains(event));
        }
        assert!(!shown.contains(0));
        assert!(shown.contains(1));
    }
}
