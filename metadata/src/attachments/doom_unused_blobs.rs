//! Uploads that nobody goes on with.

use super::life::LEFT_HOURS;
use crate::database_error::Result;
use crate::metadata::Metadata;

impl Metadata {
    /// Dooms at most `limit` uploads that nobody opened or went on with for a day; returns how many. Their slots may be
    /// ready through another upload of the same content, and live for long. Blobs that nothing wants are doomed by
    /// [`Metadata::expire_attachments`], together with the slot that wanted them.
    pub async fn doom_unused_blobs(&self, limit: u32) -> Result<u64> {
        let done = sqlx::query!(
            "UPDATE blobs SET state = 'doomed', touched_at = clock_timestamp()
             WHERE blob_id IN (
                 SELECT blob_id FROM blobs
                 WHERE state = 'uploading' AND touched_at < now() - make_interval(hours => $1)
                 ORDER BY touched_at LIMIT $2 FOR UPDATE SKIP LOCKED
             )",
            LEFT_HOURS,
            i64::from(limit)
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
