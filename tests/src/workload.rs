//! People who use a system for as long as they are let, and do not mind its troubles: seeded sends, membership changes,
//! devices that come and go. What they see is recorded; the [judge](crate::judge) decides about it.

mod options;

pub use options::{Targets, WorkloadOptions, WorkloadReport};

use crate::history::Recorder;

/// A running workload.
#[derive(Debug)]
pub struct Workload {
    _recorder: Recorder,
}

impl Workload {
    /// Starts it. The same seed makes the same people do the same things, as far as the answers are the same.
    #[expect(clippy::unused_async, reason = "it will connect people")]
    pub async fn start(targets: Targets, seed: u64, options: WorkloadOptions, recorder: Recorder) -> Self {
        let _ = (targets, seed, options);
        Self { _recorder: recorder }
    }

    /// Brings everything to rest, once all faults are over: connects every device, retries what is not known, reads
    /// until nothing is under way any more, confirms everything. Waits at most `options.rest_timeout`; whoever is not
    /// at rest by then says so in the history, which is a violation.
    #[expect(clippy::unused_async, reason = "it will wait")]
    pub async fn finish(self) -> WorkloadReport {
        WorkloadReport::default()
    }
}
