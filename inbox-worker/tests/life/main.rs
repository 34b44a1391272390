//! Inbox workers on real servers: what is too old, who is idle, what is left of who is gone, and wrong clocks.

mod expire;
mod idle;
mod support;
mod sweep;
