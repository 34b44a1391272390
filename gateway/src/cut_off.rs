//! A gateway on the wrong side of a split: its NATS server answers, but no write succeeds and no worker is heard.
//! Whoever is connected here would hear of nothing for as long as that lasts, while the rest of the system goes on; so
//! they are sent elsewhere, and nobody is let in until a write succeeds again.
//!
//! What looks similar is told apart. While NATS cannot be reached at all, nobody can do better: sockets stay. Where
//! only the workers are gone, writes succeed: sockets stay. Where the whole cluster has lost its quorum, workers are
//! still heard through the servers that are left: sockets stay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::client::RequestErrorKind;
use tidings_nats::close_subject;
use tidings_service::{BootId, Context, Registration};

use crate::drain;
use crate::gateway::Gateway;

/// How long nothing must have worked; an election of JetStream's takes less, and so does a worker's reconnect.
const LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The server is asked for a sign of life only after nothing has worked for so long.
const QUIET: Duration = Duration::from_secs(3);
/// For that sign of life.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Over how long clients are sent elsewhere.
const SPREAD: Duration = Duration::from_secs(5);

/// Whether the gateway is cut off. Pure; the time is given.
#[derive(Debug)]
struct CutOff {
    /// The last moment that speaks against it.
    well_at: Instant,
    /// Since when it is.
    since: Option<Instant>,
}

/// What is known at one moment.
#[derive(Copy, Clone, Debug)]
struct Signs {
    /// When the last write began that succeeded.
    written_at: Instant,
    /// When a worker was heard of last.
    heard_at: Option<Instant>,
    /// Whether the NATS server answers.
    answers: bool,
}

impl CutOff {
    const fn new(now: Instant) -> Self {
        Self {
            well_at: now,
            since: None,
        }
    }

    /// Takes the signs and says whether the gateway is cut off.
    fn look(&mut self, signs: Signs, now: Instant) -> bool {
        self.well_at = self.well_at.max(signs.written_at);
        if let Some(heard_at) = signs.heard_at {
            self.well_at = self.well_at.max(heard_at);
        }
        if !signs.answers {
            self.well_at = now;
        }
        self.since = match self.since {
            // Only a write shows that it is over: beacons may come back before the quorum does.
            Some(since) => (signs.written_at <= since).then_some(since),
            None => (now >= self.well_at + LIMIT).then_some(now),
        };
        self.since.is_some()
    }
}

/// Looks every second, and obeys, until the task is dropped.
pub(crate) async fn run(gateway: Arc<Gateway>, context: Context, registration: Registration) {
    let condition = context.require("majority");
    condition.holds();
    let mut state = CutOff::new(Instant::now());
    let mut interval = tokio::time::interval(INTERVAL);
    let mut before = false;
    loop {
        interval.tick().await;
        let written_at = registration.renewed().into_std();
        let heard_at = gateway.live.heard_at();
        let quiet = written_at.max(heard_at.unwrap_or(written_at)).elapsed() >= QUIET;
        let signs = Signs {
            written_at,
            heard_at,
            answers: !quiet || answers(&context).await,
        };
        let now = state.look(signs, Instant::now());
        gateway.set_cut_off(now);
        if now && !before {
            condition.fails("no write succeeds and no worker is heard, though NATS answers");
            metrics::counter!("tidings_cut_off_total").increment(1);
            let gateway = gateway.clone();
            context.tasks.spawn(async move {
                let clients = gateway.sessions.len();
                tracing::warn!(clients, "cut off from the majority: clients are sent elsewhere");
                drain::close_all(&gateway.sessions, SPREAD).await;
            });
        }
        if before && !now {
            condition.holds();
        }
        before = now;
    }
}

/// Whether the server at the other end is alive: a request that nobody can answer is answered by it at once.
async fn answers(context: &Context) -> bool {
    if !context.nats.is_connected() {
        return false;
    }
    let nobody = close_subject(&BootId::random().to_string());
    let request = async_nats::Request::new().timeout(Some(ANSWER_TIMEOUT));
    match context.nats.client().send_request(nobody, request).await {
        Ok(_) => true,
        Err(error) => error.kind() == RequestErrorKind::NoResponders,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gateway that hears and writes until `start`, and what is seen each second from then on.
    struct World {
        start: Instant,
        state: CutOff,
    }

    impl World {
        fn new() -> Self {
            let start = Instant::now();
            Self {
                start,
                state: CutOff::new(start),
            }
        }

        /// At a second: the seconds of the last write and the last beacon, and whether NATS answers.
        fn look(&mut self, second: u64, written: u64, heard: Option<u64>, answers: bool) -> bool {
            let at = |second| self.start + Duration::from_secs(second);
            let signs = Signs {
                written_at: at(written),
                heard_at: heard.map(at),
                answers,
            };
            let now = at(second);
            self.state.look(signs, now)
        }
    }

    #[test]
    fn nothing_written_and_nobody_heard_is_cut_off() {
        let mut world = World::new();
        assert!((1..12).all(|second| !world.look(second, 2, Some(second.min(2)), true)));
        assert!(world.look(12, 2, Some(2), true));
        assert!(world.look(13, 2, Some(13), true), "a beacon is not enough");
        assert!(
            world.look(14, 12, Some(13), true),
            "nor is what was written before"
        );
        assert!(!world.look(15, 14, Some(13), true));
        assert!(!world.look(16, 14, Some(13), true));
    }

    #[test]
    fn workers_that_are_gone_are_no_reason() {
        let mut world = World::new();
        assert!((1..60).all(|second| !world.look(second, second, None, true)));
    }

    #[test]
    fn a_quorum_that_all_have_lost_is_no_reason() {
        let mut world = World::new();
        assert!((1..60).all(|second| !world.look(second, 0, Some(second), true)));
    }

    #[test]
    fn a_server_that_is_silent_is_no_reason_nor_are_the_seconds_after_it() {
        let mut world = World::new();
        assert!((1..60).all(|second| !world.look(second, 0, Some(0), false)));
        assert!((60..69).all(|second| !world.look(second, 0, Some(0), true)));
        assert!(world.look(69, 0, Some(0), true));
        assert!(
            world.look(70, 0, Some(0), false),
            "still nobody can be served here"
        );
    }
}
