//! The fan-out worker: reads the events of chats in order and stores one entry per client.
//!
//! A partition of CHATS is read by `partition_reader` (pure) and `partition_task`; an event becomes entries in
//! `fan_out`; gateways hear of it through `live_lane`. Nothing here is kept: what is finished is
//! deleted from CHATS, what is not is done again.

mod beacons;
mod body_lists;
mod body_room;
mod chat_queue;
mod clients;
mod config;
mod dead_letter;
mod deletions;
mod direct_answers;
mod fan_out;
#[cfg(debug_assertions)]
mod faults;
mod forgotten_events;
mod holds;
mod horizon;
mod large_body;
mod live_lane;
mod metrics;
mod overflow_marks;
mod participants;
mod partition_reader;
mod partition_task;
mod partition_trials;
mod payloads;
mod publish_permits;
mod rounds;
mod sessions;
mod shares;
mod standing;
mod together;
mod trials;
mod tries;
mod waits;
mod worker;

pub use config::{FanoutWorkerConfig, LargeBodyBytes};
pub use worker::run;
