//! Traces: the path of some messages through all services, as spans for an OpenTelemetry collector.
//!
//! Gateways choose which messages are traced. From then on the choice goes with the message, as a W3C `traceparent` in the
//! headers of what is on the bus; a message without one costs a look at its headers, and nothing else. Nothing waits
//! for a collector: spans wait in a bounded queue, and what does not fit is dropped.
//!
//! Spans name chats, messages and clients by their ids, never users, and never what was said.

mod context;
mod export;
mod span;

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};

pub use self::context::TraceContext;
pub use self::span::{Kind, Span};

use self::export::{Counted, Posts};
use crate::boot_id::BootId;

/// Spans that wait for the collector, 1 KB each at most; the rest is dropped.
const QUEUE_MAX: usize = 4096;
/// Spans of one request to the collector.
const BATCH_MAX: usize = 512;
/// Between requests to the collector, where less is to be sent.
const SEND_INTERVAL: Duration = Duration::from_secs(1);
/// For a request to the collector, within which the queue takes what comes.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// What a stop waits for the last spans.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Where a collector takes traces, where only its address is given.
const PATH: &str = "/v1/traces";

/// What makes spans in this process; not there if nobody wants any.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The way to the collector.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Has the spans of this process sent to a collector, OTLP over HTTP. To be called once, in a Tokio runtime.
    pub(crate) fn start(endpoint: &url::Url, service: &'static str, boot_id: BootId) -> anyhow::Result<Self> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Posts::new(SEND_TIMEOUT)?)
            .with_endpoint(target(endpoint))
            .with_timeout(SEND_TIMEOUT)
            .build()
            .context("--otlp-endpoint")?;
        let processor = BatchSpanProcessor::builder(Counted::new(exporter))
            .with_batch_config(
                BatchConfigBuilder::default()
                    .with_max_queue_size(QUEUE_MAX)
                    .with_max_export_batch_size(BATCH_MAX)
                    .with_scheduled_delay(SEND_INTERVAL)
                    .build(),
            )
            .build();
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.namespace", "tidings"),
                KeyValue::new("service.name", service),
                KeyValue::new("service.instance.id", boot_id.to_string()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            // What is not to be traced makes no span.
            .with_sampler(Sampler::AlwaysOn)
            .with_span_processor(processor)
            .with_resource(resource)
            .build();
        // A second one in the same process, as tests have, adds nothing.
        let _ = TRACER.set(provider.tracer("tidings"));
        Ok(Self(provider))
    }

    /// Sends what waits, as far as two seconds suffice, and nothing more afterwards.
    pub(crate) async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(STOP_TIMEOUT));
        if let Ok(Err(error)) = stopped.await {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

fn target(endpoint: &url::Url) -> String {
    let mut url = endpoint.clone();
    if url.path() == "/" {
        url.set_path(PATH);
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use axum::routing::post;
    use opentelemetry::trace::Tracer as _;
    use tokio::net::TcpListener;

    use super::*;

    /// A collector that counts the bytes it was sent, and answers if it is to.
    async fn collector(answers: bool) -> (url::Url, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let bytes = Arc::new(AtomicUsize::default());
        let counted = bytes.clone();
        let route = post(async move |body: axum::body::Bytes| {
            counted.fetch_add(body.len(), Ordering::Relaxed);
            if !answers {
                std::future::pending::<()>().await;
            }
        });
        let router = axum::Router::new().route(PATH, route);
        tokio::spawn(async move { axum::serve(listener, router).await });
        (format!("http://{address}").parse().expect("a URL"), bytes)
    }

    fn traces(endpoint: &url::Url) -> Traces {
        crate::start::install_crypto_provider();
        Traces::start(endpoint, "test", BootId::random()).expect("the address is good")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stop_sends_what_waits() {
        let (endpoint, bytes) = collector(true).await;
        let traces = traces(&endpoint);
        drop(traces.0.tracer("test").start("a"));
        traces.stop().await;
        assert!(bytes.load(Ordering::Relaxed) > 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_waits_for_a_collector_that_does_not_answer() {
        let (endpoint, _) = collector(false).await;
        let traces = traces(&endpoint);
        let tracer = traces.0.tracer("test");
        let began = Instant::now();
        for _ in 0..5 * QUEUE_MAX {
            drop(tracer.start("a"));
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let began = Instant::now();
        traces.stop().await;
        assert!(began.elapsed() < 2 * STOP_TIMEOUT, "{:?}", began.elapsed());
    }

    #[test]
    fn an_address_gets_the_path_of_traces() {
        for (given, used) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://o.example/otlp/x", "https://o.example/otlp/x"),
        ] {
            assert_eq!(target(&given.parse().expect("a URL")), used);
        }
    }
}
