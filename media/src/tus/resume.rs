//! HEAD, PATCH and DELETE: how far an upload is, how it goes on, and that it does not.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tidings_metadata::{AttachmentRecord, Attempt, OpenUploadError};
use tidings_protocol::{AttachmentId, UserId};

use super::{UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET, checksum, is_part, metadata, number, told};
use crate::attachments::{body_length, refused, slot};
use crate::bearer::Bearer;
use crate::media::SharedMedia;
use crate::openapi::TusFailures;
use crate::refusal::Refusal;
use crate::upload::{self, Job, Way};
use crate::upload_error::UploadError;
use crate::weather::in_time;

/// How far the upload is.
#[utoipa::path(
    head, path = "/v1/uploads/{id}", operation_id = "tusHead",
    params(
        ("id" = uuid::Uuid, Path, description = "The upload, which is the attachment"),
        ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
    ),
    responses(
        (status = 200, description = "`Upload-Offset`, `Upload-Length`, `Upload-Metadata`, `Upload-Expires`"),
        TusFailures
    ),
    security(("token" = [])), tag = "uploads",
)]
pub(crate) async fn standing(
    State(media): State<SharedMedia>,
    Bearer(owner): Bearer,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let record = slot(&media, &owner, &id).await?;
    let received = received(&media, &owner, &record)
        .await
        .map_err(UploadError::into_tus)?;
    let mut answer = told(&record, received);
    answer.insert(UPLOAD_LENGTH, record.size.into());
    answer.insert(UPLOAD_METADATA, metadata::write(&record));
    Ok((StatusCode::OK, answer).into_response())
}

/// How many bytes the store has. Only the store knows: after a process was killed there is more than was noted. Whoever
/// asks has lost its earlier request, which ends.
async fn received(
    media: &SharedMedia,
    owner: &UserId,
    record: &AttachmentRecord,
) -> Result<u64, UploadError> {
    if record.blob_id.is_some() {
        return Ok(record.size);
    }
    let received = {
        let turn = media.turns.take(record.attachment_id).await;
        let _turn = turn.ok_or(UploadError::Busy)?;
        let opened = media
            .metadata
            .open_upload(record.attachment_id, owner, Attempt::Resume);
        let opened = match in_time(opened).await? {
            Ok(opened) => opened,
            Err(OpenUploadError::Stored(record)) => return Ok(record.size),
            Err(error) => return Err(error.into()),
        };
        let upload = media
            .store
            .resume(opened.blob_id, opened.checkpoint.as_ref())
            .await?;
        upload.received()
    };
    if received < record.size {
        return Ok(received);
    }
    // Everything came, and then the process died: who hears that nothing is missing sends nothing.
    let place = media.places.upload(owner).map_err(UploadError::Database)?;
    let job = job(record.attachment_id, owner, received, None);
    match upload::receive(media, place, job, &HeaderMap::new(), Body::empty()).await {
        Ok(received) => Ok(received.bytes),
        Err(UploadError::Stored) => Ok(record.size),
        Err(error) => Err(error),
    }
}

fn job(
    attachment_id: AttachmentId,
    owner: &UserId,
    offset: u64,
    checksum: Option<crate::spool::Checksum>,
) -> Job {
    Job {
        attachment_id,
        owner: owner.clone(),
        way: Way::On { offset, checksum },
    }
}

/// The upload goes on.
#[utoipa::path(
    patch, path = "/v1/uploads/{id}", operation_id = "tusPatch",
    params(
        ("id" = uuid::Uuid, Path, description = "The upload, which is the attachment"),
        ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
        ("Upload-Offset" = u64, Header, description = "Where this body belongs: where the upload is"),
        ("Upload-Checksum" = Option<String>, Header, description = "Of this body: `sha1` or `sha256`, and the value in Base64"),
    ),
    request_body(description = "More bytes", content((Vec<u8> = "application/offset+octet-stream"))),
    responses(
        (status = 204, description = "They were taken; the upload is at `Upload-Offset`. At its end the attachment is stored."),
        TusFailures
    ),
    security(("token" = [])), tag = "uploads",
)]
pub(crate) async fn patch(
    State(media): State<SharedMedia>,
    Bearer(owner): Bearer,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (record, job) = match part(&media, &owner, &id, &headers).await {
        Ok(part) => part,
        Err(refusal) => return refused(&media, &headers, body, refusal),
    };
    let Some(job) = job else {
        // Nothing is missing, and the client knows.
        return (StatusCode::NO_CONTENT, told(&record, record.size)).into_response();
    };
    let place = match media.places.upload(&owner) {
        Ok(place) => place,
        Err(refusal) => return refused(&media, &headers, body, refusal),
    };
    match upload::receive(&media, place, job, &headers, body).await {
        Ok(received) => (StatusCode::NO_CONTENT, told(&received.record, received.bytes)).into_response(),
        Err(error) => error.into_tus().into_response(),
    }
}

/// What a PATCH asks for; no job where everything is there.
async fn part(
    media: &SharedMedia,
    owner: &UserId,
    id: &str,
    headers: &HeaderMap,
) -> Result<(AttachmentRecord, Option<Job>), Refusal> {
    if !is_part(headers) {
        return Err(
            Refusal::bad_request("Content-Type", "application/offset+octet-stream is expected")
                .status(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        );
    }
    let offset = number(headers, &UPLOAD_OFFSET, "Upload-Offset")?
        .ok_or_else(|| Refusal::bad_request("Upload-Offset", "where the body belongs is needed"))?;
    let checksum = checksum(headers)?;
    let record = slot(media, owner, id).await?;
    let length = body_length(headers);
    if record.blob_id.is_some() {
        return if offset == record.size && length == Some(0) {
            Ok((record, None))
        } else {
            Err(UploadError::Offset(record.size).into_tus())
        };
    }
    if length.is_some_and(|length| length > record.size.saturating_sub(offset)) {
        return Err(UploadError::TooLong.into_tus());
    }
    let job = job(record.attachment_id, owner, offset, checksum);
    Ok((record, Some(job)))
}

/// The upload ends here: what came of it is removed. The slot is empty until it expires.
#[utoipa::path(
    delete, path = "/v1/uploads/{id}", operation_id = "tusTerminate",
    params(
        ("id" = uuid::Uuid, Path, description = "The upload, which is the attachment"),
        ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
    ),
    responses((status = 204, description = "What came of it is gone"), TusFailures),
    security(("token" = [])), tag = "uploads",
)]
pub(crate) async fn terminate(
    State(media): State<SharedMedia>,
    Bearer(owner): Bearer,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let record = slot(&media, &owner, &id).await?;
    let ended = upload::end(&media, record.attachment_id, &owner).await;
    ended.map_err(|error| match error {
        UploadError::Stored => {
            Refusal::bad_request("id", "the upload has come to its end; its attachment expires")
                .status(StatusCode::CONFLICT)
        }
        error => error.into_tus(),
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
