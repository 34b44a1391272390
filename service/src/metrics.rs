//! Prometheus metrics: the process's recorder, its buckets, and what every process reports of itself.
//!
//! Services use the `metrics` macros; names start with `tidings_` and end in their unit. Labels never carry the
//! ids of users, clients or chats, of which there are too many.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::metric::{Metric, describe};
use crate::process;

/// What every service measures.
const METRICS: &[Metric] = &[
    Metric::gauge("tidings_build_info", "1, with the version as a label"),
    Metric::gauge("tidings_ready", "1 while /readyz answers 200"),
    Metric::gauge("tidings_nats_connected", "1 while the connection to NATS is up"),
    Metric::gauge(
        "tidings_postgres_up",
        "1 if Postgres has answered the last time it was asked",
    ),
    Metric::counter(
        "tidings_nats_forbidden_total",
        "Things that the NATS servers forbade this process",
    ),
    Metric::counter(
        "tidings_nats_connects_total",
        "Connections to NATS that were made, the first ones included",
    ),
    Metric::counter(
        "tidings_nats_slow_consumer_messages_total",
        "Messages from NATS that were dropped because this process did not take them in time",
    ),
    Metric::counter(
        "tidings_instance_renewal_failures_total",
        "Renewals of this process's key in INSTANCES that failed",
    ),
    Metric::counter(
        "tidings_invalidations_missed_total",
        "Times that a cache was emptied because invalidations may have been missed",
    ),
    Metric::gauge("tidings_jwks_keys", "Public keys of tokens that are known"),
    Metric::counter("tidings_jwks_refreshes_total", "Readings of the JWKS").by("outcome", &["ok", "failed"]),
    Metric::counter(
        "tidings_proxy_headers_refused_total",
        "Connections that were closed for want of a good PROXY protocol header",
    ),
    Metric::counter(
        "tidings_errors_total",
        "Requests that were refused, by error code",
    )
    .as_it_happens(),
    Metric::counter(
        "tidings_cache_lookups_total",
        "Look-ups in a cache, and what came of them",
    )
    .as_it_happens(),
    Metric::counter(
        "tidings_trace_spans_total",
        "Spans of traced messages that were made",
    ),
    Metric::counter(
        "tidings_trace_spans_exported_total",
        "Spans that were sent to the collector or refused by it",
    )
    .by("outcome", &["sent", "failed"]),
    Metric::gauge("process_resident_memory_bytes", "Resident memory"),
    Metric::gauge("process_threads", "Threads"),
    Metric::gauge("process_cpu_seconds_total", "Processor time, of user and system"),
    Metric::gauge("process_open_fds", "Open file descriptors"),
    Metric::gauge("process_max_fds", "How many file descriptors may be open"),
    Metric::gauge(
        "process_start_time_seconds",
        "When the process began, in seconds since 1970",
    ),
];

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
        describe(METRICS);
        metrics::gauge!("tidings_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
        process::report();
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
