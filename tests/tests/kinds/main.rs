//! Kinds of faults that bug reports of other systems, and of NATS itself, tell of, each made to happen here.
//! `docs/RELIABILITY.md` says which report each is about, and which tests elsewhere are about the other kinds.

mod confirming;
mod connections;
mod lost_store;
mod postgres;
mod restarts;
mod support;
