//! A stretch of time: what was delivered in it, and what the processes took for that.

use super::observed::Load;
use super::processes::{Interval, Sample};
use super::target::Target;

/// The beginning or the end of one.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    sample: Sample,
    /// Deliveries so far.
    came: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) interval: Interval,
    pub(crate) deliveries: u64,
}

impl Moment {
    /// Now.
    pub(crate) fn now(target: &Target, load: &Load) -> Self {
        Self {
            came: load.ledger().came(),
            sample: Sample::take(&target.processes),
        }
    }

    /// From an earlier moment to this one.
    pub(crate) fn since(&self, earlier: &Self) -> Stretch {
        Stretch {
            interval: self.sample.since(&earlier.sample),
            deliveries: self.came - earlier.came,
        }
    }
}
