//! Spans of messages that are traced.

use std::time::SystemTime;

use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::Span as SdkSpan;

use super::TRACER;
use super::context::TraceContext;

/// On which side of what travels a span is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers a client.
    Server,
    /// Puts something on the bus.
    Producer,
    /// Takes something from the bus.
    Consumer,
    /// Neither.
    Internal,
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self::Server,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
            Kind::Internal => Self::Internal,
        }
    }
}

/// A part of a message's path, from its making until it is dropped. As large as a pointer, since whoever handles messages
/// has room for one, and most messages have none.
#[derive(Debug)]
pub struct Span(Box<SdkSpan>);

impl Span {
    /// The first span of a message, for so many of them, from 0 for none to 1 for all. None where the message is not traced.
    pub fn root(name: &'static str, kind: Kind, ratio: f64) -> Option<Self> {
        TRACER.get()?;
        (rand::random::<f64>() < ratio).then(|| Self::start(name, kind, None, None))?
    }

    /// A span that comes of another one. None where this process sends no spans.
    pub fn child(parent: TraceContext, name: &'static str, kind: Kind) -> Option<Self> {
        Self::start(name, kind, Some(parent), None)
    }

    /// The same, begun earlier.
    pub fn child_since(
        parent: TraceContext,
        name: &'static str,
        kind: Kind,
        since: SystemTime,
    ) -> Option<Self> {
        Self::start(name, kind, Some(parent), Some(since))
    }

    fn start(
        name: &'static str,
        kind: Kind,
        parent: Option<TraceContext>,
        since: Option<SystemTime>,
    ) -> Option<Self> {
        let tracer = TRACER.get()?;
        let mut builder = SpanBuilder::from_name(name).with_kind(kind.into());
        builder.start_time = since;
        let context = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(parent.remote())
        });
        metrics::counter!("tidings_trace_spans_total").increment(1);
        Some(Self(Box::new(tracer.build_with_context(builder, &context))))
    }

    /// What goes with the message, so that the next span comes of this one.
    pub fn context(&self) -> TraceContext {
        TraceContext::of_span(self.0.span_context())
    }

    /// Notes something: an id or a number, never what people wrote.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    /// Notes that this did not come to its end, and why.
    pub fn fail(&mut self, reason: impl Into<String>) {
        self.0.set_status(Status::error(reason.into()));
    }
}
