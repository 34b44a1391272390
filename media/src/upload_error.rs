//! Why an upload did not come to its end.

use std::time::Duration;

use axum::http::StatusCode;
use tidings_blobs::BlobError;
use tidings_metadata::{DatabaseError, OpenUploadError};
use tidings_protocol::ErrorCode;

use crate::refusal::Refusal;
use crate::weather::Silent;

/// While somebody else writes the same upload: it ends within the next checkpoint.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// While the store is full: somebody has to make room, or what is old must expire.
const FULL_RETRY: Duration = Duration::from_mins(1);
/// A day: the slot itself ends by then.
const TOO_MANY_TRIES_RETRY: Duration = Duration::from_hours(24);

/// Why an upload did not come to its end. Each variant is counted under its name.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// There is no such slot of this user.
    NotFound,
    /// The slot has expired.
    Gone,
    /// Its bytes are there already.
    Stored,
    /// The slot was tried too often.
    TooManyTries,
    /// Another request or process writes it.
    Busy,
    /// A newer request or another process has taken it over.
    Superseded,
    /// This process ends.
    Stopping,
    /// The client has gone away in the middle.
    ClientGone,
    /// The client has sent nothing for too long.
    Silent,
    /// More came than was announced.
    TooLong,
    /// The client goes on elsewhere than the server.
    Offset(u64),
    /// What came has another checksum than the request said.
    Checksum,
    /// The whole has another hash than was announced.
    Mismatch,
    /// The store has no room.
    Full,
    /// The store does not answer.
    StoreAway,
    /// The store or this program is not in order.
    Defect,
    /// Postgres.
    Database(Refusal),
}

impl UploadError {
    /// For the counter.
    pub(crate) const fn outcome(&self) -> &'static str {
        match self {
            Self::NotFound | Self::Gone | Self::TooManyTries | Self::TooLong | Self::Offset(_) => "refused",
            Self::Stored => "already_stored",
            Self::Busy => "busy",
            Self::Superseded => "superseded",
            Self::Stopping => "stopping",
            Self::ClientGone => "client_gone",
            Self::Silent => "client_silent",
            Self::Checksum => "checksum_mismatch",
            Self::Mismatch => "hash_mismatch",
            Self::Full => "store_full",
            Self::StoreAway => "store_away",
            Self::Defect => "defect",
            Self::Database(_) => "database",
        }
    }

    /// The same where tus has a status of its own for it.
    pub(crate) fn into_tus(self) -> Refusal {
        match self {
            Self::Busy | Self::Superseded => Refusal::from(self).status(StatusCode::LOCKED),
            other => other.into(),
        }
    }
}

impl From<UploadError> for Refusal {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::NotFound => Self::no_attachment(),
            UploadError::Gone => Self::attachment_gone(),
            UploadError::Stored => Self::bad_request("Upload-Offset", "the attachment is there already")
                .status(StatusCode::CONFLICT),
            UploadError::TooManyTries => Self::limited("this was uploaded too often", TOO_MANY_TRIES_RETRY),
            UploadError::Busy => Self::unavailable("the same upload is under way elsewhere")
                .status(StatusCode::CONFLICT)
                .after(BUSY_RETRY),
            UploadError::Superseded => Self::unavailable("a newer request goes on with this upload")
                .status(StatusCode::CONFLICT)
                .after(BUSY_RETRY),
            UploadError::Stopping => Self::unavailable("this server restarts"),
            UploadError::ClientGone => Self::bad_request("body", "the body ended too early"),
            UploadError::Silent => {
                Self::unavailable("nothing was sent for too long").status(StatusCode::REQUEST_TIMEOUT)
            }
            UploadError::TooLong => Self::bad_request("body", "more bytes than were announced")
                .status(StatusCode::PAYLOAD_TOO_LARGE),
            UploadError::Offset(received) => {
                Self::bad_request("Upload-Offset", format!("the upload goes on at {received}"))
                    .status(StatusCode::CONFLICT)
                    .with(crate::tus::UPLOAD_OFFSET, received.into())
            }
            UploadError::Checksum => Self::new(
                ErrorCode::HashMismatch,
                "the bytes of this request do not have the checksum it says; they were not taken",
            )
            .status(crate::tus::checksum_mismatch())
            .at("Upload-Checksum"),
            UploadError::Mismatch => Self::new(
                ErrorCode::HashMismatch,
                "the bytes do not have the hash that was announced; nothing was stored",
            )
            .at("hash"),
            UploadError::Full => Self::unavailable("the store of attachments is full")
                .status(StatusCode::INSUFFICIENT_STORAGE)
                .after(FULL_RETRY),
            UploadError::StoreAway => Self::unavailable("the store of attachments does not answer"),
            UploadError::Defect => Self::new(ErrorCode::Internal, "the store of attachments is not in order"),
            UploadError::Database(refusal) => refusal,
        }
    }
}

impl From<BlobError> for UploadError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Full(_) => {
                tracing::error!(%error, "an upload finds no room");
                Self::Full
            }
            BlobError::Away(_) => {
                tracing::warn!(%error, "an upload finds no store");
                Self::StoreAway
            }
            BlobError::Busy => Self::Busy,
            // Its row was there when it was opened: it was removed since.
            BlobError::Missing => Self::Superseded,
            BlobError::Defect(_) => {
                tracing::error!(%error, "an upload failed");
                Self::Defect
            }
        }
    }
}

impl From<OpenUploadError> for UploadError {
    fn from(error: OpenUploadError) -> Self {
        match error {
            OpenUploadError::NotFound => Self::NotFound,
            OpenUploadError::Gone => Self::Gone,
            OpenUploadError::Stored(_) => Self::Stored,
            OpenUploadError::TooManyTries => Self::TooManyTries,
            OpenUploadError::Database(error) => Self::Database(error.into()),
        }
    }
}

impl From<DatabaseError> for UploadError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error.into())
    }
}

impl From<Silent> for UploadError {
    fn from(silent: Silent) -> Self {
        Self::Database(silent.into())
    }
}
