//! Whether BODIES is asked to take anything at this moment. What is in its way is in nobody else's way: entries are whole
//! meanwhile, and no event waits for it, but the first one that finds it silent.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings_nats::{Accepted, ApiError, BODIES, Bus, PublishError, StreamSummary};
use tokio::sync::{Semaphore, SemaphorePermit};

/// For so long nothing is stored there after it has not answered, and no body after it was full. An election takes a
/// sixth of it, and whoever meets a longer silence waits once in half a minute.
const PAUSE: Duration = Duration::from_secs(30);
/// Bodies fill it up to seven eighths. The rest is for lists of who refers to them, without which no body goes: 512 MiB of
/// 4 GiB, where a million bodies of 4 KiB have lists of 150 bytes mostly.
const BODIES_SHARE: (u64, u64) = (7, 8);
/// How often it is asked how full it is. The largest bodies of a thousand events a second are 320 MB in that time.
const INTERVAL: Duration = Duration::from_secs(5);
/// For the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Bodies on their way at once: 4 MiB of the largest.
const BODIES_AT_ONCE: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct BodyRoom {
    bus: Bus,
    state: Mutex<State>,
    places: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    silent: Option<Instant>,
    full: Option<Instant>,
    /// As was learned last when it was asked.
    has_room: bool,
}

impl BodyRoom {
    /// Not known to have room.
    pub(crate) fn new(bus: Bus) -> Self {
        Self {
            bus,
            state: Mutex::default(),
            places: Semaphore::new(BODIES_AT_ONCE),
        }
    }

    /// Asks again and again how full it is, for ever.
    pub(crate) async fn run(&self) {
        loop {
            // Workers that were started together ask at different times.
            tokio::time::sleep(INTERVAL.mul_f64(0.9 + rand::random::<f64>() / 5.0)).await;
            self.look().await;
        }
    }

    /// Asks how full it is. Where nobody says so, there is no room for bodies: an older setup has no such stream.
    pub(crate) async fn look(&self) {
        let summary = self.bus.stream_summary(BODIES, TIMEOUT).await;
        if let Err(error) = &summary {
            tracing::debug!(%error, "not known how full BODIES is: large bodies are stored in each inbox");
        }
        self.state.lock().has_room = summary.is_ok_and(|summary| has_room(&summary));
    }

    /// A place for a body on its way.
    pub(crate) async fn place(&self) -> SemaphorePermit<'_> {
        self.places.acquire().await.expect("it is never closed")
    }

    /// Whether it takes bodies.
    pub(crate) fn takes_bodies(&self, now: Instant) -> bool {
        self.state.lock().takes_bodies(now)
    }

    /// Whether it takes lists.
    pub(crate) fn takes_lists(&self, now: Instant) -> bool {
        self.state.lock().takes_lists(now)
    }

    /// How something ended that it was to store.
    pub(crate) fn learn(&self, published: &Result<Accepted, PublishError>, now: Instant) {
        self.state.lock().learn(published, now);
    }
}

impl State {
    fn takes_bodies(&self, now: Instant) -> bool {
        self.has_room && self.takes_lists(now) && !is_within(self.full, now)
    }

    /// Small ones find room where no body does.
    fn takes_lists(&self, now: Instant) -> bool {
        !is_within(self.silent, now)
    }

    fn learn(&mut self, published: &Result<Accepted, PublishError>, now: Instant) {
        match published {
            Err(PublishError::StreamFull(_) | PublishError::SubjectFull) => self.full = Some(now),
            // Then nothing was asked.
            Ok(_) | Err(PublishError::TooLarge | PublishError::Unknown(ApiError::Disconnected)) => {}
            Err(PublishError::Unknown(_)) => self.silent = Some(now),
        }
    }
}

fn is_within(since: Option<Instant>, now: Instant) -> bool {
    since.is_some_and(|since| now < since + PAUSE)
}

fn has_room(stream: &StreamSummary) -> bool {
    let (share, whole) = BODIES_SHARE;
    stream
        .bytes_max
        .is_none_or(|max| stream.bytes < max / whole * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: ApiError) -> Result<Accepted, PublishError> {
        Err(PublishError::Unknown(error))
    }

    #[test]
    fn it_is_left_alone_for_a_while_after_it_was_silent_or_full() {
        let now = Instant::now();
        let later = now + PAUSE;
        let check = |published, bodies, lists| {
            let mut state = State {
                has_room: true,
                ..State::default()
            };
            state.learn(&published, now);
            assert_eq!(state.takes_bodies(now), bodies, "{published:?}");
            assert_eq!(state.takes_lists(now), lists, "{published:?}");
            assert!(state.takes_bodies(later) && state.takes_lists(later));
        };
        check(failed(ApiError::Timeout), false, false);
        check(failed(ApiError::NoResponders(String::new())), false, false);
        check(Err(PublishError::StreamFull(String::new())), false, true);
        check(failed(ApiError::Disconnected), true, true);
        check(Err(PublishError::TooLarge), true, true);
        let accepted = Accepted {
            sequence: 1,
            duplicate: false,
        };
        check(Ok(accepted), true, true);
        assert!(!State::default().takes_bodies(now) && State::default().takes_lists(now));
    }

    #[test]
    fn an_eighth_is_kept_for_lists() {
        let stream = |bytes, bytes_max| StreamSummary {
            name: BODIES.to_owned(),
            messages: 1,
            bytes,
            bytes_max,
            last_sequence: 1,
            first_stored_at: None,
            consumers: 0,
        };
        assert!(has_room(&stream(699, Some(800))));
        assert!(!has_room(&stream(700, Some(800))));
        assert!(has_room(&stream(700, None)));
    }
}
