//! How many partitions a worker keeps: its share, since a pin never moves by itself.

use std::time::{Duration, Instant};

use tidings_nats::Partition;

/// How long a worker holds more than its share before it gives some away. Another that died is alive in INSTANCES
/// for 10 s, and its partitions are taken over after 5 s: they must not be given away before it counts as dead.
const PATIENCE: Duration = Duration::from_secs(8);

/// See the module. Pure; the time is given.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    over_since: Option<Instant>,
}

/// What a worker does about its share.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// It has enough, and asks for more only where nobody else does.
    pub(crate) reluctant: bool,
    /// What it gives away.
    pub(crate) release: Vec<Partition>,
}

impl Shares {
    /// `held` of `partitions`, with so many workers alive, this one included.
    pub(crate) fn decide(
        &mut self,
        held: &[Partition],
        partitions: u16,
        workers: usize,
        now: Instant,
    ) -> Decision {
        let share = usize::from(partitions).div_ceil(workers.max(1));
        let reluctant = held.len() >= share && workers > 1;
        if held.len() <= share {
            self.over_since = None;
            return Decision {
                reluctant,
                release: Vec::new(),
            };
        }
        let since = *self.over_since.get_or_insert(now);
        let release = if now < since + PATIENCE {
            Vec::new()
        } else {
            // They take a while to go; until they have, the same ones are chosen again.
            held[share..].to_vec()
        };
        Decision { reluctant, release }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_gives_away_what_it_holds_above_its_share_for_long() {
        let now = Instant::now();
        let second = |seconds| now + Duration::from_secs(seconds);
        let held: Vec<Partition> = (0..8).map(Partition).collect();
        let decision = |reluctant, release: &[u16]| Decision {
            reluctant,
            release: release.iter().copied().map(Partition).collect(),
        };
        let mut shares = Shares::default();
        // Alone, all are its own.
        assert_eq!(shares.decide(&held, 8, 1, now), decision(false, &[]));
        // Another comes.
        assert_eq!(shares.decide(&held, 8, 2, second(1)), decision(true, &[]));
        assert_eq!(shares.decide(&held, 8, 2, second(8)), decision(true, &[]));
        assert_eq!(
            shares.decide(&held, 8, 2, second(9)),
            decision(true, &[4, 5, 6, 7])
        );
        assert_eq!(
            shares.decide(&held[..6], 8, 2, second(10)),
            decision(true, &[4, 5])
        );
        assert_eq!(shares.decide(&held[..4], 8, 2, second(11)), decision(true, &[]));
        assert_eq!(shares.decide(&held[..3], 8, 2, second(12)), decision(false, &[]));
        // Its death shows late: what was taken over from it is not given away meanwhile.
        assert_eq!(shares.decide(&held, 8, 2, second(20)), decision(true, &[]));
        assert_eq!(shares.decide(&held, 8, 1, second(26)), decision(false, &[]));
        // Shares are rounded up: nobody gives away what nobody else would take.
        assert_eq!(shares.decide(&held[..3], 8, 3, second(99)), decision(true, &[]));
    }
}
