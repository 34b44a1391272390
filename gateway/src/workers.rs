//! What the gateway knows of the fan-out workers: whose notices arrived without a gap, and how far each is. A
//! pure state machine; the time is given.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tidings_nats::Beacon;
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
    /// Notices are missing before it.
    Gap,
}

#[derive(Debug)]
struct Worker {
    notices: u64,
    sessions_revision: u64,
    invalidations_sequence: u64,
    heard_at: Instant,
    silent: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    workers: HashMap<Uuid, Worker>,
    /// The workers that are registered as alive; they count for fences before they were heard.
    registered: Vec<Uuid>,
}

impl Workers {
    /// A notice with its number.
    pub(crate) fn notice(&mut self, worker: Uuid, number: u64, now: Instant) -> Verdict {
        let worker = self.heard(worker, now);
        let verdict = match number {
            _ if number == worker.notices + 1 => Verdict::InOrder,
            _ if number <= worker.notices => Verdict::Known,
            _ => Verdict::Gap,
        };
        worker.notices = worker.notices.max(number);
        verdict
    }

    /// A beacon. A gap means that notices before it were lost.
    pub(crate) fn beacon(&mut self, beacon: &Beacon, now: Instant) -> Verdict {
        let worker = self.heard(beacon.worker, now);
        let verdict = if beacon.notices > worker.notices {
            Verdict::Gap
        } else {
            Verdict::InOrder
        };
        worker.notices = worker.notices.max(beacon.notices);
        worker.sessions_revision = worker.sessions_revision.max(beacon.sessions_revision);
        worker.invalidations_sequence = worker.invalidations_sequence.max(beacon.invalidations_sequence);
        verdict
    }

    /// Which workers are registered as alive. Whoever is neither registered nor heard is forgotten.
    pub(crate) fn registered(&mut self, workers: Vec<Uuid>) {
        let silent = |worker: &Worker| worker.silent;
        self.workers
            .retain(|id, worker| workers.contains(id) || !silent(worker));
        self.registered = workers;
    }

    /// Whether a worker has fallen silent since the last call.
    pub(crate) fn any_fell_silent(&mut self, now: Instant) -> bool {
        let mut any = false;
        for worker in self.workers.values_mut() {
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
            .all(|id| self.workers.get(id).is_some_and(passed))
            && self.workers.values().filter(|worker| !worker.silent).all(passed)
    }

    fn heard(&mut self, worker: Uuid, now: Instant) -> &mut Worker {
        let worker = self.workers.entry(worker).or_insert(Worker {
            notices: 0,
            sessions_revision: 0,
            invalidations_sequence: 0,
            heard_at: now,
            silent: false,
        });
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

    #[test]
    fn a_gap_is_seen_by_the_notice_or_the_beacon_behind_it() {
        let now = Instant::now();
        let mut workers = Workers::default();
        assert_eq!(workers.notice(A, 1, now), Verdict::InOrder);
        assert_eq!(workers.notice(A, 3, now), Verdict::Gap);
        assert_eq!(workers.notice(A, 3, now), Verdict::Known);
        assert_eq!(workers.notice(A, 4, now), Verdict::InOrder);
        assert_eq!(workers.beacon(&beacon(A, 4, 0, 0), now), Verdict::InOrder);
        assert_eq!(workers.beacon(&beacon(A, 5, 0, 0), now), Verdict::Gap);
        assert_eq!(workers.notice(A, 6, now), Verdict::InOrder);
        assert_eq!(workers.notice(B, 2, now), Verdict::Gap);
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
    fn silence_is_told_once_and_a_dead_worker_holds_nobody_up() {
        let start = Instant::now();
        let mut workers = Workers::default();
        workers.registered(vec![A]);
        workers.beacon(&beacon(A, 0, 1, 0), start);
        let later = start + Duration::from_secs(6);
        assert!(workers.any_fell_silent(later));
        assert!(!workers.any_fell_silent(later));
        assert!(!workers.have_passed(2, 0), "it is still registered");
        workers.registered(vec![]);
        assert!(workers.have_passed(2, 0));
    }
}
