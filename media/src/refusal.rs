//! Why a request was not served: the same errors as on the WebSocket, each with its status.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidings_protocol::{Error, ErrorCode};

/// How soon to come back while something is down: reconnects and elections take seconds.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: Error,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The body of such an answer.
#[derive(Serialize)]
struct Failure<'a> {
    error: &'a Error,
}

impl Refusal {
    /// With the status that the code stands for.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status: status(&code),
            error: Error::new(code, message),
            headers: Vec::new(),
        }
    }

    /// `bad_request`, about a header, a parameter or a part of one.
    pub(crate) fn bad_request(field: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message).at(field)
    }

    /// What is said of an attachment that is not there, and of one that is not for whoever asks: they must not be
    /// able to tell.
    pub(crate) fn no_attachment() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such attachment")
    }

    /// It was there.
    pub(crate) fn attachment_gone() -> Self {
        Self::new(ErrorCode::AttachmentGone, "the attachment has expired")
    }

    /// Not known whether it was done, or not done.
    pub(crate) fn unavailable(message: &str) -> Self {
        Self::new(ErrorCode::Unavailable, message).after(UNAVAILABLE_RETRY)
    }

    /// Too many or too much of something for one user.
    pub(crate) fn limited(message: impl Into<String>, after: Duration) -> Self {
        Self::new(ErrorCode::RateLimited, message).after(after)
    }

    /// With another status.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// About this field.
    pub(crate) fn at(mut self, field: &str) -> Self {
        self.error = self.error.at(field);
        self
    }

    /// With the time to wait, in the body to the millisecond and in `Retry-After` in whole seconds, rounded up: who
    /// waits as told is not told again.
    pub(crate) fn after(mut self, wait: Duration) -> Self {
        let milliseconds = wait.as_millis() as u64;
        self.error = self.error.retry_after_ms(milliseconds);
        let seconds = milliseconds.div_ceil(1000).max(1);
        self.with(header::RETRY_AFTER, seconds.into())
    }

    /// With a header.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// What the codes are in HTTP.
fn status(code: &ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Unauthorized | ErrorCode::TokenExpired => StatusCode::UNAUTHORIZED,
        ErrorCode::ClientRemoved | ErrorCode::Suspended => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::AttachmentNotReady => StatusCode::CONFLICT,
        ErrorCode::AttachmentGone => StatusCode::GONE,
        ErrorCode::HashMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let mut refusal = Self::new(error.code.clone(), "");
        let wait = error.retry_after_ms;
        refusal.error = error;
        match wait {
            Some(milliseconds) => refusal.after(Duration::from_millis(milliseconds)),
            None => refusal,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // For the log of nobody: the counter says how often, the client hears why.
        let code = self.error.code.as_str().to_owned();
        metrics::counter!("tidings_errors_total", "code" => code).increment(1);
        tracing::debug!(status = self.status.as_u16(), error.code = %self.error.code, "refused");
        let body = serde_json::to_vec(&Failure { error: &self.error }).expect("an error has string names");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // What is refused now may be served in a moment.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers.extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_rounded_up() {
        let after = |milliseconds| {
            let refusal = Refusal::limited("no", Duration::from_millis(milliseconds)).into_response();
            let value = refusal.headers().get(header::RETRY_AFTER).cloned();
            value
                .expect("it is told")
                .to_str()
                .map(str::to_owned)
                .expect("digits")
        };
        assert_eq!([after(0), after(4_000), after(4_001)], ["1", "4", "5"]);
    }
}
