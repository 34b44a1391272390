//! Attachments that nobody needs any more go, and with the last one of a content its blob.

use std::collections::BTreeMap;

use tidings_protocol::UserId;
use uuid::Uuid;

use super::owner_lock::owner_lock;
use crate::database_error::Result;
use crate::metadata::Metadata;
use crate::stored;

impl Metadata {
    /// Marks at most `limit` attachments as gone whose time has come, and dooms the blobs that nothing wants after
    /// that. Returns how many went. Call again while it reaches the limit.
    pub async fn expire_attachments(&self, limit: u32) -> Result<u64> {
        let rows = sqlx::query!(
            "SELECT attachment_id, owner FROM attachments
             WHERE gone_at IS NULL AND expires_at < now() ORDER BY expires_at LIMIT $1",
            i64::from(limit)
        )
        .fetch_all(&self.pool)
        .await?;
        let mut by_owner: BTreeMap<UserId, Vec<Uuid>> = BTreeMap::new();
        for row in rows {
            let owner = stored::user_id(&row.owner)?;
            by_owner.entry(owner).or_default().push(row.attachment_id);
        }
        let mut gone = 0;
        for (owner, attachments) in by_owner {
            gone += self.expire_of(&owner, &attachments).await?;
        }
        Ok(gone)
    }

    /// One owner's: between the slots' end and the blobs' nobody of the same owner comes in.
    async fn expire_of(&self, owner: &UserId, attachments: &[Uuid]) -> Result<u64> {
        let mut tx = self.begin().await?;
        owner_lock(&mut tx, owner).await?;
        // Some may have been named or asked for again while this waited. Locked by id, as messages lock them.
        let gone = sqlx::query!(
            "WITH due AS (
                 SELECT attachment_id FROM attachments
                 WHERE attachment_id = ANY ($1) AND gone_at IS NULL AND expires_at < now()
                 ORDER BY attachment_id FOR NO KEY UPDATE
             )
             UPDATE attachments SET gone_at = clock_timestamp()
             FROM due WHERE attachments.attachment_id = due.attachment_id",
            attachments
        )
        .execute(&mut *tx)
        .await?;
        // A statement of its own, which sees those as gone.
        sqlx::query!(
            "UPDATE blobs b SET state = 'doomed', touched_at = clock_timestamp()
             FROM (
                 SELECT DISTINCT hash, size FROM attachments WHERE attachment_id = ANY ($2) AND gone_at IS NOT NULL
             ) AS ended
             WHERE b.owner = $1 AND b.hash = ended.hash AND b.size = ended.size AND b.state = 'stored'
               AND NOT EXISTS (
                   SELECT FROM attachments a
                   WHERE a.owner = $1 AND a.hash = b.hash AND a.size = b.size AND a.gone_at IS NULL
               )",
            owner.as_str(),
            attachments
        )
        .execute(&mut *tx)
        .await?;
        // An upload goes with its own slot: who has another of the same content begins anew.
        sqlx::query!(
            "UPDATE blobs b SET state = 'doomed', touched_at = clock_timestamp()
             FROM attachments a
             WHERE a.attachment_id = ANY ($1) AND a.gone_at IS NOT NULL
               AND b.attachment_id = a.attachment_id AND b.state = 'uploading'",
            attachments
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(gone.rows_affected())
    }
}
