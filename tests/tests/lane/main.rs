//! The live lane, sessions and durables under faults of NATS itself, on real servers.

mod cluster;
mod doubts;
mod durables;
mod moves;
mod session_keys;
mod split;
mod stopped_worker;
