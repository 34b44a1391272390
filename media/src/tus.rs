//! `/v1/uploads`: uploads that go on after an interruption, as tus 1.0 says (<https://tus.io/protocols/resumable-upload>).
//!
//! An upload's id is its attachment's, so what `createAttachment` announced can be uploaded here too. Extensions:
//! creation, creation-with-upload, expiration, termination, checksum.

mod create;
mod metadata;
mod resume;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tidings_metadata::AttachmentRecord;

pub(crate) use create::{__path_create, create};
pub(crate) use resume::{__path_patch, __path_standing, __path_terminate, patch, standing, terminate};

use axum::extract::State;

use crate::media::SharedMedia;
use crate::refusal::Refusal;
use crate::spool::Checksum;

pub(crate) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub(crate) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub(crate) const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");

/// The one version.
const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
const EXTENSIONS: HeaderValue =
    HeaderValue::from_static("creation,creation-with-upload,expiration,termination,checksum");
/// The type of bodies.
const OFFSET_OCTET_STREAM: &str = "application/offset+octet-stream";

/// tus' own status for a body with another checksum.
pub(crate) fn checksum_mismatch() -> StatusCode {
    StatusCode::from_u16(460).expect("three digits")
}

/// Around all of tus: both sides say which version they speak.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let spoken = request.headers().get(TUS_RESUMABLE);
    let understood = request.method() == Method::OPTIONS || spoken == Some(&VERSION);
    let mut response = if understood {
        next.run(request).await
    } else {
        Refusal::bad_request("Tus-Resumable", "tus 1.0.0 is spoken here")
            .status(StatusCode::PRECONDITION_FAILED)
            .with(TUS_VERSION, VERSION)
            .into_response()
    };
    response.headers_mut().insert(TUS_RESUMABLE, VERSION);
    response
}

/// What is spoken here.
#[utoipa::path(
    options, path = "/v1/uploads", operation_id = "tusOptions",
    responses((status = 204, description = "`Tus-Version`, `Tus-Extension`, `Tus-Max-Size`, `Tus-Checksum-Algorithm`")),
    tag = "uploads",
)]
pub(crate) async fn options(State(media): State<SharedMedia>) -> Response {
    let headers = [
        (TUS_VERSION, VERSION),
        (TUS_EXTENSION, EXTENSIONS),
        (TUS_MAX_SIZE, media.bytes_max.into()),
        (
            TUS_CHECKSUM_ALGORITHM,
            HeaderValue::from_static(Checksum::ALGORITHMS),
        ),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// A header that is a number.
fn number(headers: &HeaderMap, name: &HeaderName, called: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let value = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = value.and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| Refusal::bad_request(called, "a number is expected"))
}

/// `Upload-Checksum`, where there is one.
fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Refusal> {
    let Some(value) = headers.get(UPLOAD_CHECKSUM) else {
        return Ok(None);
    };
    let checksum = value.to_str().ok().and_then(Checksum::parse);
    checksum.map(Some).ok_or_else(|| {
        let message = format!("an algorithm of {} and its value in Base64", Checksum::ALGORITHMS);
        Refusal::bad_request("Upload-Checksum", message)
    })
}

/// Whether the request's body is a part of an upload.
fn is_part(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    value.is_some_and(|value| value == OFFSET_OCTET_STREAM)
}

/// What every answer about an upload says.
fn told(record: &AttachmentRecord, received: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(UPLOAD_OFFSET, received.into());
    let milliseconds = u64::try_from(record.expires_at.0).unwrap_or_default();
    let expires = std::time::UNIX_EPOCH + std::time::Duration::from_millis(milliseconds);
    let expires = httpdate::fmt_http_date(expires);
    headers.insert(
        UPLOAD_EXPIRES,
        HeaderValue::try_from(expires).expect("a date is ASCII"),
    );
    // Offsets change, and nobody may remember one.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}
