//! The entries that refer to one body, called one after the other. Pure.

use tidings_nats::Shard;

/// A place in a list of entries that is in order: those before it are gone.
#[derive(Debug)]
pub(super) struct Roll<'a> {
    entries: &'a [(Shard, u64)],
    gone: usize,
}

impl<'a> Roll<'a> {
    /// `gone` is how many from the beginning on are known to be gone.
    pub(super) fn new(entries: &'a [(Shard, u64)], gone: usize) -> Self {
        let gone = gone.min(entries.len());
        Self { entries, gone }
    }

    /// The first that may be there; None if all are gone.
    pub(super) fn next(&self) -> Option<(Shard, u64)> {
        self.entries.get(self.gone).copied()
    }

    /// How many are gone.
    pub(super) const fn gone(&self) -> usize {
        self.gone
    }

    /// Whoever was asked what its stream holds from the next one's sequence on has this. It stores in order: what it has
    /// behind an entry that was acknowledged says that it had that one, too. So everything before is gone. Says whether
    /// the next one was.
    pub(super) fn stream_goes_on_at(&mut self, sequence: u64) -> bool {
        let Some((shard, asked)) = self.next() else {
            return true;
        };
        let rest = &self.entries[self.gone..];
        let before = |entry: &&(Shard, u64)| entry.0 == shard && entry.1 < sequence;
        self.gone += rest.iter().take_while(before).count();
        asked < sequence
    }

    /// The next one is gone, as whoever knows it says.
    pub(super) const fn is_gone(&mut self) {
        self.gone += 1;
    }
}

/// Whether something lies in a stream behind an entry: the barrier that was put there. Then whoever has nothing from the
/// entry on is behind, and nothing that is said without it is news: a deposed leader says "not found" as well, and what is
/// deleted then does not come back.
pub(super) fn is_there_a_witness(entry: u64, barrier: Option<u64>) -> bool {
    barrier.is_some_and(|barrier| barrier > entry)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn what_lies_before_what_is_there_is_gone_in_that_shard_alone() {
        let entries = [(Shard(1), 5), (Shard(1), 7), (Shard(1), 9), (Shard(2), 6)];
        let mut roll = Roll::new(&entries, 0);
        assert!(roll.stream_goes_on_at(8));
        assert_eq!((roll.next(), roll.gone()), (Some((Shard(1), 9)), 2));
        assert!(!roll.stream_goes_on_at(9));
        assert_eq!(roll.next(), Some((Shard(1), 9)), "it is there");
        assert!(roll.stream_goes_on_at(100));
        assert_eq!(roll.next(), Some((Shard(2), 6)));
        roll.is_gone();
        assert_eq!((roll.next(), roll.gone()), (None, 4));
        assert_eq!(Roll::new(&entries, 9).next(), None);
    }

    /// Streams with replicas that are behind, in which entries are confirmed while their bodies' roll is called.
    #[test]
    fn none_is_called_gone_that_is_there_and_in_the_end_all_are_gone() {
        for seed in 0..5_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let shards = rng.random_range(1..4_u16);
            // Every change of each stream, in order: a sequence, and whether it is stored or deleted.
            let mut logs: Vec<Vec<(u64, bool)>> = vec![Vec::new(); usize::from(shards)];
            let mut last = vec![0; usize::from(shards)];
            let mut list = Vec::new();
            for _ in 0..rng.random_range(0..12) {
                let shard = rng.random_range(0..shards);
                let at = usize::from(shard);
                last[at] += rng.random_range(1..4);
                logs[at].push((last[at], true));
                if rng.random_bool(0.6) {
                    list.push((Shard(shard), last[at]));
                }
            }
            list.sort_unstable();
            // How much of its log each replica has.
            let mut behind: Vec<[usize; 2]> = vec![[0; 2]; usize::from(shards)];
            let held = |log: &[(u64, bool)]| {
                let mut held = BTreeSet::new();
                for (sequence, stored) in log {
                    if *stored {
                        held.insert(*sequence);
                    } else {
                        held.remove(sequence);
                    }
                }
                held
            };
            let (mut gone, mut steps) = (0, 0);
            loop {
                let mut roll = Roll::new(&list, gone);
                while let Some((shard, sequence)) = roll.next() {
                    let at = usize::from(shard.0);
                    let replica = rng.random_range(0..2);
                    let has = held(&logs[at][..behind[at][replica]]);
                    if let Some(next) = has.range(sequence..).next() {
                        if !roll.stream_goes_on_at(*next) {
                            break;
                        }
                        continue;
                    }
                    // A barrier is put behind all, or the stream is full. A replica gets it in time or not.
                    let barrier = rng.random_bool(0.7).then(|| {
                        last[at] += 1;
                        last[at]
                    });
                    if is_there_a_witness(sequence, barrier) {
                        if rng.random_bool(0.5) {
                            break;
                        }
                        let has = held(&logs[at]);
                        let next = has.range(sequence..).next().copied().or(barrier);
                        if !roll.stream_goes_on_at(next.expect("there is a barrier")) {
                            break;
                        }
                        continue;
                    }
                    // Whoever leads is asked, who knows unless another one was elected: that one took the barrier, if any.
                    let replica = if barrier.is_some() {
                        behind[at][replica]
                    } else {
                        logs[at].len()
                    };
                    if held(&logs[at][..replica]).contains(&sequence) {
                        break;
                    }
                    roll.is_gone();
                }
                gone = roll.gone();
                for (shard, sequence) in &list[..gone] {
                    let held = held(&logs[usize::from(shard.0)]);
                    assert!(!held.contains(sequence), "seed {seed}: {sequence} is there");
                }
                if roll.next().is_none() {
                    break;
                }
                // Somebody confirms something, something else is stored, replicas come nearer.
                for (at, log) in logs.iter_mut().enumerate() {
                    let held: Vec<u64> = held(log).into_iter().collect();
                    if !held.is_empty() && (steps > 20 || rng.random_bool(0.5)) {
                        log.push((held[rng.random_range(0..held.len())], false));
                    }
                    if rng.random_bool(0.3) && steps < 20 {
                        last[at] += 1;
                        log.push((last[at], true));
                    }
                    for replica in &mut behind[at] {
                        *replica = rng.random_range(*replica..=log.len());
                    }
                }
                steps += 1;
                assert!(steps < 200, "seed {seed}: it never ends");
            }
        }
    }
}
