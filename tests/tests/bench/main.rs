//! The load generator against a real system, with little load: that each scenario does what it says, and that what it
//! writes can be read. Numbers are of no interest here.

mod max;
mod offline;
mod ramp;
mod rate;
mod run;
mod storm;
