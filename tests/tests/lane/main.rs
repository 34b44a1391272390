//! The live lane, sessions and durables under faults of NATS itself, on real servers.

mod session_keys;
mod stopped_worker;
