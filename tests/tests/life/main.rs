//! The life of inboxes on real servers and processes: full, old, idle, removed.

mod away;
mod full;
mod removed;
mod support;
