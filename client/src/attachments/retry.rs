//! What follows an answer that is no success. Pure.

use std::time::Duration;

use reqwest::StatusCode;
use tidings_protocol::{Error, ErrorCode};

use crate::backoff::Backoff;

/// A wait longer than this is told to the application, as with other requests.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// What to do about an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Ask again, no earlier than that.
    Again(Option<Duration>),
    /// Ask again with another token.
    NewToken,
    /// The bytes are not those that were announced.
    Mismatch,
    /// Nothing of this id, as far as this user may know.
    NotFound,
    /// It has expired.
    Gone,
    /// It stays so.
    Refused,
}

/// Of a status, the error in the body, and `Retry-After`.
pub(super) fn verdict(status: StatusCode, error: Option<&Error>, retry_after: Option<Duration>) -> Verdict {
    match status.as_u16() {
        401 => return Verdict::NewToken,
        404 => return Verdict::NotFound,
        410 => return Verdict::Gone,
        _ => {}
    }
    let code = error.map(|error| &error.code);
    if code == Some(&ErrorCode::HashMismatch) {
        return Verdict::Mismatch;
    }
    // Of a slot that nobody fills: it is not for whoever downloads to wait for.
    if code == Some(&ErrorCode::AttachmentNotReady) {
        return Verdict::Refused;
    }
    let asked = error
        .and_then(|error| error.retry_after_ms)
        .map(Duration::from_millis)
        .or(retry_after);
    // 409 and 423: another request for the same upload, or an offset that is not the server's any more.
    let passes = matches!(status.as_u16(), 408 | 409 | 423 | 425 | 429) || status.is_server_error();
    if passes && asked.is_none_or(|asked| asked <= WAIT_MAX) {
        return Verdict::Again(asked);
    }
    Verdict::Refused
}

/// The wait before the next try: what the server asked for and a little more, or a back-off.
pub(super) fn wait(asked: Option<Duration>, failures: u32, jitter: f64) -> Duration {
    match asked {
        Some(asked) => asked + Backoff::CONNECT.base.mul_f64(jitter),
        None => Backoff::CONNECT.delay(failures, jitter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "the cases read better")]
    fn check(status: u16, error: Option<Error>, retry_after: Option<u64>, expected: Verdict) {
        let code = StatusCode::from_u16(status).expect("a status");
        let retry_after = retry_after.map(Duration::from_secs);
        assert_eq!(
            verdict(code, error.as_ref(), retry_after),
            expected,
            "{status} {error:?}"
        );
    }

    #[test]
    fn answers_are_told_apart() {
        check(503, None, None, Verdict::Again(None));
        check(503, None, Some(3), Verdict::Again(Some(Duration::from_secs(3))));
        let busy = Error::new(ErrorCode::RateLimited, "").retry_after_ms(200);
        check(
            429,
            Some(busy),
            Some(1),
            Verdict::Again(Some(Duration::from_millis(200))),
        );
        let spent = Error::new(ErrorCode::RateLimited, "").retry_after_ms(3_600_000);
        check(429, Some(spent), None, Verdict::Refused);
        check(423, None, None, Verdict::Again(None));
        check(409, None, None, Verdict::Again(None));
        check(507, None, None, Verdict::Again(None));
        check(401, None, None, Verdict::NewToken);
        check(404, None, None, Verdict::NotFound);
        check(410, None, None, Verdict::Gone);
        let other = Error::new(ErrorCode::HashMismatch, "");
        check(422, Some(other), None, Verdict::Mismatch);
        let empty = Error::new(ErrorCode::AttachmentNotReady, "");
        check(409, Some(empty), None, Verdict::Refused);
        check(400, None, None, Verdict::Refused);
        check(403, None, None, Verdict::Refused);
        check(413, None, None, Verdict::Refused);
    }

    #[test]
    fn waits_are_jittered() {
        assert_eq!(
            wait(Some(Duration::from_secs(2)), 0, 1.0),
            Duration::from_millis(2_500)
        );
        assert_eq!(wait(None, 3, 0.5), Duration::from_secs(2));
        assert_eq!(wait(None, 3, 0.0), Duration::ZERO);
    }
}
