//! POST: an upload begins.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tidings_metadata::{AttachmentRecord, NewAttachment};
use tidings_protocol::{AttachmentId, UserId, check_content_type};

use super::{UPLOAD_LENGTH, UPLOAD_OFFSET, checksum, is_part, metadata, number, told};
use crate::attachments::{parse_id, refused};
use crate::bearer::Bearer;
use crate::content_type;
use crate::media::{Media, SharedMedia};
use crate::openapi::TusFailures;
use crate::refusal::Refusal;
use crate::upload::{self, Job, Way};
use crate::weather::in_time;

/// An upload begins, maybe with its first bytes.
#[utoipa::path(
    post, path = "/v1/uploads", operation_id = "tusCreate",
    params(
        ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
        ("Upload-Length" = u64, Header, description = "How many bytes the whole has"),
        ("Upload-Metadata" = String, Header, description = "`hash` (SHA-256 in hexadecimal), and maybe `contentType` \
            or `filetype`, and `name` or `filename`; or `attachmentId` of what `createAttachment` announced. Values are \
            in Base64."),
        ("Upload-Checksum" = Option<String>, Header, description = "Of this body: `sha1` or `sha256`, and the value in Base64"),
    ),
    request_body(description = "Nothing, or the first bytes with the type application/offset+octet-stream", content((Vec<u8> = "application/offset+octet-stream"))),
    responses(
        (status = 201, description = "The upload goes on at `Location`, from `Upload-Offset`, until `Upload-Expires`"),
        TusFailures
    ),
    security(("token" = [])), tag = "uploads",
)]
pub(crate) async fn create(
    State(media): State<SharedMedia>,
    Bearer(owner): Bearer,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (record, checksum) = match begin(&media, &owner, &headers).await {
        Ok(begun) => begun,
        Err(refusal) => return refused(&media, &headers, body, refusal),
    };
    let mut answer = told(&record, 0);
    answer.insert(header::LOCATION, location(&media, record.attachment_id));
    let received = if record.blob_id.is_some() {
        record.size
    } else if is_part(&headers) || record.size == 0 {
        let place = match media.places.upload(&owner) {
            Ok(place) => place,
            Err(refusal) => return refused(&media, &headers, body, refusal),
        };
        let job = Job {
            attachment_id: record.attachment_id,
            owner,
            way: Way::On { offset: 0, checksum },
        };
        match upload::receive(&media, place, job, &headers, body).await {
            Ok(received) => received.bytes,
            Err(error) => {
                // The upload is there, whatever became of its first bytes.
                let mut response = error.into_tus().into_response();
                response
                    .headers_mut()
                    .insert(header::LOCATION, location(&media, record.attachment_id));
                return response;
            }
        }
    } else {
        0
    };
    answer.insert(UPLOAD_OFFSET, received.into());
    (StatusCode::CREATED, answer).into_response()
}

async fn begin(
    media: &Media,
    owner: &UserId,
    headers: &HeaderMap,
) -> Result<(AttachmentRecord, Option<crate::spool::Checksum>), Refusal> {
    let size = number(headers, &UPLOAD_LENGTH, "Upload-Length")?
        .ok_or_else(|| Refusal::bad_request("Upload-Length", "the length of the whole is needed, at once"))?;
    media.check_size("Upload-Length", size)?;
    let checksum = checksum(headers)?;
    let metadata = metadata::read(headers)?;
    let id = match metadata.get("attachmentId") {
        Some(id) => parse_id(id)?,
        None => {
            media
                .create(&announced(owner, size, &metadata)?)
                .await?
                .attachment_id
        }
    };
    let standing = in_time(media.metadata.upload(id, owner)).await??;
    let record = standing.ok_or_else(Refusal::no_attachment)?.record;
    if record.gone {
        return Err(Refusal::attachment_gone());
    }
    if record.size != size {
        let message = format!("{} bytes were announced, not {size}", record.size);
        return Err(Refusal::bad_request("Upload-Length", message));
    }
    Ok((record, checksum))
}

/// What the metadata announces. tus' own names are `filetype` and `filename`, which its clients fill in.
fn announced(
    owner: &UserId,
    size: u64,
    metadata: &HashMap<String, String>,
) -> Result<NewAttachment, Refusal> {
    let of = |ours: &str, theirs: &str| metadata.get(ours).or_else(|| metadata.get(theirs));
    let hash = metadata
        .get("hash")
        .and_then(|hash| hash.parse().ok())
        .ok_or_else(|| {
            Refusal::bad_request(
                "hash",
                "Upload-Metadata has the SHA-256 of the whole as 64 hexadecimal digits",
            )
        })?;
    let content_type = of("contentType", "filetype").filter(|text| !text.is_empty());
    let content_type = content_type
        .map_or(content_type::DEFAULT, String::as_str)
        .to_owned();
    check_content_type("contentType", &content_type)?;
    Ok(NewAttachment {
        owner: owner.clone(),
        hash,
        size,
        content_type,
        name: of("name", "filename").filter(|name| !name.is_empty()).cloned(),
    })
}

/// Where the upload goes on.
fn location(media: &Media, attachment_id: AttachmentId) -> HeaderValue {
    let base = media
        .public_url
        .as_ref()
        .map_or("", |url| url.as_str().trim_end_matches('/'));
    HeaderValue::try_from(format!("{base}/v1/uploads/{attachment_id}")).expect("a URL is ASCII")
}
