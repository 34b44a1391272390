//! What was finished: its ack may have been lost, and then it comes again.

use std::collections::{HashSet, VecDeque};

/// How many are remembered: twice the consumer's `max_ack_pending`.
const FINISHED_MAX: usize = 8_192;

/// The events that were finished last. A redelivery of one is acked only.
#[derive(Debug, Default)]
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
