//! `tidings up` as its user runs it: real servers, real processes.

mod command;
mod refusals;
mod running;
