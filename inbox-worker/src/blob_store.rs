//! Whether the store is the one that this database speaks of. Another one has other bytes: removing there would remove
//! somebody else's, and what is said to be removed would stay where it is.

use std::time::Duration;

use tidings_blobs::{BlobError, BlobStore};
use tidings_metadata::{DatabaseError, Metadata, in_time};
use uuid::Uuid;

use crate::QUESTION_TIMEOUT;

/// For one small object.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why nothing is removed from the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// It belongs to another system, or the setting names another place.
    #[error(
        "--blob-store is not the store of this database: the database speaks of {expected}, and there is {}",
        found.map_or_else(|| "none".to_owned(), |found| found.to_string())
    )]
    Foreign { expected: Uuid, found: Option<Uuid> },
    /// It does not answer.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Whether anything was ever stored; an error where it was stored elsewhere.
pub(crate) async fn check(metadata: &Metadata, store: &BlobStore) -> Result<bool, StoreError> {
    let Some(expected) = in_time(QUESTION_TIMEOUT, metadata.blob_store()).await? else {
        return Ok(false);
    };
    let found = tokio::time::timeout(TIMEOUT, store.id())
        .await
        .unwrap_or_else(|_| Err(BlobError::Away("it is silent".to_owned())))?;
    if found != Some(expected) {
        return Err(StoreError::Foreign { expected, found });
    }
    Ok(true)
}
