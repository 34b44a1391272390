//! How `tidings up` is told to stop.

use anyhow::Context as _;
use tidings_service::end_of_stdin;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// SIGINT, SIGTERM and SIGHUP, each of them once; and the end of standard input, for tests that may be killed.
pub(crate) struct StopRequests {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// The end of standard input, where whoever started this asked for it by the environment.
    stdin_end: Option<oneshot::Receiver<()>>,
}

impl StopRequests {
    /// Takes the signals over from the system's default, which is to die and leave the processes behind.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
            stdin_end: end_of_stdin(),
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) {
        let stdin_end = async {
            match self.stdin_end.as_mut() {
                Some(end) => drop(end.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            () = stdin_end => self.stdin_end = None,
        }
    }
}
