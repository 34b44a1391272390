//! What attachments go through: processes that are killed at any moment, a store that is full or away, a Postgres that is
//! away, clients that go. Each time what can be read is right, a retry succeeds, and blobs are counted against rows.
//!
//! `TIDINGS_SEED` repeats the random moments of a run.

mod away;
mod client_gone;
mod full;
mod killed;
mod media;
mod postgres;
mod redirects;
mod removal;
mod same_content;
mod support;
mod terminated;
mod uploader;
