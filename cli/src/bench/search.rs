//! Search for the highest rate that goes well: by doubling, then by halving what is left between a rate that goes well
//! and one that does not.

/// Beyond, something else is wrong: no machine does that.
const RATE_MAX: f64 = 1e6;
/// Below, a step of a few seconds has too few messages to say anything.
const RATE_MIN: f64 = 1.0;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    first: f64,
    /// How far apart the two may be in the end, as a part of the lower one.
    resolution: f64,
    good: Option<f64>,
    bad: Option<f64>,
}

impl Search {
    pub(crate) const fn new(first: f64, resolution: f64) -> Self {
        Self {
            first,
            resolution,
            good: None,
            bad: None,
        }
    }

    /// The rate to try; none when it is known.
    pub(crate) fn next(&self) -> Option<f64> {
        let rate = match (self.good, self.bad) {
            (None, None) => self.first,
            (Some(good), None) => good * 2.0,
            (None, Some(bad)) => bad / 2.0,
            (Some(good), Some(bad)) if bad - good > good * self.resolution => f64::midpoint(good, bad),
            (Some(_), Some(_)) => return None,
        };
        (RATE_MIN..=RATE_MAX).contains(&rate).then_some(rate)
    }

    /// How that rate went.
    pub(crate) fn tried(&mut self, rate: f64, good: bool) {
        if good {
            self.good = Some(rate);
        } else {
            self.bad = Some(rate);
        }
    }

    /// The highest rate that went well.
    pub(crate) const fn highest(&self) -> Option<f64> {
        self.good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(first: f64, limit: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(first, 0.05);
        let mut tries = 0;
        while let Some(rate) = search.next() {
            tries += 1;
            search.tried(rate, rate <= limit);
        }
        (search.highest(), tries)
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for first in [10.0, 100.0, 5000.0] {
            let (found, tries) = search(first, 730.0);
            let found = found.expect("there is one");
            assert!(found <= 730.0 && found * 1.05 >= 730.0, "{found} from {first}");
            assert!(tries < 15, "{tries} from {first}");
        }
    }

    #[test]
    fn the_search_ends_where_there_is_no_limit() {
        assert_eq!(search(100.0, 0.0).0, None);
        assert!(search(100.0, f64::INFINITY).0.expect("all go well") > RATE_MAX / 2.0);
    }
}
