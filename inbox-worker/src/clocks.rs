//! Whether the clocks agree: this machine's, Postgres', and the one of the NATS server that leads a stream. Where
//! they do not, one of them is wrong, nobody knows which, and nothing is deleted for its age.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_metadata::{Metadata, in_time};
use tidings_protocol::Timestamp;
use tidings_service::{Condition, Context};
use tokio::time::Instant;

use crate::QUESTION_TIMEOUT;

/// Clocks that differ by more do not agree, in milliseconds.
const DIFFERENCE_MAX_MS: i64 = 60_000;
/// How often they are compared where nothing else asks.
const INTERVAL: Duration = Duration::from_secs(10);

/// What this machine's clock says.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Compares clocks, and keeps the condition `clock`. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clocks {
    own: Clock,
    metadata: Metadata,
    condition: Condition,
    /// Those that were wrong when they were read last: at most as many as there are streams, and this machine's.
    wrong: Arc<Mutex<BTreeMap<String, ClockError>>>,
}

/// A moment by Postgres' clock, which this machine's clock agrees with, and what it is since then.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Moment {
    postgres: Timestamp,
    read_at: Instant,
}

/// Why nothing may be deleted for its age now.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ClockError {
    /// Two clocks do not agree.
    #[error("the clocks of {whose} and Postgres differ by {seconds} s: nothing is deleted for its age")]
    Disagree {
        /// Whose clock was compared.
        whose: String,
        /// By how much it is ahead.
        seconds: i64,
    },
    /// Postgres cannot be asked.
    #[error("Postgres cannot be asked what time it is: {0}")]
    Unknown(String),
}

impl Clocks {
    pub(crate) fn new(context: &Context, own: Clock) -> Self {
        Self {
            own,
            metadata: context.metadata.clone(),
            condition: context.require("clock"),
            wrong: Arc::default(),
        }
    }

    /// Compares until the service is asked to stop.
    pub(crate) async fn run(&self, context: &Context) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while context
            .stopping
            .run_until_cancelled(interval.tick())
            .await
            .is_some()
        {
            // The condition says what comes of it.
            let _ = self.agreed().await;
        }
    }

    /// What time it is, if this machine's clock and Postgres' agree.
    pub(crate) async fn agreed(&self) -> Result<Moment, ClockError> {
        let before = (self.own)();
        let postgres = in_time(QUESTION_TIMEOUT, self.metadata.clock())
            .await
            .map_err(|error| ClockError::Unknown(error.to_string()))?;
        let read_at = Instant::now();
        let after = (self.own)();
        self.note("this machine", agree("this machine", before, after, postgres))?;
        Ok(Moment { postgres, read_at })
    }

    /// Checks the clock of the NATS server that leads a stream, which was read just now.
    pub(crate) fn check_leader(
        &self,
        stream: &str,
        clock: Timestamp,
        moment: Moment,
    ) -> Result<(), ClockError> {
        let whose = format!("the NATS server that leads {stream}");
        self.note(&whose, agree(&whose, clock, clock, moment.now()))
    }

    fn note(&self, whose: &str, result: Result<(), ClockError>) -> Result<(), ClockError> {
        let mut wrong = self.wrong.lock();
        match &result {
            Ok(()) => wrong.remove(whose),
            Err(error) => wrong.insert(whose.to_owned(), error.clone()),
        };
        metrics::gauge!("tidings_clocks_wrong").set(wrong.len() as f64);
        self.condition.set(&wrong.values().next().map_or(Ok(()), Err));
        result
    }
}

impl Moment {
    /// What time it is by Postgres' clock, about.
    pub(crate) fn now(self) -> Timestamp {
        Timestamp(self.postgres.0 + self.read_at.elapsed().as_millis() as i64)
    }

    /// How long ago it was read.
    pub(crate) fn age(self) -> Duration {
        self.read_at.elapsed()
    }

    /// So long ago.
    pub(crate) fn minus(self, age: Duration) -> Timestamp {
        Timestamp(self.now().0 - age.as_millis() as i64)
    }
}

/// Whether a clock that said this before and after agrees with Postgres' in between.
fn agree(whose: &str, before: Timestamp, after: Timestamp, postgres: Timestamp) -> Result<(), ClockError> {
    let ahead = if postgres < before {
        before.0 - postgres.0
    } else {
        (after.0 - postgres.0).min(0)
    };
    if ahead.abs() <= DIFFERENCE_MAX_MS {
        return Ok(());
    }
    Err(ClockError::Disagree {
        whose: whose.to_owned(),
        seconds: ahead / 1_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_the_most_that_clocks_may_differ() {
        let at = Timestamp;
        let agrees = |before, after, postgres| agree("x", at(before), at(after), at(postgres)).is_ok();
        assert!(agrees(100, 100, 100));
        assert!(agrees(60_100, 60_100, 100) && agrees(100, 100, 60_100));
        assert!(!agrees(60_101, 60_200, 100), "ahead");
        assert!(!agrees(100, 100, 60_101), "behind");
        // A slow answer says no more than that it was given in between.
        assert!(agrees(0, 500_000, 250_000));
        assert!(!agrees(0, 500_000, 560_001));
        let error = agree("x", at(3_600_000), at(3_600_000), at(0)).expect_err("an hour");
        assert_eq!(
            error.to_string(),
            "the clocks of x and Postgres differ by 3600 s: nothing is deleted for its age"
        );
    }
}
