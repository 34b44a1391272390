//! What a client of the load generator tells: one thing that happened, and when. Clients of other processes tell it through
//! a pipe, so times are those of the machine's monotonic clock.

use std::time::Instant;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// See the module. Times are of [`now`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A message of the load was written to its sender's socket.
    Sent { number: usize, at: u64 },
    /// Its sender was told what became of it; by which code it was refused.
    Answered {
        number: usize,
        error: Option<String>,
        at: u64,
    },
    /// A message came.
    Message(Arrival),
    /// A change of a chat came; whether the chat was made in this run.
    ChatUpdate { of_this_run: bool },
    /// The server said that an inbox had lost something.
    Trimmed,
    /// A delivery of a kind that is not known here came.
    UnknownDelivery,
    /// So many deliveries are confirmed, or will not be, since the connection broke.
    Settled(u64),
    /// The client is up to date.
    CaughtUp,
    /// It had been away, and was up to date again after so many microseconds.
    Back { microseconds: u64 },
    /// It was told to leave and has left.
    Left,
    /// A try to come back was refused or failed, and another one follows.
    SentAway,
    /// A message was sent again because the reply did not come through.
    SentAgain,
    /// The server noted something, such as that a window is full.
    Notice,
    /// A connection has ended that should not have.
    Lost { who: String, why: String },
    /// The reply to a request, of a client of another process; as JSON.
    Replied { client: u32, id: u64, reply: String },
}

/// A message that came.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arrival {
    /// At which client.
    pub(crate) client: u32,
    /// Its number; none if it is not a message of this load.
    pub(crate) number: Option<usize>,
    /// Index of its chat, if that is one of this load.
    pub(crate) chat: Option<u32>,
    /// Its place in the chat.
    pub(crate) seq: u64,
    /// Whether the text is that of this load.
    pub(crate) right_text: bool,
    /// The client may have had it before, on a connection that broke.
    pub(crate) again: bool,
    pub(crate) at: u64,
}

/// Nanoseconds of the machine's monotonic clock, which all its processes share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// A moment on that clock.
pub(crate) fn nanoseconds_of(moment: Instant) -> u64 {
    let (now, instant) = (now(), Instant::now());
    let after = moment.saturating_duration_since(instant).as_nanos() as u64;
    let before = instant.saturating_duration_since(moment).as_nanos() as u64;
    now + after - before
}

/// What was a moment on that clock.
pub(crate) fn instant_of(nanoseconds: u64) -> Instant {
    let (now, instant) = (now(), Instant::now());
    let ago = std::time::Duration::from_nanos(now.saturating_sub(nanoseconds));
    instant.checked_sub(ago).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_the_same_on_both_clocks() {
        let moment = Instant::now();
        let later = moment + Duration::from_millis(1500);
        let apart = nanoseconds_of(later) - nanoseconds_of(moment);
        assert!(apart.abs_diff(1_500_000_000) < 1_000_000, "{apart}");
        let back = instant_of(nanoseconds_of(moment));
        assert!(back.max(moment) - back.min(moment) < Duration::from_millis(1));
    }
}
