//! What an S3 server's answer means to us.

use object_store::Error;
use reqwest::StatusCode;

use crate::error::BlobError;

/// So much of an answer stands in an error.
const TEXT_CHARS_MAX: usize = 300;
/// What servers say, with whatever status, when they have no room.
const FULL: [&str; 4] = [
    "no free volumes",
    "No writable volumes",
    "no space left",
    "QuotaExceeded",
];

/// What a status that is no success means.
pub(crate) fn of_status(status: StatusCode, body: &str) -> BlobError {
    let text = || {
        let body: String = body.chars().take(TEXT_CHARS_MAX).collect();
        format!("{status} {body}").trim_end().to_owned()
    };
    if status == StatusCode::INSUFFICIENT_STORAGE || FULL.iter().any(|words| body.contains(words)) {
        return BlobError::Full(text());
    }
    match status {
        // A bucket is not there because somebody has not made it.
        StatusCode::NOT_FOUND if body.contains("NoSuchBucket") => BlobError::Defect(text()),
        StatusCode::NOT_FOUND => BlobError::Missing,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => BlobError::Away(text()),
        // Says the server of a body that ended early or came late.
        StatusCode::BAD_REQUEST if body.contains("RequestTimeout") || body.contains("IncompleteBody") => {
            BlobError::Away(text())
        }
        status if status.is_client_error() => BlobError::Defect(text()),
        _ => BlobError::Away(text()),
    }
}

/// What `object_store` writes before a status, which it keeps to itself otherwise. A test with a real server would
/// notice if it wrote something else.
const STATUS: &str = "status code: ";

impl From<Error> for BlobError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let status = text
            .split_once(STATUS)
            .and_then(|(_, rest)| StatusCode::from_bytes(rest.as_bytes().get(..3)?).ok());
        match (error, status) {
            (_, Some(status)) => of_status(status, &text),
            (Error::NotFound { .. }, None) => Self::Missing,
            (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, None) => Self::Defect(text),
            (_, None) => Self::Away(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_to_come_again() {
        let of = |status: u16, body| of_status(StatusCode::from_u16(status).expect("a status"), body);
        assert!(matches!(of(507, ""), BlobError::Full(_)));
        assert!(matches!(
            of(500, "assign volume: no free volumes left"),
            BlobError::Full(_)
        ));
        assert!(matches!(of(503, "SlowDown"), BlobError::Away(_)));
        assert!(matches!(of(429, ""), BlobError::Away(_)));
        assert!(matches!(of(404, "<Code>NoSuchUpload</Code>"), BlobError::Missing));
        assert!(matches!(
            of(404, "<Code>NoSuchBucket</Code>"),
            BlobError::Defect(_)
        ));
        assert!(matches!(
            of(403, "<Code>InvalidAccessKeyId</Code>"),
            BlobError::Defect(_)
        ));
    }
}
