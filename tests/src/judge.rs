//! Decides from the histories of a run whether the promise was kept: nothing lost, nothing twice, in order.

mod verdict;

pub use verdict::{Figures, Kind, Verdict, Violation};

use crate::history::Run;

/// Judges a run.
pub fn judge(run: &Run) -> Verdict {
    let _ = run;
    Verdict::default()
}
