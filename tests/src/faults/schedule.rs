//! Which fault comes when: from a seed, so that a run can be made again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

use super::fault::{Fault, FaultKind};

/// How often each kind comes, compared with the others. What one process suffers is the common case.
const WEIGHTS: [(FaultKind, u32); 16] = [
    (FaultKind::Kill, 12),
    (FaultKind::Freeze, 8),
    (FaultKind::Terminate, 5),
    (FaultKind::Cut, 4),
    (FaultKind::Stall, 4),
    (FaultKind::StallToServer, 2),
    (FaultKind::StallToClient, 2),
    (FaultKind::Refuse, 3),
    (FaultKind::HalfClose, 2),
    (FaultKind::Slow, 2),
    (FaultKind::FreezeTwoNats, 2),
    (FaultKind::RollNats, 1),
    (FaultKind::KillAllNats, 1),
    (FaultKind::RollServices, 1),
    (FaultKind::FullStore, 2),
    (FaultKind::FullDisk, 2),
];
/// One fault in so many has another one beside it.
const BESIDE: u32 = 6;

/// See the module.
#[derive(Debug)]
pub struct Schedule {
    rng: StdRng,
    kinds: Vec<(FaultKind, u32)>,
    /// Each kind once; these come first, so that a short run makes all of them.
    deck: Vec<FaultKind>,
    processes: Vec<String>,
    links: Vec<String>,
    longest: Duration,
    longest_pause: Duration,
}

impl Schedule {
    /// The schedule of a seed, over these processes and links. `only` are the kinds to choose from, all if it is empty;
    /// `longest` bounds how long a fault lasts, `longest_pause` how long nothing is done after it. Every kind comes once
    /// before any comes again. Disks can be full if there are `disks`, one for each NATS server.
    pub fn new(
        seed: u64,
        only: &[FaultKind],
        processes: Vec<String>,
        links: Vec<String>,
        longest: Duration,
        longest_pause: Duration,
        disks: bool,
    ) -> Self {
        let cluster = processes.iter().any(|name| name == "nats-3");
        let kinds: Vec<_> = WEIGHTS
            .into_iter()
            .filter(|(kind, _)| only.is_empty() || only.contains(kind))
            .filter(|(kind, _)| cluster || !kind.needs_cluster())
            .filter(|(kind, _)| disks || *kind != FaultKind::FullDisk)
            .collect();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut deck: Vec<_> = kinds.iter().map(|(kind, _)| *kind).collect();
        deck.shuffle(&mut rng);
        Self {
            rng,
            kinds,
            deck,
            processes,
            links,
            longest,
            longest_pause,
        }
    }

    /// What happens next: one fault, or two at once. Nothing if there is no kind to choose from.
    pub fn draw(&mut self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.fault().into_iter().collect();
        if self.rng.random_ratio(1, BESIDE) {
            let beside = self.fault();
            // Two hands on one thing would end each other's fault; what hits a group hits its members.
            let alone = |fault: &Fault| !fault.kind.hits_process() && !fault.kind.hits_link();
            faults.extend(beside.filter(|beside| {
                faults
                    .iter()
                    .all(|fault| fault.target != beside.target && !alone(fault) && !alone(beside))
            }));
        }
        faults
    }

    fn fault(&mut self) -> Option<Fault> {
        let kind = match self.deck.pop() {
            Some(kind) => kind,
            None => {
                self.kinds
                    .choose_weighted(&mut self.rng, |(_, weight)| *weight)
                    .ok()?
                    .0
            }
        };
        let target = if kind.hits_process() {
            self.processes.choose(&mut self.rng)?.clone()
        } else if kind.hits_link() {
            self.links.choose(&mut self.rng)?.clone()
        } else if kind == FaultKind::FullDisk {
            let nodes = self.processes.iter().filter(|name| name.starts_with("nats-"));
            let nodes: Vec<_> = nodes.collect();
            (*nodes.choose(&mut self.rng)?).clone()
        } else if kind == FaultKind::RollServices {
            "services".to_owned()
        } else {
            "nats".to_owned()
        };
        let longest = self.longest.as_secs_f64();
        let lasts = match kind {
            // Between two processes of a rolling restart, and a connection that is there again at once.
            FaultKind::RollNats | FaultKind::RollServices | FaultKind::Cut | FaultKind::HalfClose => {
                self.rng.random_range(0.0..1.0)
            }
            FaultKind::Kill | FaultKind::Terminate | FaultKind::KillAllNats => {
                self.rng.random_range(0.0..longest.min(8.0))
            }
            // Short ones are common, as pauses of a machine are.
            _ => self
                .rng
                .random_range(1.0_f64..2.0)
                .max(longest * self.rng.random_range(0.0_f64..1.0).powi(2)),
        };
        Some(Fault {
            kind,
            target,
            lasts: Duration::from_secs_f64(lasts),
            delay: Duration::from_millis(self.rng.random_range(5..200)),
            pause: self.longest_pause.mul_f64(self.rng.random_range(0.2..1.0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn schedule(seed: u64, nats: usize) -> Schedule {
        let processes = (1..=nats)
            .map(|number| format!("nats-{number}"))
            .chain(["postgres".to_owned(), "gateway-1".to_owned()]);
        let links = ["gateway-1>nats", "people>gateway-1"].map(str::to_owned);
        let (longest, longest_pause) = (Duration::from_secs(30), Duration::from_secs(12));
        Schedule::new(
            seed,
            &[],
            processes.collect(),
            links.into(),
            longest,
            longest_pause,
            nats == 3,
        )
    }

    #[test]
    fn a_seed_is_a_schedule() {
        let (mut one, mut other) = (schedule(7, 3), schedule(7, 3));
        for _ in 0..200 {
            assert_eq!(one.draw(), other.draw());
        }
        assert_ne!(one.draw(), schedule(8, 3).draw());
    }

    #[test]
    fn every_kind_comes_at_once_and_one_server_is_no_cluster() {
        let kinds = |nats| -> BTreeSet<FaultKind> {
            let mut schedule = schedule(1, nats);
            (0..30)
                .flat_map(|_| schedule.draw())
                .map(|fault| fault.kind)
                .collect()
        };
        assert_eq!(kinds(3).len(), WEIGHTS.len());
        assert!(kinds(1).iter().all(|kind| !kind.needs_cluster()));
    }

    #[test]
    fn faults_end() {
        let mut schedule = schedule(2, 3);
        for fault in (0..2_000).flat_map(|_| schedule.draw()) {
            assert!(fault.lasts <= Duration::from_secs(30), "{fault}");
        }
    }
}
