//! How a service is told to stop: SIGTERM or Ctrl-C, twice for at once; or the end of its standard input, for the
//! children of a command that may be killed.

use std::io::Read as _;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Set to 1, the end of standard input is a SIGTERM: the children of `tidings up` do not outlive it, even when it
/// is killed.
pub const EXIT_WITH_STDIN: &str = "TIDINGS_EXIT_WITH_STDIN";

/// The exit code of a process that a second signal stopped: 128 + SIGINT, what shells expect.
pub const EXIT_CODE_AT_ONCE: i32 = 130;

/// Waits for requests to stop, each of them once.
pub(crate) struct StopRequests {
    terminate: Signal,
    interrupt: Signal,
    stdin_end: Option<oneshot::Receiver<()>>,
}

impl StopRequests {
    /// Takes the signals over from the system's default, which is to die. Must be called in a Tokio runtime.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            stdin_end: end_of_stdin(),
        })
    }

    /// The next request, by the name of what made it.
    pub(crate) async fn next(&mut self) -> &'static str {
        let stdin_end = async {
            match self.stdin_end.as_mut() {
                // A reader that died unheard cannot tell us about the end, so that is the end too.
                Some(end) => drop(end.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = stdin_end => {
                self.stdin_end = None;
                "end of standard input"
            }
        }
    }
}

/// Ends with standard input, if [`EXIT_WITH_STDIN`] asks for it; a sender that is dropped is the end.
pub fn end_of_stdin() -> Option<oneshot::Receiver<()>> {
    let asked = std::env::var_os(EXIT_WITH_STDIN).is_some_and(|value| value == "1");
    asked.then(stdin_end)
}

/// A thread of its own, since a read from standard input cannot be cancelled and must not hold the runtime back.
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
