//! Latency over time: a point a second. Pure; times are given, from the start of the load.

use std::time::Duration;

use serde::Serialize;

use super::latency::{Latencies, Percentiles};

/// What was delivered within one second.
#[derive(Copy, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Point {
    /// Seconds from the start of the load, of which this is the one that follows.
    pub(crate) second: u64,
    pub(crate) deliveries: u64,
    /// Of their latencies in milliseconds. None where nothing was delivered.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Series {
    points: Vec<Point>,
    /// Of the second that follows the last point.
    current: Latencies,
}

impl Series {
    /// One more; not before those that were recorded already, or it counts as one of the same second.
    pub(crate) fn record(&mut self, at: Duration, latency: Duration) {
        self.reach(at);
        self.current.record(latency);
    }

    /// The seconds before this moment are over.
    pub(crate) fn reach(&mut self, at: Duration) {
        while (self.points.len() as u64) < at.as_secs() {
            let Percentiles {
                count, p50, p99, max, ..
            } = self.current.percentiles();
            let if_any = |value| (count > 0).then_some(value);
            self.points.push(Point {
                second: self.points.len() as u64,
                deliveries: count,
                p50: if_any(p50),
                p99: if_any(p99),
                max: if_any(max),
            });
            self.current.clear();
        }
    }

    /// The seconds that are over.
    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_is_a_point_also_a_silent_one() {
        let milliseconds = Duration::from_millis;
        let mut series = Series::default();
        series.record(milliseconds(100), milliseconds(5));
        series.record(milliseconds(999), milliseconds(7));
        assert_eq!(series.points(), []);
        series.record(milliseconds(2000), milliseconds(9));
        series.reach(milliseconds(3000));
        let deliveries: Vec<u64> = series.points().iter().map(|point| point.deliveries).collect();
        assert_eq!(deliveries, [2, 0, 1]);
        let [first, silent, last] = series.points() else {
            panic!("three seconds");
        };
        assert_eq!((first.second, silent.second, last.second), (0, 1, 2));
        assert_eq!(silent.p99, None);
        assert!((last.p50.expect("there was one") - 9.0).abs() < 0.01);
    }
}
