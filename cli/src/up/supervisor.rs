//! Keeps processes running: what dies is said and started again.

use std::time::Duration;

use tidings_stack::{Server, describe};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::say::say;

/// Before a process is started again: this after its first death, twice as long after each further one.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// Nobody should wait longer than this for a process whose reason to die has gone.
const DELAY_MAX: Duration = Duration::from_secs(10);
/// What ran this long died for a new reason.
const SETTLED_AFTER: Duration = Duration::from_secs(20);
/// Longer than services drain and Postgres writes its checkpoint.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(25);
/// Readiness is only waited for in order to be said.
const FOREVER: Duration = Duration::from_hours(24 * 365);

/// A process in the care of a task.
pub(crate) struct Supervised {
    /// Asks for a stop in order.
    pub(crate) stop: CancellationToken,
    /// Ends when the process has stopped.
    pub(crate) task: JoinHandle<()>,
}

/// The delay before the next start.
struct Backoff {
    next: Duration,
}

impl Backoff {
    const fn new() -> Self {
        Self { next: DELAY_MIN }
    }

    /// `lived` is how long the process ran before it died.
    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= SETTLED_AFTER {
            self.next = DELAY_MIN;
        }
        let delay = self.next;
        self.next = (delay * 2).min(DELAY_MAX);
        delay
    }
}

/// Takes a running process into care. `abort` ends it at once.
pub(crate) fn supervise(
    server: Server,
    admin: Option<String>,
    board: Board,
    abort: CancellationToken,
) -> Supervised {
    let stop = CancellationToken::new();
    let care = Care {
        server,
        admin,
        board,
        stop: stop.clone(),
        abort,
    };
    Supervised {
        stop,
        task: tokio::spawn(care.run()),
    }
}

struct Care {
    server: Server,
    admin: Option<String>,
    board: Board,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Care {
    async fn run(mut self) {
        let (stop, abort) = (self.stop.clone(), self.abort.clone());
        tokio::select! {
            () = self.keep_running() => {}
            () = stop.cancelled() => {}
            () = abort.cancelled() => {}
        }
        let stopped = tokio::select! {
            biased;
            () = abort.cancelled() => None,
            stopped = self.server.stop(STOP_PATIENCE) => Some(stopped),
        };
        match stopped {
            None => self.server.abort().await,
            Some(true) => {}
            Some(false) => {
                let name = &self.server.spec().name;
                say(&format!(
                    "{name} did not stop within {} s and was killed",
                    STOP_PATIENCE.as_secs()
                ));
            }
        }
    }

    /// Never ends. Everything in here only waits, so that it may be dropped at any time.
    async fn keep_running(&mut self) {
        let name = self.server.spec().name.clone();
        let log = self.server.spec().log.clone();
        let mut backoff = Backoff::new();
        let mut began = Instant::now();
        let mut answers = true;
        loop {
            let pid = self.server.pid().unwrap_or_default();
            let death = if answers {
                let status = self.server.exited().await;
                format!("{name} (pid {pid}) {}", describe(status))
            } else {
                match self.server.ready(FOREVER).await {
                    Ok(()) => {
                        let seconds = began.elapsed().as_secs_f64();
                        say(&format!("{name} (pid {pid}) is back after {seconds:.1} s"));
                        answers = true;
                        continue;
                    }
                    Err(error) => format!("{error:#}"),
                }
            };
            let mut delay = backoff.after(began.elapsed());
            say(&format!(
                "{death}; starting it again in {:.1} s",
                delay.as_secs_f64()
            ));
            loop {
                sleep(delay).await;
                let Err(error) = self.server.spawn() else {
                    break;
                };
                delay = backoff.after(Duration::ZERO);
                say(&format!(
                    "{error:#}; trying again in {:.1} s",
                    delay.as_secs_f64()
                ));
            }
            (began, answers) = (Instant::now(), false);
            let pid = self.server.pid().unwrap_or_default();
            self.board.started(&name, pid, self.admin.as_deref(), log.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_until_a_process_has_settled() {
        let mut backoff = Backoff::new();
        let delays: Vec<u128> = (0..9)
            .map(|_| backoff.after(Duration::from_secs(1)).as_millis())
            .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.after(SETTLED_AFTER), DELAY_MIN);
    }
}
