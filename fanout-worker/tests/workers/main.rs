//! Fan-out workers on real servers.

mod attachments;
mod direct;
mod fan_out;
mod large_bodies;
mod long_weather;
mod overflow;
mod poison;
mod rounds;
mod support;
mod two_workers;
mod weather;
