//! What an upload that is open says of itself until it is finished.

use uuid::Uuid;

use crate::database_error::Result;
use crate::metadata::Metadata;

impl Metadata {
    /// Notes how far the upload is, and what the store needs to go on from there. False if it is not the caller's
    /// any more: somebody else opened it, or it is doomed.
    pub async fn note_checkpoint(
        &self,
        blob_id: Uuid,
        fence: Uuid,
        received: u64,
        checkpoint: &serde_json::Value,
    ) -> Result<bool> {
        let done = sqlx::query!(
            "UPDATE blobs SET received = $3, checkpoint = $4, touched_at = clock_timestamp()
             WHERE blob_id = $1 AND fence = $2 AND state = 'uploading'",
            blob_id,
            fence,
            received.cast_signed(),
            checkpoint
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives the upload up, if it is still the caller's: what was written of it will be removed.
    pub async fn abandon_upload(&self, blob_id: Uuid, fence: Uuid) -> Result<()> {
        sqlx::query!(
            "UPDATE blobs SET state = 'doomed', touched_at = clock_timestamp()
             WHERE blob_id = $1 AND fence = $2 AND state = 'uploading'",
            blob_id,
            fence
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
