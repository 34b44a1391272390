//! What a system does with more than it can carry: hot chats, clients that do not read or do not confirm, everybody
//! coming back at once, and every process replaced while people write.
//!
//! What is asserted holds on a machine of any speed. What depends on speed is printed, as ratios within one run; the
//! variables of [`scale`] make the same tests as large as a measurement needs.

mod hot_chat;
mod peer;
mod rolling;
mod scale;
mod slow_clients;
mod spread;
mod storm;
mod talk;
