//! What a store can answer instead of doing what it is asked.

use std::io::{self, ErrorKind};

use tidings_protocol::ContentHash;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no room. It may help to come again when somebody has made some.
    #[error("the store of attachments is full: {0}")]
    Full(String),
    /// The store does not answer, or not as it should. It helps to come again.
    #[error("the store of attachments is away: {0}")]
    Away(String),
    /// Somebody else writes this upload at the moment.
    #[error("somebody else writes this upload")]
    Busy,
    /// There is no such blob, or what was there of an upload has been removed.
    #[error("the store has no such blob")]
    Missing,
    /// The store has what it never should, or refuses what it never should: an operator must look.
    #[error("the store of attachments is not in order: {0}")]
    Defect(String),
}

/// Why an upload was not made whole.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The bytes are not those that were announced. They have been removed.
    #[error(
        "{size} bytes with the SHA-256 {hash} were received, and {expected_size} with {expected} were announced"
    )]
    Mismatch {
        /// What was announced.
        expected: ContentHash,
        /// How many bytes were announced.
        expected_size: u64,
        /// The SHA-256 of what was received.
        hash: ContentHash,
        /// How many bytes were received.
        size: u64,
    },
    /// The store could not.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full(error.to_string())
            }
            _ => Self::Away(error.to_string()),
        }
    }
}
