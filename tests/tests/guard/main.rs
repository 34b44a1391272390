//! What a message and a connection cost, counted: allocations and bytes, never time, so that a busy machine is no reason to
//! fail. The bounds and their reasons are all in [`bounds`].

mod bounds;
mod connections;
mod deliveries;
mod guarded;
