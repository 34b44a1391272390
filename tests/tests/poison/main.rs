//! Events that kill or break whoever works on them, in a system of real processes.

mod killing;
