//! Durations, sorted.

use std::fmt;
use std::time::Duration;

/// Some durations of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    /// Sorts them.
    pub(crate) fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<_> = durations.into_iter().collect();
        sorted.sort_unstable();
        Self(sorted)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The one below which so many of a hundred lie; zero where there is none.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// How many times the 99th percentile of another one this one's is.
    pub(crate) fn p99_ratio(&self, other: &Self) -> f64 {
        self.percentile(99).as_secs_f64() / other.percentile(99).as_secs_f64().max(1e-6)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        write!(
            f,
            "{} measured, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.count(),
            ms(50),
            ms(99),
            ms(100)
        )
    }
}
