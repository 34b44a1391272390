//! Stretches of streams in which nothing is stored any more, and never will be again. Pure.

use std::collections::{BTreeMap, HashMap};

use tidings_nats::Shard;

/// See the module. One stretch is added for each question that is asked in a round.
#[derive(Debug, Default)]
pub(super) struct Gone(HashMap<Shard, BTreeMap<u64, u64>>);

impl Gone {
    /// From this sequence on, the stream has nothing before the next one.
    pub(super) fn add(&mut self, shard: Shard, from: u64, next: u64) {
        if from < next {
            let stretches = self.0.entry(shard).or_default();
            let until = stretches.entry(from).or_insert(next);
            *until = next.max(*until);
        }
    }

    /// If a sequence is gone, up to where all that follows is gone as well.
    pub(super) fn until(&self, shard: Shard, sequence: u64) -> Option<u64> {
        let stretches = self.0.get(&shard)?;
        // One that begins later and ends later may reach this far as well; then it is asked once more than it must be.
        let (_, until) = stretches.range(..=sequence).next_back()?;
        Some(*until).filter(|until| *until > sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_is_gone() {
        let mut gone = Gone::default();
        gone.add(Shard(1), 10, 20);
        gone.add(Shard(1), 30, 30);
        let until = |sequence| gone.until(Shard(1), sequence);
        assert_eq!([9, 10, 19].map(until), [None, Some(20), Some(20)]);
        assert_eq!([20, 30].map(until), [None, None]);
        assert_eq!(gone.until(Shard(2), 15), None);
        gone.add(Shard(1), 10, 15);
        assert_eq!(gone.until(Shard(1), 19), Some(20));
    }
}
