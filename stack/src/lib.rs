//! Private NATS and Postgres servers for `tidings up` and the tests: finds or installs the real programs, starts
//! and stops them. Nothing here knows what the servers are used for.

mod account;
mod folders;

pub use folders::{default_cache_dir, default_data_dir};
