//! Which bytes of a whole attachment are asked for (RFC 9110 §13 and §14).

use std::num::NonZeroUsize;
use std::ops::Range;

use axum::http::{HeaderMap, header};
use headers::{ETag, HeaderMapExt as _, IfMatch, IfNoneMatch, IfRange};
use http_range_header::parse_range_header_with_max_ranges;
use tidings_protocol::ContentHash;

/// What to answer to a GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything: 200.
    Whole,
    /// These bytes: 206.
    Part(Range<u64>),
    /// There are no such bytes: 416.
    Nothing,
    /// Whoever asks has it: 304.
    NotModified,
    /// It is not what whoever asks has: 412.
    Changed,
}

/// The `ETag` of content: what it is never changes, and who knows the hash has the bytes.
pub(crate) fn etag(hash: ContentHash) -> ETag {
    format!("\"{hash}\"")
        .parse()
        .expect("hexadecimal digits in quotes")
}

/// Reads the conditions and the range of a GET. A header that cannot be read is as none. Several ranges are answered
/// with the whole, which the standard allows: no client of chats asks for them, and each costs the server a look-up.
pub(crate) fn wanted(headers: &HeaderMap, etag: &ETag, size: u64) -> Wanted {
    if let Some(condition) = conditions(headers, etag) {
        return condition;
    }
    let Some(range) = headers.get(header::RANGE) else {
        return Wanted::Whole;
    };
    if let Some(condition) = headers.typed_get::<IfRange>() {
        if condition.is_modified(Some(etag), None) {
            return Wanted::Whole;
        }
    } else if headers.contains_key(header::IF_RANGE) {
        return Wanted::Whole;
    }
    let parsed = range
        .to_str()
        .ok()
        .and_then(|text| parse_range_header_with_max_ranges(text, NonZeroUsize::MIN).ok());
    let Some(parsed) = parsed else {
        return Wanted::Whole;
    };
    match parsed.validate(size).as_deref() {
        Ok([range]) => Wanted::Part(*range.start()..range.end() + 1),
        _ => Wanted::Nothing,
    }
}

/// What the conditions say before any range.
pub(crate) fn conditions(headers: &HeaderMap, etag: &ETag) -> Option<Wanted> {
    if let Some(condition) = headers.typed_get::<IfMatch>()
        && !condition.precondition_passes(etag)
    {
        return Some(Wanted::Changed);
    }
    if let Some(condition) = headers.typed_get::<IfNoneMatch>()
        && !condition.precondition_passes(etag)
    {
        return Some(Wanted::NotModified);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "\"0000000000000000000000000000000000000000000000000000000000000000\"";

    fn ask(size: u64, given: &[(&'static str, &str)]) -> Wanted {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, value.parse().expect("a header"));
        }
        wanted(&headers, &etag(ContentHash([0; 32])), size)
    }

    #[test]
    fn one_range_is_a_part() {
        for (range, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=10-19", Wanted::Part(10..20)),
            ("bytes=90-", Wanted::Part(90..100)),
            ("bytes=90-1000", Wanted::Part(90..100)),
            ("bytes=-10", Wanted::Part(90..100)),
            ("bytes=-1000", Wanted::Part(0..100)),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=20-10", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes", Wanted::Whole),
        ] {
            assert_eq!(ask(100, &[("range", range)]), expected, "{range}");
        }
        assert_eq!(ask(0, &[("range", "bytes=0-")]), Wanted::Nothing);
    }

    #[test]
    fn conditions_come_first() {
        let range = ("range", "bytes=0-0");
        assert_eq!(ask(9, &[range, ("if-range", OURS)]), Wanted::Part(0..1));
        assert_eq!(ask(9, &[range, ("if-range", "\"other\"")]), Wanted::Whole);
        assert_eq!(ask(9, &[range, ("if-range", "W/\"weak\"")]), Wanted::Whole);
        assert_eq!(
            ask(9, &[range, ("if-range", "Sat, 29 Oct 1994 19:43:31 GMT")]),
            Wanted::Whole
        );
        assert_eq!(ask(9, &[range, ("if-range", "rubbish")]), Wanted::Whole);
        assert_eq!(ask(9, &[range, ("if-none-match", OURS)]), Wanted::NotModified);
        assert_eq!(ask(9, &[("if-none-match", "*")]), Wanted::NotModified);
        assert_eq!(ask(9, &[("if-none-match", "\"other\"")]), Wanted::Whole);
        assert_eq!(ask(9, &[("if-match", "\"other\"")]), Wanted::Changed);
        assert_eq!(ask(9, &[range, ("if-match", OURS)]), Wanted::Part(0..1));
    }
}
