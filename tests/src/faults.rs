//! What can go wrong, made to go wrong: a system of real processes with proxies between them, and a schedule of faults
//! from a seed, while a [workload](crate::workload) runs.

mod disk;
mod fault;
mod link;
mod other_version;
mod process;
mod rig;
mod run;
mod schedule;
mod store;

pub use disk::Disk;
pub use fault::{Fault, FaultKind};
pub use other_version::OtherVersion;
pub use rig::{Rig, RigOptions};
pub use run::{Outcome, RunOptions, default_dir, judge_again, run_faults};
pub use schedule::Schedule;
pub use store::Store;
