//! When the system was being disturbed, and what a disturbance excuses.

use std::collections::HashMap;
use std::time::Duration;

use crate::history::{Event, Happening, Moment};

/// How long after a disturbance things may still be out of the ordinary: the time the product is given to resume.
const AFTERMATH: Duration = Duration::from_secs(10);

/// A disturbance.
#[derive(Clone, Debug)]
pub(super) struct Disturbance {
    pub(super) from: Moment,
    /// [`Moment::NEVER`] if it did not end.
    pub(super) to: Moment,
    pub(super) what: String,
    /// Whether a NATS server lost its memory in it.
    forgets: bool,
}

/// All disturbances of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Weather {
    pub(super) disturbances: Vec<Disturbance>,
    pub(super) faults: u64,
}

impl Weather {
    /// Of what happened to the system.
    pub(super) fn of(events: &[Event]) -> Self {
        let mut weather = Self::default();
        let mut open: HashMap<(String, String), usize> = HashMap::new();
        for event in events {
            let (name, what, begins) = match &event.happening {
                Happening::FaultBegins { fault, target } => {
                    weather.faults += 1;
                    let name = (fault.clone(), target.clone());
                    (name, format!("{target}: {fault}"), true)
                }
                Happening::FaultEnds { fault, target } => {
                    ((fault.clone(), target.clone()), String::new(), false)
                }
                Happening::ProcessEnded { name, .. } => {
                    ((String::new(), name.clone()), format!("{name} is gone"), true)
                }
                Happening::ProcessStarted { name, .. } => {
                    ((String::new(), name.clone()), String::new(), false)
                }
                Happening::Note { .. } => continue,
            };
            if begins {
                let target = event.happening.target().unwrap_or_default();
                let ends_process = ["KILL", "TERM", "restart", "is gone"]
                    .iter()
                    .any(|sign| what.contains(sign));
                open.insert(name, weather.disturbances.len());
                weather.disturbances.push(Disturbance {
                    from: event.at,
                    to: Moment::NEVER,
                    forgets: target.starts_with("nats") && ends_process,
                    what,
                });
            } else if let Some(number) = open.remove(&name) {
                weather.disturbances[number].to = event.at;
            }
        }
        weather
    }

    /// Whether nothing disturbed the system, nor had a moment before.
    pub(super) fn is_calm(&self, from: Moment, to: Moment) -> bool {
        !self
            .disturbances
            .iter()
            .any(|disturbance| disturbance.from <= to && disturbance.to.plus(AFTERMATH) >= from)
    }

    /// Whether a NATS server may have forgotten in between which message ids it had seen: those of events that are
    /// deleted are gone after a restart.
    pub(super) fn may_have_forgotten(&self, from: Moment, to: Moment) -> bool {
        self.disturbances.iter().any(|disturbance| {
            disturbance.forgets && disturbance.from <= to && disturbance.to.plus(AFTERMATH) >= from
        })
    }

    /// Whether what a client was told may have been stored late: it was told before it was stored (adr/0021), and then the
    /// worker that held it was disturbed, or NATS.
    pub(super) fn may_be_stored_late(&self, from: Moment, to: Moment) -> bool {
        self.between(from, to).any(|disturbance| {
            ["nats", "fanout-worker", "services"]
                .iter()
                .any(|sign| disturbance.what.contains(sign))
        })
    }

    /// What was in force between two moments, or shortly before.
    pub(super) fn between(&self, from: Moment, to: Moment) -> impl Iterator<Item = &Disturbance> {
        self.disturbances
            .iter()
            .filter(move |disturbance| disturbance.from <= to && disturbance.to.plus(AFTERMATH) >= from)
    }
}
