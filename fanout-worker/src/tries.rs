//! What a try to process an event came to, and what follows from it.

use std::any::Any;
use std::time::Duration;

/// Before the second try; doubles up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
/// Between tries at most.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// So often an event may make its handler panic.
const PANICS_MAX: u32 = 5;

/// Why a try was not the last one.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It can never be done.
    Poison(String),
    /// Time will cure it, however much of it.
    Weather(String),
    /// A newer worker can do it: it waits for that one.
    Newer(String),
}

impl Failure {
    /// Time will cure it.
    pub(crate) fn weather(reason: &str) -> Self {
        Self::Weather(reason.to_owned())
    }
}

/// The tries of one event.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    count: u32,
    panics: u32,
}

impl Tries {
    /// How a try ended that may have panicked.
    pub(crate) fn judge<T>(
        &mut self,
        tried: Result<Result<T, Failure>, Box<dyn Any + Send>>,
    ) -> Result<T, Failure> {
        self.count_one();
        tried.unwrap_or_else(|panic| {
            self.panics += 1;
            let said = said(panic.as_ref());
            Err(if self.panics < PANICS_MAX {
                Failure::Weather(format!("its handler panicked: {said}"))
            } else {
                Failure::Poison(format!("its handler panicked {} times: {said}", self.panics))
            })
        })
    }

    /// There was another one.
    pub(crate) const fn count_one(&mut self) {
        self.count += 1;
    }

    /// Whether a person should hear of it: not of each try, since weather comes to all events at once.
    pub(crate) const fn is_news(&self) -> bool {
        self.count >= 4 && self.count.is_power_of_two()
    }

    /// How many there were.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// Until the next one: doubles each time, with jitter of a half.
    pub(crate) fn delay(&self) -> Duration {
        let doubled = RETRY_DELAY_MIN * 2_u32.pow(self.count.saturating_sub(1).min(10));
        doubled
            .min(RETRY_DELAY_MAX)
            .mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }
}

/// What a panic said, up to where it may begin to quote what it stumbled over: that may be what people wrote.
fn said(panic: &(dyn Any + Send)) -> &str {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default();
    let unquoted = said
        .split(['`', '"', '\'', '[', '{', '\n'])
        .next()
        .unwrap_or_default();
    unquoted.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_panic_is_the_last_and_weather_is_endless() {
        let mut tries = Tries::default();
        for _ in 0..4 {
            let judged = tries.judge::<()>(Err(Box::new("on purpose")));
            assert!(matches!(judged, Err(Failure::Weather(_))));
            for _ in 0..100 {
                let judged = tries.judge::<()>(Ok(Err(Failure::Weather("rain".to_owned()))));
                assert!(matches!(judged, Err(Failure::Weather(_))));
            }
        }
        let judged = tries.judge::<()>(Err(Box::new("on purpose")));
        assert!(
            matches!(judged, Err(Failure::Poison(reason)) if reason == "its handler panicked 5 times: on purpose")
        );
        assert!(matches!(tries.judge(Ok(Ok(7))), Ok(7)));
    }

    #[test]
    fn a_panic_is_not_quoted_where_it_quotes() {
        for (panic, quoted) in [
            ("index out of bounds: the len is 3 but the index is 9", None),
            (
                "byte index 3 is not a char boundary; it is inside 'é' of `secret`",
                Some("byte index 3 is not a char boundary; it is inside"),
            ),
            ("no: \"secret\"", Some("no:")),
        ] {
            assert_eq!(said(&panic.to_owned()), quoted.unwrap_or(panic));
        }
        assert_eq!(said(&7), "");
    }

    #[test]
    fn delays_grow_to_their_bound() {
        for count in 1..100 {
            let delay = Tries { count, panics: 0 }.delay();
            assert!(
                delay >= RETRY_DELAY_MIN / 2 && delay <= RETRY_DELAY_MAX,
                "{delay:?}"
            );
            assert!(count > 1 || delay <= RETRY_DELAY_MIN);
            assert!(count < 9 || delay >= RETRY_DELAY_MAX / 2);
        }
    }

    #[test]
    fn news_of_an_event_become_rarer() {
        let mut tries = Tries::default();
        let mut news = Vec::new();
        for _ in 0..100 {
            tries.count_one();
            if tries.is_news() {
                news.push(tries.count());
            }
        }
        assert_eq!(news, [4, 8, 16, 32, 64]);
    }
}
