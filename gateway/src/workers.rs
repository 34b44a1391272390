//! What the gateway knows of the fan-out workers: whose notices arrived without a gap, which lanes have begun, and
//! how far each worker is. A pure state machine; the time is given.
//!
//! Within a lane the numbers hold the order of a chat. Between lanes nothing does: when a partition moves, what its
//! new worker tells may overtake what the old one told last, or the old one's may be lost. But the new one began
//! after the old one's entries were stored. So each beginning of a lane is *stamped*, and whoever gets a notice with
//! a stamp reads its inbox once after that stamp was given.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tidings_nats::{Beacon, Lane, Partition};
use uuid::Uuid;

/// A worker that was not heard of for so long may have told something that got lost. Ten beacons.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What an arrival means for the sessions.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is missing before it.
    InOrder,
    /// It came already.
    Known,
    /// So many notices are missing before it.
    Gap(u64),
}

#[derive(Debug)]
struct Worker {
    notices: u64,
    sessions_revision: u64,
    invalidations_sequence: u64,
    heard_at: Instant,
    silent: bool,
    /// The lanes that have begun, one a partition. A worker of before lanes were told has one alone.
    lanes: HashMap<Option<Partition>, Begun>,
}

/// The latest lane of a worker in a partition.
#[derive(Copy, Clone, Debug)]
struct Begun {
    generation: u64,
    stamp: u64,
}

/// What a notice means for the sessions that it names.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Whether notices are missing before it.
    pub(crate) verdict: Verdict,
    /// It may be delivered to whoever has read the inbox since this stamp was given.
    pub(crate) stamp: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    by_id: HashMap<Uuid, Worker>,
    /// The workers that are registered as alive; they count for fences before they were heard.
    registered: Vec<Uuid>,
    /// The last stamp that was given.
    stamp: u64,
    /// When some worker was heard of last.
    heard_at: Option<Instant>,
}

impl Workers {
    /// A notice with its number and lane.
    pub(crate) fn notice(&mut self, worker: Uuid, number: u64, lane: Option<Lane>, now: Instant) -> Arrival {
        let next = self.stamp + 1;
        let worker = self.heard(worker, now);
        let verdict = match number {
            _ if number == worker.notices + 1 => Verdict::InOrder,
            _ if number <= worker.notices => Verdict::Known,
            _ => Verdict::Gap(number - worker.notices - 1),
        };
        worker.notices = worker.notices.max(number);
        let generation = lane.map_or(0, |lane| lane.generation);
        let lane = worker
            .lanes
            .entry(lane.map(|lane| lane.partition))
            .and_modify(|begun| {
                // What was started in an earlier lane may end in a later one, and is taken for the later one's.
                if begun.generation < generation {
                    *begun = Begun {
                        generation,
                        stamp: next,
                    };
                }
            })
            .or_insert(Begun {
                generation,
                stamp: next,
            });
        let stamp = lane.stamp;
        self.stamp = self.stamp.max(stamp);
        Arrival { verdict, stamp }
    }

    /// The last stamp that was given. A reading that begins now is after all of them.
    pub(crate) const fn stamp(&self) -> u64 {
        self.stamp
    }

    /// A beacon. A gap means that notices before it were lost. Says too whether the worker follows another bucket of
    /// SESSIONS than before: its revisions went back.
    pub(crate) fn beacon(&mut self, beacon: &Beacon, now: Instant) -> (Verdict, bool) {
        let worker = self.heard(beacon.worker, now);
        let verdict = if beacon.notices > worker.notices {
            Verdict::Gap(beacon.notices - worker.notices)
        } else {
            Verdict::InOrder
        };
        worker.notices = worker.notices.max(beacon.notices);
        let anew = beacon.sessions_revision < worker.sessions_revision;
        // Not the highest: a bucket that was made anew counts from 1 again.
        worker.sessions_revision = beacon.sessions_revision;
        worker.invalidations_sequence = worker.invalidations_sequence.max(beacon.invalidations_sequence);
        (verdict, anew)
    }

    /// How far in SESSIONS the furthest worker is that was heard of lately.
    pub(crate) fn sessions_revision(&self) -> u64 {
        let heard = self.by_id.values().filter(|worker| !worker.silent);
        heard.map(|worker| worker.sessions_revision).max().unwrap_or(0)
    }

    /// When some worker was heard of last.
    pub(crate) const fn heard_at(&self) -> Option<Instant> {
        self.heard_at
    }

    /// Which workers are registered as alive. Whoever is neither registered nor heard is forgotten; says whether
    /// somebody was: what it told since it fell silent is lost, and no gap will show it.
    pub(crate) fn registered(&mut self, workers: Vec<Uuid>) -> bool {
        let silent = |worker: &Worker| worker.silent;
        let before = self.by_id.len();
        self.by_id
            .retain(|id, worker| workers.contains(id) || !silent(worker));
        self.registered = workers;
        self.by_id.len() < before
    }

    /// Whether a worker has fallen silent since the last call.
    pub(crate) fn any_fell_silent(&mut self, now: Instant) -> bool {
        let mut any = false;
        for worker in self.by_id.values_mut() {
            if !worker.silent && now.duration_since(worker.heard_at) > SILENCE_MAX {
                worker.silent = true;
                any = true;
            }
        }
        any
    }

    /// Whether every living worker looks clients up at this revision of SESSIONS or later, and has forgotten what
    /// was invalidated up to this sequence.
    pub(crate) fn have_passed(&self, sessions_revision: u64, invalidations_sequence: u64) -> bool {
        let passed = |worker: &Worker| {
            worker.sessions_revision >= sessions_revision
                && worker.invalidations_sequence >= invalidations_sequence
        };
        self.registered
            .iter()
            .all(|id| self.by_id.get(id).is_some_and(passed))
            && self.by_id.values().filter(|worker| !worker.silent).all(passed)
    }

    fn heard(&mut self, worker: Uuid, now: Instant) -> &mut Worker {
        let worker = self.by_id.entry(worker).or_insert(Worker {
            notices: 0,
            sessions_revision: 0,
            invalidations_sequence: 0,
            heard_at: now,
            silent: false,
            lanes: HashMap::new(),
        });
        self.heard_at = Some(now);
        worker.heard_at = now;
        worker.silent = false;
        worker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn beacon(worker: Uuid, notices: u64, sessions_revision: u64, invalidations_sequence: u64) -> Beacon {
        Beacon {
            worker,
            notices,
            sessions_revision,
            invalidations_sequence,
        }
    }

    const fn lane(partition: u16, generation: u64) -> Lane {
        Lane {
            partition: Partition(partition),
            generation,
        }
    }

    #[test]
    fn a_gap_is_seen_by_the_notice_or_the_beacon_behind_it() {
        let now = Instant::now();
        let mut workers = Workers::default();
        let notice = |workers: &mut Workers, worker, number| {
            workers.notice(worker, number, Some(lane(0, 1)), now).verdict
        };
        assert_eq!(notice(&mut workers, A, 1), Verdict::InOrder);
        assert_eq!(notice(&mut workers, A, 3), Verdict::Gap(1));
        assert_eq!(notice(&mut workers, A, 3), Verdict::Known);
        assert_eq!(notice(&mut workers, A, 4), Verdict::InOrder);
        assert_eq!(
            workers.beacon(&beacon(A, 4, 0, 0), now),
            (Verdict::InOrder, false)
        );
        assert_eq!(workers.beacon(&beacon(A, 5, 0, 0), now), (Verdict::Gap(1), false));
        assert_eq!(notice(&mut workers, A, 6), Verdict::InOrder);
        assert_eq!(notice(&mut workers, B, 4), Verdict::Gap(3));
    }

    #[test]
    fn each_beginning_of_a_lane_is_stamped() {
        let now = Instant::now();
        let mut workers = Workers::default();
        let mut stamp = |worker, number, lane| workers.notice(worker, number, lane, now).stamp;
        assert_eq!(stamp(A, 1, Some(lane(0, 4))), 1);
        assert_eq!(stamp(A, 2, Some(lane(0, 4))), 1);
        assert_eq!(stamp(A, 3, Some(lane(9, 4))), 2, "another partition");
        assert_eq!(stamp(B, 1, Some(lane(0, 1))), 3, "the partition has moved");
        assert_eq!(
            stamp(A, 4, Some(lane(0, 4))),
            1,
            "what the old worker tells late is in its old place"
        );
        assert_eq!(stamp(A, 5, Some(lane(0, 6))), 4, "the partition has come back");
        assert_eq!(stamp(A, 6, Some(lane(0, 4))), 4, "started before, told after");
        assert_eq!(stamp(B, 2, None), 5, "a worker that does not tell lanes has one");
        assert_eq!(stamp(B, 3, None), 5);
        assert_eq!(workers.stamp(), 5);
    }

    #[test]
    fn a_worker_that_was_forgotten_begins_its_lanes_again() {
        let start = Instant::now();
        let mut workers = Workers::default();
        assert_eq!(workers.notice(A, 1, Some(lane(0, 1)), start).stamp, 1);
        let later = start + Duration::from_secs(6);
        assert!(workers.any_fell_silent(later));
        workers.registered(vec![]);
        let arrival = workers.notice(A, 2, Some(lane(0, 1)), later);
        assert_eq!(
            arrival,
            Arrival {
                verdict: Verdict::Gap(1),
                stamp: 2
            }
        );
    }

    #[test]
    fn a_fence_waits_for_every_living_worker() {
        let now = Instant::now();
        let mut workers = Workers::default();
        assert!(workers.have_passed(7, 3), "nobody to wait for");
        workers.registered(vec![A, B]);
        workers.beacon(&beacon(A, 0, 7, 3), now);
        assert!(!workers.have_passed(7, 3), "B was not heard");
        workers.beacon(&beacon(B, 0, 6, 2), now);
        assert!(!workers.have_passed(7, 3), "B is behind");
        workers.beacon(&beacon(B, 0, 7, 2), now);
        assert!(!workers.have_passed(7, 3), "B has not forgotten");
        workers.beacon(&beacon(B, 0, 7, 3), now);
        assert!(workers.have_passed(7, 3));
    }

    #[test]
    fn a_bucket_that_was_made_anew_is_followed_from_its_beginning() {
        let now = Instant::now();
        let mut workers = Workers::default();
        workers.registered(vec![A]);
        assert_eq!(
            workers.beacon(&beacon(A, 0, 5_000, 0), now),
            (Verdict::InOrder, false)
        );
        assert_eq!(workers.sessions_revision(), 5_000);
        assert_eq!(workers.beacon(&beacon(A, 0, 3, 0), now), (Verdict::InOrder, true));
        assert_eq!(workers.sessions_revision(), 3);
        assert!(!workers.have_passed(4, 0));
    }

    #[test]
    fn silence_is_told_once_and_a_dead_worker_holds_nobody_up() {
        let start = Instant::now();
        let mut workers = Workers::default();
        workers.registered(vec![A]);
        workers.beacon(&beacon(A, 0, 1, 0), start);
        let later = start + Duration::from_secs(6);
        assert!(workers.any_fell_silent(later));
        assert!(!workers.any_fell_silent(later));
        assert!(!workers.have_passed(2, 0), "it is still registered");
        assert!(workers.registered(vec![]), "it is forgotten");
        assert!(!workers.registered(vec![]));
        assert!(workers.have_passed(2, 0));
    }

    #[test]
    fn whoever_is_registered_or_heard_is_remembered() {
        let start = Instant::now();
        let mut workers = Workers::default();
        assert_eq!(workers.heard_at(), None);
        workers.beacon(&beacon(A, 0, 9, 9), start);
        workers.beacon(&beacon(B, 0, 7, 7), start);
        assert!(!workers.registered(vec![B]), "A is heard");
        assert!(!workers.have_passed(8, 8), "B is behind");
        assert!(!workers.registered(vec![A]), "B is heard");
        assert!(!workers.have_passed(8, 8), "B may still look up at 7");
        assert!(!workers.any_fell_silent(start + SILENCE_MAX), "not yet");
        let later = start + SILENCE_MAX + Duration::from_millis(1);
        workers.beacon(&beacon(B, 0, 7, 7), later);
        assert_eq!(workers.heard_at(), Some(later));
        assert!(workers.any_fell_silent(later), "A did");
        assert_eq!(workers.sessions_revision(), 7, "A is not heard");
        assert!(!workers.registered(vec![A, B]), "A is registered");
        assert!(!workers.any_fell_silent(later), "B did not");
    }
}
