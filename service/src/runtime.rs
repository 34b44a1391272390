//! What a service's tasks run on.

use std::env::VarError;
use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// The variable of the environment that says how many threads run a service's tasks, instead of one for each core (tokio).
pub const RUNTIME_THREADS: &str = "TOKIO_WORKER_THREADS";

/// Starts it. One thread needs neither queues from which others take nor another thread for the service itself; and it runs tasks
/// in the order in which they were woken, so that what several have for NATS leaves in one write. (Several threads run first what
/// was woken last, which is the connection.)
pub(crate) fn runtime() -> io::Result<Runtime> {
    let mut builder = if threads() == Some(1) {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder.enable_all().build()
}

/// None where tokio is to say what is wrong with what is wanted.
fn threads() -> Option<usize> {
    match std::env::var(RUNTIME_THREADS) {
        Ok(wanted) => wanted.parse().ok(),
        Err(VarError::NotPresent) => available_parallelism().ok().map(NonZero::get),
        Err(VarError::NotUnicode(_)) => None,
    }
}
