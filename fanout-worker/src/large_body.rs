//! A large body, stored once for all inboxes that one piece of work on an event stores it for, and who refers to it
//! (adr/0026).
//!
//! The body is this work's alone: whoever works on the event again stores one of its own. So the work knows, when it
//! ends, whether it knows every entry that refers to the body, and only then it says which those are.

use std::time::{Duration, Instant};

use foldhash::HashMap;
use parking_lot::Mutex;
use tidings_nats::{Accepted, ApiError, PublishError, Shard};

use crate::fan_out::Target;

/// How old a body may be when an entry is to refer to it. An entry is kept for 31 days at most, a body for 32: half of the
/// rest is for clocks.
const AGE_MAX: Duration = Duration::from_hours(12);
/// For so long a stream of inboxes knows an id again, with a margin: two minutes (`nats/definitions/inbox.json`). An entry
/// of which nobody said whether it was stored is known for sure when it is published again within that time.
const KNOWN_AGAIN: Duration = Duration::from_secs(90);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LargeBody {
    state: Mutex<State>,
    /// Whoever holds this stores it, the first time that somebody wants it.
    pub(crate) storing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    body: Body,
    /// Where entries are that refer to it.
    entries: Vec<(Shard, u64)>,
    /// Entries under way.
    open: usize,
    /// Entries that may have been stored, and since when.
    unknown: HashMap<Target, Instant>,
    /// An entry was left alone under way.
    lost: bool,
    closed: bool,
}

#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
enum Body {
    /// Nobody wanted it so far.
    #[default]
    None,
    /// At this sequence of BODIES.
    Stored(u64, Instant),
    /// It could not be stored. Entries are whole from then on: what is in the way of BODIES is in nobody else's way.
    Failed,
}

/// An entry under way that refers to the body.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    large: &'a LargeBody,
    /// The body's sequence in BODIES.
    pub(crate) body: u64,
    began: Instant,
    ended: bool,
}

/// What is known when the work has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// There is no body.
    Nothing,
    /// There is one, and perhaps entries that nobody knows of refer to it.
    Unknown,
    /// Its sequence in BODIES, and who refers to it: all that ever will.
    Known(u64, Vec<(Shard, u64)>),
}

impl LargeBody {
    /// Whether it is to be stored before anybody can refer to it.
    pub(crate) fn is_wanted(&self) -> bool {
        let state = self.state.lock();
        state.body == Body::None && !state.closed
    }

    /// It is stored, at this sequence, or it is not.
    pub(crate) fn stored(&self, sequence: Option<u64>, now: Instant) {
        self.state.lock().body = sequence.map_or(Body::Failed, |sequence| Body::Stored(sequence, now));
    }

    /// Begins an entry that refers to it; None if the entry is to be whole.
    pub(crate) fn refer(&self, now: Instant) -> Option<UnderWay<'_>> {
        let mut state = self.state.lock();
        let Body::Stored(body, since) = state.body else {
            return None;
        };
        if state.closed || now.saturating_duration_since(since) > AGE_MAX {
            return None;
        }
        state.open += 1;
        Some(UnderWay {
            large: self,
            body,
            began: now,
            ended: false,
        })
    }

    /// The work has ended: nothing refers to it from now on.
    pub(crate) fn close(&self) -> Closed {
        let mut state = self.state.lock();
        state.closed = true;
        let Body::Stored(body, _) = state.body else {
            return Closed::Nothing;
        };
        if state.open > 0 || state.lost || !state.unknown.is_empty() {
            return Closed::Unknown;
        }
        let mut entries = std::mem::take(&mut state.entries);
        entries.sort_unstable();
        entries.dedup();
        Closed::Known(body, entries)
    }
}

impl UnderWay<'_> {
    /// How the publish of the entry ended.
    pub(crate) fn done(
        mut self,
        target: &Target,
        shard: Shard,
        result: &Result<Accepted, PublishError>,
        now: Instant,
    ) {
        self.ended = true;
        let mut state = self.large.state.lock();
        state.open -= 1;
        match result {
            Ok(accepted) => {
                state.entries.push((shard, accepted.sequence));
                // Of an earlier try that was stored, this is the place; of one that was not, nothing is left to come.
                let is_known = |since: &Instant| now.saturating_duration_since(*since) < KNOWN_AGAIN;
                if state.unknown.get(target).is_some_and(is_known) {
                    state.unknown.remove(target);
                }
            }
            // Nothing was sent, or it was refused.
            Err(
                PublishError::Unknown(ApiError::Disconnected)
                | PublishError::SubjectFull
                | PublishError::StreamFull(_)
                | PublishError::TooLarge,
            ) => {}
            Err(PublishError::Unknown(_)) => {
                state.unknown.entry(target.clone()).or_insert(self.began);
            }
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let mut state = self.large.state.lock();
            state.open -= 1;
            state.lost = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use tidings_nats::Inbox;
    use tidings_protocol::{ClientId, UserId};
    use uuid::Uuid;

    use super::*;

    fn target(number: u128) -> Target {
        let user_id = UserId::new("alice").expect("printable");
        (user_id, Inbox::Client(ClientId(Uuid::from_u128(number))))
    }

    fn accepted(sequence: u64, duplicate: bool) -> Accepted {
        Accepted { sequence, duplicate }
    }

    fn unanswered() -> Result<Accepted, PublishError> {
        Err(PublishError::Unknown(ApiError::Timeout))
    }

    #[test]
    fn nobody_refers_to_what_is_not_there_or_too_old_or_closed() {
        let now = Instant::now();
        let large = LargeBody::default();
        assert!(large.refer(now).is_none() && large.is_wanted());
        large.stored(None, now);
        assert!(large.refer(now).is_none() && !large.is_wanted());
        assert_eq!(large.close(), Closed::Nothing);
        let large = LargeBody::default();
        large.stored(Some(7), now);
        assert!(large.refer(now + AGE_MAX).is_some());
        assert!(large.refer(now + AGE_MAX + Duration::from_secs(1)).is_none());
        large.close();
        assert!(large.refer(now).is_none());
    }

    #[test]
    fn an_entry_that_is_under_way_or_was_left_is_not_known() {
        let now = Instant::now();
        let large = LargeBody::default();
        large.stored(Some(7), now);
        let under_way = large.refer(now).expect("it is there");
        assert_eq!(large.close(), Closed::Unknown);
        drop(under_way);
        assert_eq!(large.close(), Closed::Unknown);
    }

    /// Streams of inboxes, as this work sees them: answers are lost, and what was sent may be stored all the same.
    #[test]
    fn whoever_is_said_to_refer_are_all_who_do() {
        let mut known_again = 0;
        for seed in 0..20_000_u64 {
            let mut rng = StdRng::seed_from_u64(seed);
            let large = LargeBody::default();
            let mut now = Instant::now();
            large.stored(Some(7), now);
            let (mut next, mut referring, mut known) = (1, BTreeSet::new(), HashMap::default());
            let mut all_answered = true;
            for _ in 0..rng.random_range(1..12) {
                now += Duration::from_secs(rng.random_range(0..60));
                let number = rng.random_range(0..3);
                let Some(under_way) = large.refer(now) else {
                    panic!("seed {seed}: it is there");
                };
                if rng.random_bool(0.05) {
                    all_answered = false;
                    continue;
                }
                let sent = rng.random_bool(0.8);
                let mut answer = Err(PublishError::Unknown(ApiError::Disconnected));
                if sent {
                    // Two minutes long the stream knows an id again.
                    let again = known
                        .get(&number)
                        .filter(|(at, _)| now < *at + Duration::from_mins(2));
                    let (sequence, duplicate) = match again {
                        Some((_, sequence)) => (*sequence, true),
                        None => (next, false),
                    };
                    let stored = rng.random_bool(0.7);
                    if stored && !duplicate {
                        next += 1;
                        known.insert(number, (now, sequence));
                        referring.insert((Shard(1), sequence));
                    }
                    answer = if stored && rng.random_bool(0.7) {
                        Ok(accepted(sequence, duplicate))
                    } else {
                        unanswered()
                    };
                }
                all_answered &= answer.is_ok();
                under_way.done(&target(number), Shard(1), &answer, now);
            }
            let closed = large.close();
            if all_answered {
                let entries = referring.iter().copied().collect();
                assert_eq!(closed, Closed::Known(7, entries), "seed {seed}");
            } else if let Closed::Known(7, entries) = closed {
                known_again += 1;
                let entries: BTreeSet<_> = entries.into_iter().collect();
                assert!(
                    entries.is_superset(&referring),
                    "seed {seed}: {entries:?} refer, and {referring:?} do"
                );
            }
        }
        assert!(
            known_again > 500,
            "what was sent again in time is known: {known_again}"
        );
    }

    #[test]
    fn what_is_sent_again_in_time_is_known_and_later_is_not() {
        for (after, is_known) in [(60, true), (120, false)] {
            let began = Instant::now();
            let large = LargeBody::default();
            large.stored(Some(7), began);
            let first = large.refer(began).expect("it is there");
            first.done(&target(1), Shard(1), &unanswered(), began);
            let later = began + Duration::from_secs(after);
            let second = large.refer(later).expect("it is there");
            second.done(&target(1), Shard(1), &Ok(accepted(9, false)), later);
            let expected = if is_known {
                Closed::Known(7, vec![(Shard(1), 9)])
            } else {
                Closed::Unknown
            };
            assert_eq!(large.close(), expected, "after {after} s");
        }
    }

    #[test]
    fn with_the_last_ones_gone_the_list_is_empty_and_there() {
        let now = Instant::now();
        let large = LargeBody::default();
        large.stored(Some(7), now);
        let full = large.refer(now).expect("it is there");
        full.done(&target(1), Shard(1), &Err(PublishError::SubjectFull), now);
        assert_eq!(large.close(), Closed::Known(7, vec![]));
    }
}
