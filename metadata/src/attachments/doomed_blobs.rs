//! Objects to remove. Their rows go after them, so that whoever dies in between leaves a row.

use uuid::Uuid;

use crate::database_error::Result;
use crate::metadata::Metadata;

/// An object to remove.
#[derive(Clone, Debug, PartialEq)]
pub struct DoomedBlob {
    /// The object.
    pub blob_id: Uuid,
    /// What the store knew of its upload, if it was not whole.
    pub checkpoint: Option<serde_json::Value>,
}

impl Metadata {
    /// Up to `limit` objects to remove, the longest doomed first. Nothing reads them, and nobody will.
    pub async fn doomed_blobs(&self, limit: u32) -> Result<Vec<DoomedBlob>> {
        let blobs = sqlx::query_as!(
            DoomedBlob,
            "SELECT blob_id, checkpoint FROM blobs WHERE state = 'doomed' ORDER BY touched_at LIMIT $1",
            i64::from(limit)
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(blobs)
    }

    /// Notes that the object is removed. Only of one that was doomed.
    pub async fn forget_blob(&self, blob_id: Uuid) -> Result<()> {
        sqlx::query!(
            "DELETE FROM blobs WHERE blob_id = $1 AND state = 'doomed'",
            blob_id
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
