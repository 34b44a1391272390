//! `/v1/attachments`: whole uploads, and downloads.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use headers::{ContentLength, ContentRange, HeaderMapExt as _};
use serde::{Deserialize, Serialize};
use tidings_blobs::SignedDownload;
use tidings_metadata::{AttachmentRecord, NewAttachment};
use tidings_protocol::{AttachmentId, ContentHash, ErrorCode, UserId, check_content_type};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::bearer::Bearer;
use crate::byte_range::{self, Wanted};
use crate::download;
use crate::linger::linger;
use crate::media::{Media, SharedMedia};
use crate::openapi::{DownloadFailures, UploadFailures};
use crate::refusal::Refusal;
use crate::upload::{self, Job, Way};
use crate::weather::in_time;
use crate::{content_type, disposition};

/// How long a URL of the store is good: a download begins at once, and goes on when it has ended.
const SIGNED_FOR: std::time::Duration = std::time::Duration::from_mins(5);

/// An attachment whose bytes are there.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Uploaded {
    /// Its id: what a message names, and what is downloaded.
    attachment_id: Uuid,
    /// SHA-256 of its bytes, in lower-case hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    hash: String,
    /// How many bytes.
    size: u64,
    /// What the uploader said it is.
    content_type: String,
    /// What the uploader called it.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// True: its bytes are there.
    #[serde(rename = "uploaded")]
    #[schema(rename = "uploaded")]
    is_stored: bool,
}

/// What the URL of an upload without a slot says.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Announced {
    /// SHA-256 of the body, in hexadecimal. What has another is not stored.
    hash: Option<String>,
    /// A file name for the recipients, of 1 to 100 characters.
    name: Option<String>,
}

/// The id in a path. What is no UUID is not there either.
pub(crate) fn parse_id(text: &str) -> Result<AttachmentId, Refusal> {
    text.parse().map_err(|_| Refusal::no_attachment())
}

/// An upload in one request.
#[utoipa::path(
    post, path = "/v1/attachments", operation_id = "postAttachment",
    params(Announced),
    request_body(description = "The bytes. `Content-Length` is required; `Content-Type` is what recipients are told.", content((Vec<u8> = "application/octet-stream"))),
    responses((status = 201, description = "The attachment is stored", body = Uploaded), UploadFailures),
    security(("token" = [])), tag = "attachments",
)]
pub(crate) async fn post(
    State(media): State<SharedMedia>,
    Bearer(owner): Bearer,
    query: Result<Query<Announced>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let announced = announced(&media, &owner, query, &headers);
    let new = match announced {
        Ok(new) => new,
        Err(refusal) => return refused(&media, &headers, body, refusal),
    };
    let created = match media.create(&new).await {
        Ok(created) => created,
        Err(refusal) => return refused(&media, &headers, body, refusal),
    };
    let attachment_id = created.attachment_id;
    if created.uploaded {
        linger(&media.context, &headers, body.into_data_stream());
        return uploaded(StatusCode::CREATED, attachment_id, &new);
    }
    match whole(&media, owner, attachment_id, &headers, body).await {
        Ok(()) => uploaded(StatusCode::CREATED, attachment_id, &new),
        Err(response) => response,
    }
}

fn announced(
    media: &Media,
    owner: &UserId,
    query: Result<Query<Announced>, axum::extract::rejection::QueryRejection>,
    headers: &HeaderMap,
) -> Result<NewAttachment, Refusal> {
    let Query(query) = query.map_err(|_| Refusal::bad_request("query", "the query cannot be read"))?;
    let hash = query.hash.ok_or_else(|| {
        Refusal::bad_request(
            "hash",
            "the SHA-256 of the body is needed: ?hash=<64 hexadecimal digits>",
        )
    })?;
    let hash: ContentHash = hash
        .parse()
        .map_err(|_| Refusal::bad_request("hash", "the SHA-256 as 64 hexadecimal digits"))?;
    let size = content_length(headers)?;
    media.check_size("Content-Length", size)?;
    let content_type = match headers.get(header::CONTENT_TYPE) {
        None => content_type::DEFAULT.to_owned(),
        Some(value) => value
            .to_str()
            .map_err(|_| Refusal::bad_request("Content-Type", "a MIME type such as image/png"))?
            .to_owned(),
    };
    check_content_type("Content-Type", &content_type)?;
    Ok(NewAttachment {
        owner: owner.clone(),
        hash,
        size,
        content_type,
        name: query.name,
    })
}

/// A body of unknown length would be found too long only when it has come.
fn content_length(headers: &HeaderMap) -> Result<u64, Refusal> {
    body_length(headers).ok_or_else(|| {
        Refusal::bad_request("Content-Length", "the length of the body is needed")
            .status(StatusCode::LENGTH_REQUIRED)
    })
}

/// How long the body is, where that is said. A request that says nothing about a body has none.
pub(crate) fn body_length(headers: &HeaderMap) -> Option<u64> {
    match headers.typed_get::<ContentLength>() {
        Some(ContentLength(length)) => Some(length),
        None if headers.contains_key(header::TRANSFER_ENCODING) => None,
        None => Some(0),
    }
}

/// The bytes of a slot that was announced by `createAttachment`.
#[utoipa::path(
    put, path = "/v1/attachments/{id}", operation_id = "putAttachment",
    params(("id" = Uuid, Path, description = "The attachment")),
    request_body(description = "The bytes, as many as were announced", content((Vec<u8> = "application/octet-stream"))),
    responses(
        (status = 200, description = "The attachment was stored already; the body was not read", body = Uploaded),
        (status = 201, description = "The attachment is stored", body = Uploaded),
        UploadFailures
    ),
    security(("token" = [])), tag = "attachments",
)]
pub(crate) async fn put(
    State(media): State<SharedMedia>,
    Bearer(owner): Bearer,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let record = match slot_of_length(&media, &owner, &id, &headers).await {
        Ok(record) => record,
        Err(refusal) => return refused(&media, &headers, body, refusal),
    };
    let (attachment_id, new) = (record.attachment_id, described(&record));
    if record.blob_id.is_some() {
        linger(&media.context, &headers, body.into_data_stream());
        return uploaded(StatusCode::OK, attachment_id, &new);
    }
    match whole(&media, owner, attachment_id, &headers, body).await {
        Ok(()) => uploaded(StatusCode::CREATED, attachment_id, &new),
        Err(response) => response,
    }
}

/// The slot, if it is this user's and not gone.
pub(crate) async fn slot(media: &Media, owner: &UserId, id: &str) -> Result<AttachmentRecord, Refusal> {
    let id = parse_id(id)?;
    let standing = in_time(media.metadata.upload(id, owner)).await??;
    let record = standing.ok_or_else(Refusal::no_attachment)?.record;
    if record.gone {
        return Err(Refusal::attachment_gone());
    }
    Ok(record)
}

/// The same, if the body has as many bytes as were announced.
async fn slot_of_length(
    media: &Media,
    owner: &UserId,
    id: &str,
    headers: &HeaderMap,
) -> Result<AttachmentRecord, Refusal> {
    let record = slot(media, owner, id).await?;
    let length = content_length(headers)?;
    if length != record.size {
        let message = format!("{} bytes were announced, not {length}", record.size);
        return Err(Refusal::bad_request("Content-Length", message));
    }
    Ok(record)
}

/// Takes the body of a POST or PUT.
async fn whole(
    media: &SharedMedia,
    owner: UserId,
    attachment_id: AttachmentId,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Response> {
    let place = match media.places.upload(&owner) {
        Ok(place) => place,
        Err(refusal) => return Err(refused(media, headers, body, refusal)),
    };
    let job = Job {
        attachment_id,
        owner,
        way: Way::Whole,
    };
    match upload::receive(media, place, job, headers, body).await {
        // Somebody else, maybe an earlier try, has brought it to its end.
        Ok(_) | Err(crate::upload_error::UploadError::Stored) => Ok(()),
        Err(error) => Err(Refusal::from(error).into_response()),
    }
}

/// A refusal before anything was read.
pub(crate) fn refused(media: &Media, headers: &HeaderMap, body: Body, refusal: Refusal) -> Response {
    linger(&media.context, headers, body.into_data_stream());
    refusal.into_response()
}

fn described(record: &AttachmentRecord) -> NewAttachment {
    NewAttachment {
        owner: record.owner.clone(),
        hash: record.hash,
        size: record.size,
        content_type: record.content_type.clone(),
        name: record.name.clone(),
    }
}

fn uploaded(status: StatusCode, attachment_id: AttachmentId, new: &NewAttachment) -> Response {
    let uploaded = Uploaded {
        attachment_id: attachment_id.0,
        hash: new.hash.to_string(),
        size: new.size,
        content_type: new.content_type.clone(),
        name: new.name.clone(),
        is_stored: true,
    };
    (status, axum::Json(uploaded)).into_response()
}

/// The bytes, or a range of them.
#[utoipa::path(
    get, path = "/v1/attachments/{id}", operation_id = "getAttachment",
    params(
        ("id" = Uuid, Path, description = "The attachment"),
        ("Range" = Option<String>, Header, description = "One range of bytes; several are answered with the whole"),
        ("If-Range" = Option<String>, Header, description = "The ETag of what is there already"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of what is there already"),
    ),
    responses(
        (status = 200, description = "The bytes, as the type that the uploader said", content((Vec<u8> = "application/octet-stream"))),
        (status = 206, description = "The range", content((Vec<u8> = "application/octet-stream"))),
        (status = 304, description = "What is there already is what it is"),
        (status = 307, description = "The bytes are at `Location` for some minutes, without a token; only where the operator has set it so"),
        (status = 412, description = "`If-Match` names something else"),
        (status = 416, description = "There are no such bytes"),
        DownloadFailures
    ),
    security(("token" = [])), tag = "attachments",
)]
pub(crate) async fn get(
    State(media): State<SharedMedia>,
    Bearer(reader): Bearer,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    serve(&media, &reader, &id, &Method::GET, &headers).await
}

/// What GET says, without the bytes.
#[utoipa::path(
    head, path = "/v1/attachments/{id}", operation_id = "headAttachment",
    params(("id" = Uuid, Path, description = "The attachment")),
    responses((status = 200, description = "What a GET would say"), DownloadFailures),
    security(("token" = [])), tag = "attachments",
)]
pub(crate) async fn head(
    State(media): State<SharedMedia>,
    Bearer(reader): Bearer,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    serve(&media, &reader, &id, &Method::HEAD, &headers).await
}

async fn serve(
    media: &SharedMedia,
    reader: &UserId,
    id: &str,
    method: &Method,
    request: &HeaderMap,
) -> Result<Response, Refusal> {
    let id = parse_id(id)?;
    let record = in_time(media.metadata.attachment(id, reader)).await??;
    let record = record.ok_or_else(Refusal::no_attachment)?;
    if record.gone {
        return Err(Refusal::attachment_gone());
    }
    let Some(blob_id) = record.blob_id else {
        return Err(Refusal::new(
            ErrorCode::AttachmentNotReady,
            "the attachment's bytes are not there yet",
        ));
    };
    let etag = byte_range::etag(record.hash);
    let mut answer = HeaderMap::new();
    answer.typed_insert(etag.clone());
    answer.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    let wanted = if *method == Method::GET {
        byte_range::wanted(request, &etag, record.size)
    } else {
        byte_range::conditions(request, &etag).unwrap_or(Wanted::Whole)
    };
    let (status, range) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0..record.size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::NotModified => return Ok((StatusCode::NOT_MODIFIED, answer).into_response()),
        Wanted::Changed => {
            return Err(Refusal::bad_request("If-Match", "the attachment is another")
                .status(StatusCode::PRECONDITION_FAILED));
        }
        Wanted::Nothing => {
            let value = format!("bytes */{}", record.size).try_into().expect("digits");
            return Err(
                Refusal::bad_request("Range", format!("the attachment has {} bytes", record.size))
                    .status(StatusCode::RANGE_NOT_SATISFIABLE)
                    .with(header::CONTENT_RANGE, value),
            );
        }
    };
    answer.insert(
        header::CONTENT_TYPE,
        content_type::header_value(&record.content_type),
    );
    let disposition = disposition::header_value(&record.content_type, record.name.as_deref());
    answer.insert(header::CONTENT_DISPOSITION, disposition);
    answer.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    answer.typed_insert(ContentLength(range.end - range.start));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = ContentRange::bytes(range.clone(), record.size).expect("the range is not empty");
        answer.typed_insert(value);
    }
    if *method == Method::HEAD {
        return Ok((status, answer).into_response());
    }
    if media.redirect
        && let Some(redirect) = redirect(media, blob_id, &answer).await?
    {
        return Ok(redirect);
    }
    let body = download::body(media, id, blob_id, range).await?;
    Ok((status, answer, body).into_response())
}

/// Sends the client to the store, where the store can be reached so.
async fn redirect(media: &Media, blob_id: Uuid, answer: &HeaderMap) -> Result<Option<Response>, Refusal> {
    let text = |name| {
        let value = answer.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let signed = SignedDownload {
        content_type: text(header::CONTENT_TYPE),
        disposition: text(header::CONTENT_DISPOSITION),
    };
    let url = media.store.signed_url(blob_id, &signed, SIGNED_FOR).await;
    let Some(url) = url.map_err(|error| download::refusal(&error))? else {
        return Ok(None);
    };
    let location = HeaderValue::try_from(url.as_str())
        .map_err(|_| Refusal::new(ErrorCode::Internal, "the store's URL is none"))?;
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok(Some((StatusCode::TEMPORARY_REDIRECT, headers).into_response()))
}
