//! The life of inboxes on real servers and processes: full, old, idle, removed.

mod full;
mod support;
