//! What a metric is: each crate lists its own, so that `/metrics` explains them, and what counts what went wrong is
//! there before anything has: the first increase of a counter that was not there is none to Prometheus.

/// The kinds of metrics.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Is what it is now.
    Gauge,
    /// How often how much.
    Histogram,
}

/// A metric, as a constant of the crate that it is of.
#[derive(Copy, Clone, Debug)]
pub struct Metric {
    /// Its name, with the unit at its end.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// What it says, in one line.
    pub help: &'static str,
    /// Its label and all the values that it takes, where there is one and they are known.
    by: Option<(&'static str, &'static [&'static str])>,
    /// It has labels, and its series appear with what they are about.
    open: bool,
}

impl Metric {
    /// A counter.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::Counter, help)
    }

    /// A gauge. Whoever measures sets it: until then it is not there.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::Gauge, help)
    }

    /// A histogram.
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::Histogram, help)
    }

    const fn new(name: &'static str, kind: MetricKind, help: &'static str) -> Self {
        Self {
            name,
            kind,
            help,
            by: None,
            open: false,
        }
    }

    /// With a label that takes these values and no others; all of them are there at 0.
    #[must_use]
    pub const fn by(self, label: &'static str, values: &'static [&'static str]) -> Self {
        Self {
            by: Some((label, values)),
            ..self
        }
    }

    /// With labels of which there are too many to show what has not happened.
    #[must_use]
    pub const fn as_it_happens(self) -> Self {
        Self { open: true, ..self }
    }

    fn describe(&self) {
        match self.kind {
            MetricKind::Counter => metrics::describe_counter!(self.name, self.help),
            MetricKind::Gauge => metrics::describe_gauge!(self.name, self.help),
            MetricKind::Histogram => metrics::describe_histogram!(self.name, self.help),
        }
        match (self.kind, self.by) {
            _ if self.open => {}
            (MetricKind::Counter, None) => metrics::counter!(self.name).increment(0),
            (MetricKind::Counter, Some((label, values))) => {
                for value in values {
                    metrics::counter!(self.name, label => *value).increment(0);
                }
            }
            (MetricKind::Gauge, None) => {}
            (MetricKind::Gauge, Some((label, values))) => {
                for value in values {
                    metrics::gauge!(self.name, label => *value).set(0);
                }
            }
            // Known from now on, with nothing in its buckets.
            (MetricKind::Histogram, _) => drop(metrics::histogram!(self.name)),
        }
    }
}

/// Makes metrics known to this process's `/metrics`. To be called once, before they are used.
pub fn describe(metrics: &[Metric]) {
    for metric in metrics {
        metric.describe();
    }
}
