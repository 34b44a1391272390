//! Attachments that were gone for long are forgotten, with who might read them.

use super::life::GONE_DAYS;
use crate::database_error::Result;
use crate::metadata::Metadata;

impl Metadata {
    /// Deletes at most `limit` attachments that were gone for 31 days, and their grants; returns how many. Call again
    /// while it reaches the limit.
    pub async fn prune_attachments(&self, limit: u32) -> Result<u64> {
        let done = sqlx::query!(
            "DELETE FROM attachments WHERE attachment_id IN (
                 SELECT attachment_id FROM attachments WHERE gone_at < now() - make_interval(days => $1)
                 ORDER BY gone_at LIMIT $2 FOR UPDATE SKIP LOCKED
             )",
            GONE_DAYS,
            i64::from(limit)
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
