//! How long to wait before trying again: exponential, with full jitter, so that many clients that lost the
//! same gateway do not come back together.

use std::time::Duration;

/// Bounds of an exponential backoff. The wait before try n is evenly spread between nothing and
/// `min(max, base * 2^n)`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest possible first wait.
    pub base: Duration,
    /// The longest possible wait at all.
    pub max: Duration,
}

impl Backoff {
    /// For connections: half a second at most the first time, 30 seconds in the long run.
    pub const CONNECT: Self = Self {
        base: Duration::from_millis(500),
        max: Duration::from_secs(30),
    };

    /// For requests that the server asks to repeat without saying when.
    pub const REQUEST: Self = Self {
        base: Duration::from_millis(250),
        max: Duration::from_secs(10),
    };

    /// The wait after `failures` earlier ones. `jitter` is evenly spread over 0 to 1.
    pub fn delay(self, failures: u32, jitter: f64) -> Duration {
        let ceiling = self.base.saturating_mul(1 << failures.min(20)).min(self.max);
        ceiling.mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_its_bound() {
        let ceilings: Vec<u64> = (0..9)
            .map(|failures| Backoff::CONNECT.delay(failures, 1.0).as_millis() as u64)
            .collect();
        assert_eq!(
            ceilings,
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]
        );
        assert_eq!(Backoff::CONNECT.delay(u32::MAX, 1.0), Backoff::CONNECT.max);
    }

    #[test]
    fn the_jitter_is_full() {
        assert_eq!(Backoff::CONNECT.delay(3, 0.0), Duration::ZERO);
        assert_eq!(Backoff::CONNECT.delay(3, 0.5), Duration::from_secs(2));
    }
}
