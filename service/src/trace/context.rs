//! W3C trace context, as it goes with a message.

use std::fmt;

use async_nats::HeaderMap;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use tidings_nats::HEADER_TRACE;

/// Which trace a message belongs to, and which of its spans comes before. Only of messages that are traced.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
}

impl TraceContext {
    /// What the headers of something on the bus say; None where it is not traced, and where they say nothing that can
    /// be read.
    pub fn of(headers: Option<&HeaderMap>) -> Option<Self> {
        Self::parse(headers?.get(HEADER_TRACE)?.as_str())
    }

    /// Into the headers of something on the bus.
    pub fn put(self, headers: &mut HeaderMap) {
        headers.insert(HEADER_TRACE, self.to_string());
    }

    /// Reads a `traceparent`; None also for one that says that it is not sampled.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let hex = |field: &str, length: usize| {
            field.len() == length
                && field
                    .bytes()
                    .all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
        };
        if !hex(version, 2) || version == "ff" || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
            return None;
        }
        // Later versions may append fields.
        if version == "00" && fields.next().is_some() {
            return None;
        }
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        (sampled && trace != TraceId::INVALID && span != SpanId::INVALID).then_some(Self { trace, span })
    }

    pub(super) fn of_span(context: &SpanContext) -> Self {
        Self {
            trace: context.trace_id(),
            span: context.span_id(),
        }
    }

    pub(super) fn remote(self) -> SpanContext {
        SpanContext::new(
            self.trace,
            self.span,
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        )
    }
}

/// A `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", self.trace, self.span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn it_goes_there_and_back() {
        let context = TraceContext::parse(TEXT).expect("the specification's example");
        assert_eq!(context.to_string(), TEXT);
        let mut headers = HeaderMap::new();
        assert_eq!(TraceContext::of(Some(&headers)), None);
        context.put(&mut headers);
        assert_eq!(TraceContext::of(Some(&headers)), Some(context));
        assert_eq!(TraceContext::of(None), None);
        let later = format!("01{}-more", &TEXT[2..]);
        assert_eq!(TraceContext::parse(&later), Some(context));
    }

    #[test]
    fn what_is_not_one_or_is_not_sampled_is_none() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902é-01",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }
}
