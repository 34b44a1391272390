//! Latencies as HDR histograms.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Ten minutes in microseconds; whatever is slower counts as this.
const MICROSECONDS_MAX: u64 = 600_000_000;
/// Significant digits.
const DIGITS: u8 = 3;

/// Points of a curve from one nine to the next.
const CURVE_STEPS_OF_NINE: f64 = 20.0;
/// Up to 99.99999 %; nobody waits for enough messages to know more.
const CURVE_STEPS_MAX: u32 = 140;

/// Durations of one kind, to three digits, from a microsecond to ten minutes.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    microseconds: Histogram<u64>,
}

/// Percentiles in milliseconds; all zero where nothing was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// One point of a curve: so many are at most as slow.
#[derive(Copy, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CurvePoint {
    pub(crate) quantile: f64,
    pub(crate) milliseconds: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        let microseconds = Histogram::new_with_bounds(1, MICROSECONDS_MAX, DIGITS);
        Self {
            microseconds: microseconds.expect("the bounds are in order"),
        }
    }
}

impl Latencies {
    /// One more.
    pub(crate) fn record(&mut self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.saturating_record(microseconds.max(1));
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.microseconds.reset();
    }

    /// Percentiles from the fastest one on, evenly spaced by the logarithm of how many are slower, as far as there are
    /// any. Empty where nothing was measured.
    pub(crate) fn curve(&self) -> Vec<CurvePoint> {
        let histogram = &self.microseconds;
        (0..=CURVE_STEPS_MAX)
            .map(|step| 10_f64.powf(-f64::from(step) / CURVE_STEPS_OF_NINE))
            .take_while(|slower| slower * histogram.len() as f64 >= 1.0 - 1e-9)
            .map(|slower| CurvePoint {
                quantile: 1.0 - slower,
                milliseconds: histogram.value_at_quantile(1.0 - slower) as f64 / 1000.0,
            })
            .collect()
    }

    /// What was measured.
    pub(crate) fn percentiles(&self) -> Percentiles {
        let histogram = &self.microseconds;
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Percentiles {
            count: histogram.len(),
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_milliseconds() {
        let mut latencies = Latencies::default();
        for milliseconds in 1..=100 {
            latencies.record(Duration::from_millis(milliseconds));
        }
        let percentiles = latencies.percentiles();
        assert_eq!(percentiles.count, 100);
        assert!((percentiles.p50 - 50.0).abs() < 0.1, "{percentiles:?}");
        assert!((percentiles.p99 - 99.0).abs() < 0.1, "{percentiles:?}");
        assert!((percentiles.max - 100.0).abs() < 0.1, "{percentiles:?}");
    }

    #[test]
    fn a_curve_ends_where_nothing_is_slower() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.curve(), []);
        for milliseconds in 1..=1000 {
            latencies.record(Duration::from_millis(milliseconds));
        }
        let curve = latencies.curve();
        let (first, last) = (curve[0], curve[curve.len() - 1]);
        assert_eq!((curve.len(), first.quantile), (61, 0.0));
        assert!((last.quantile - 0.999).abs() < 1e-9, "{last:?}");
        assert!((first.milliseconds - 1.0).abs() < 0.01 && (last.milliseconds - 999.0).abs() < 1.1);
    }

    #[test]
    fn what_is_too_slow_or_too_fast_is_counted_all_the_same() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_hours(10));
        latencies.record(Duration::ZERO);
        assert_eq!(latencies.percentiles().count, 2);
        latencies.clear();
        assert_eq!(latencies.percentiles().count, 0);
    }
}
