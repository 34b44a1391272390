//! Prometheus metrics: the process's recorder, its buckets, and what every process reports of itself.
//!
//! Services use the `metrics` macros; names start with `tidings_` and end in their unit. Labels never carry the
//! ids of users, clients or chats, of which there are too many.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::process;

/// Half a millisecond to half a minute: deliveries are promised in 50 ms, take-overs in 10 s.
const SECONDS_BUCKETS: [f64; 15] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];
/// A short text to a full window.
const BYTES_BUCKETS: [f64; 7] = [64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0];
/// Batches, fan-outs, lengths of queues.
const COUNT_BUCKETS: [f64; 10] = [
    1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 10_000.0, 100_000.0,
];

/// The recorder that `/metrics` shows.
#[derive(Clone)]
pub(crate) struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the process's recorder, or gives the one that is installed already. `service` becomes a label of
    /// everything.
    pub(crate) fn install(service: &str) -> anyhow::Result<Self> {
        static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
        if let Some(handle) = INSTALLED.get() {
            return Ok(Self {
                handle: handle.clone(),
            });
        }
        // Without buckets histograms become summaries, which cannot be added up over processes.
        let handle = PrometheusBuilder::new()
            .set_buckets(&COUNT_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES_BUCKETS)?
            .add_global_label("service", service)
            .install_recorder()?;
        metrics::gauge!("tidings_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
        Ok(Self {
            handle: INSTALLED.get_or_init(|| handle).clone(),
        })
    }

    /// Sorts what histograms have collected into their buckets; without it the samples pile up. To be called
    /// every few seconds.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self) -> String {
        process::report();
        self.handle.render()
    }
}
