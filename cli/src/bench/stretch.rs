//! A stretch of time: what was delivered in it, and what the processes took for that.

use std::time::Duration;

use super::crowd::seconds;
use super::observed::Load;
use super::processes::{Interval, Sample};
use super::target::Target;

/// How long one is.
#[derive(Copy, Clone, Debug, clap::Args)]
pub(crate) struct StretchArgs {
    /// For how long is measured.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    pub(crate) seconds: f64,

    /// For how long the same is sent before that.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub(crate) warmup: f64,
}

impl StretchArgs {
    /// What comes before it, and how long it is.
    pub(crate) fn times(&self) -> anyhow::Result<(Duration, Duration)> {
        Ok((
            seconds("--warmup", self.warmup)?,
            seconds("--seconds", self.seconds)?,
        ))
    }
}

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
