//! Which events a connection has shown of late.
//!
//! An event that a worker left half done is worked on again by another one. Its entries have ids, so those that are
//! stored are not stored twice; but a NATS server that was started again has forgotten the ids of what was confirmed
//! meanwhile (nats-server 2.15.1), and takes such an entry for a new one.

use std::collections::VecDeque;

/// How many are remembered. What was told directly may be stored while its confirmation is on its way to the worker: a
/// second and a bit, in which a client gets a thousand others at most; twice that is 16 KiB, of a client that gets so
/// many. Beyond, its reader knows it (PROTOCOL §4).
const SHOWN_MAX: usize = 2_048;

/// See the module. In order, the lowest forgotten first: events come nearly in the order of CHATS.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(super) struct Shown(VecDeque<u64>);

impl Shown {
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn contains(&self, event: u64) -> bool {
        self.0.binary_search(&event).is_ok()
    }

    pub(super) fn insert(&mut self, event: u64) {
        if let Err(place) = self.0.binary_search(&event) {
            self.0.insert(place, event);
            if self.0.len() > SHOWN_MAX {
                self.0.pop_front();
            }
        }
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
        let late = SHOWN_MAX as u64 + 10;
        for event in [late, late - 5, late] {
            shown.insert(event);
        }
        assert!(shown.contains(late) && shown.contains(late - 5) && !shown.contains(late - 1));
        assert_eq!(shown.0.len(), SHOWN_MAX);
    }
}
