//! How `tidings up` is told to stop.

use std::io::Read as _;

use anyhow::Context as _;
use tidings_service::EXIT_WITH_STDIN;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// SIGINT, SIGTERM and SIGHUP, each of them once; and the end of standard input for a program, such as a test, that
/// does not want to leave us behind when it dies.
pub(crate) struct StopRequests {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    stdin_end: Option<oneshot::Receiver<()>>,
}

impl StopRequests {
    /// Takes the signals over from the system's default, which is to die and leave the processes behind.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("cannot listen for signals");
        let with_stdin = std::env::var_os(EXIT_WITH_STDIN).is_some_and(|value| value == "1");
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
            stdin_end: with_stdin.then(stdin_end),
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) {
        let stdin_end = async {
            match self.stdin_end.as_mut() {
                // A reader that died unheard cannot tell us about the end, so that is the end too.
                Some(end) => drop(end.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            () = stdin_end => {}
        }
        // Who asks and then waits for us closes our input as well: that is not a second request.
        self.stdin_end = None;
    }
}

/// A thread of its own, since a read from standard input cannot be cancelled.
fn stdin_end() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut ignored = [0; 256];
        while stdin.read(&mut ignored).is_ok_and(|length| length > 0) {}
        drop(sender);
    });
    receiver
}
