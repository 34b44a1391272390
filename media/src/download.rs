//! The bytes of an answer, piece by piece.

use std::ops::Range;

use axum::body::Body;
use futures::StreamExt as _;
use tidings_blobs::BlobError;
use tidings_protocol::{AttachmentId, ErrorCode};
use uuid::Uuid;

use crate::media::Media;
use crate::refusal::Refusal;

/// A body with these bytes. A store that fails in the middle ends the connection, so that the client sees that
/// something is missing.
pub(crate) async fn body(
    media: &Media,
    attachment_id: AttachmentId,
    blob_id: Uuid,
    range: Range<u64>,
) -> Result<Body, Refusal> {
    if range.is_empty() {
        return Ok(Body::empty());
    }
    let place = media.places.download()?;
    let pieces = media.store.read(blob_id, range).await.map_err(|error| {
        tracing::warn!(attachment.id = %attachment_id, blob.id = %blob_id, %error, "an attachment cannot be read");
        refusal(&error)
    })?;
    let counter = metrics::counter!("tidings_media_download_bytes_total");
    let pieces = pieces.map(move |piece| {
        // Given back when the client has everything, or has gone.
        let _place = &place;
        match &piece {
            Ok(bytes) => counter.increment(bytes.len() as u64),
            Err(error) => {
                tracing::warn!(attachment.id = %attachment_id, blob.id = %blob_id, %error, "a download breaks off");
            }
        }
        piece
    });
    Ok(Body::from_stream(pieces))
}

/// The store's trouble, as readers hear of it.
pub(crate) fn refusal(error: &BlobError) -> Refusal {
    match error {
        BlobError::Full(_) | BlobError::Away(_) | BlobError::Busy => {
            Refusal::unavailable("the store of attachments does not answer")
        }
        // Postgres says it is there.
        BlobError::Missing | BlobError::Defect(_) => {
            Refusal::new(ErrorCode::Internal, "the store of attachments is not in order")
        }
    }
}
