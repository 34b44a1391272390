//! What was finished: its deletion may have been lost, and then it comes again.

use std::collections::VecDeque;

use foldhash::HashSet;

/// How many are remembered: twice the consumer's `max_ack_pending`.
const FINISHED_MAX: usize = 8_192;

/// The events that were finished last. A redelivery of one is only deleted.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Finished {
    /// Stream sequence, and when it was stored: a stream that was made anew has the sequences again.
    known: HashSet<(u64, u64)>,
    order: VecDeque<(u64, u64)>,
}

impl Finished {
    pub(super) fn insert(&mut self, sequence: u64, stored_at: u64) {
        if self.known.insert((sequence, stored_at)) {
            self.order.push_back((sequence, stored_at));
        }
        if self.order.len() > FINISHED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, sequence: u64, stored_at: u64) -> bool {
        self.known.contains(&(sequence, stored_at))
    }
}

#[cfg(test)]
impl std::hash::Hash for Finished {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // `known` holds the same.
        self.order.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut finished = Finished::default();
        let last = FINISHED_MAX as u64;
        for sequence in 1..=last {
            finished.insert(sequence, 7);
        }
        // Once more is no other one.
        finished.insert(2, 7);
        assert!(finished.contains(1, 7) && finished.contains(last, 7));
        assert!(!finished.contains(1, 8), "of a stream that was made anew");
        finished.insert(last + 1, 7);
        assert!(!finished.contains(1, 7));
        assert!(finished.contains(2, 7) && finished.contains(last + 1, 7));
        assert_eq!(finished.known.len(), FINISHED_MAX);
    }
}
