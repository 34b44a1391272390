//! Inbox workers on real servers: what is too old, who is idle, what is left of who is gone, what
//! nobody names, and wrong clocks.

mod attachments;
mod bodies;
mod expire;
mod idle;
mod support;
mod sweep;
