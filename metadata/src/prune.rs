//! What is no longer needed is deleted, a bounded piece at a time.

use crate::database_error::Result;
use crate::metadata::Metadata;

/// For how long a request is remembered, in hours.
pub const REQUEST_MEMORY_HOURS: u32 = 24;
/// For how long who *was* in a chat is kept, in days after the next change was published: longer than a message
/// can wait for its fan-out while anybody looks after the system.
pub const HISTORY_DAYS: u32 = 7;

/// How many rows one call of [`Metadata::prune`] deleted.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Of remembered requests.
    pub requests: u64,
    /// Of the outbox.
    pub outbox: u64,
}

impl Metadata {
    /// Deletes at most `limit` requests and `limit` rows of the outbox that are no longer needed. Call again while
    /// either count reaches the limit. A chat's newest row stays for ever, what is unsent always, and
    /// what says who may read an attachment as long as there is that.
    pub async fn prune(&self, limit: u32) -> Result<Pruned> {
        // now(), not clock_timestamp(), here and wherever rows are looked for by age: an index takes only what is
        // stable for the statement, and the whole table would be walked to find that nothing is old enough.
        let requests = sqlx::query!(
            "DELETE FROM requests WHERE (user_id, request_id) IN (
                 SELECT user_id, request_id FROM requests
                 WHERE requested_at < now() - make_interval(hours => $1)
                 ORDER BY requested_at LIMIT $2 FOR UPDATE SKIP LOCKED
             )",
            REQUEST_MEMORY_HOURS.cast_signed(),
            i64::from(limit)
        )
        .execute(&self.pool)
        .await?;
        let outbox = self.prune_outbox(limit).await?;
        Ok(Pruned {
            requests: requests.rows_affected(),
            outbox,
        })
    }

    /// What a grant names stays: it says who may read an attachment. Two statements: a grant that was committed
    /// before the rows were locked is seen by the second, and none can be made while they are.
    async fn prune_outbox(&self, limit: u32) -> Result<u64> {
        let mut tx = self.begin().await?;
        let old = sqlx::query_scalar!(
            "SELECT outbox_id FROM outbox o
             WHERE superseded_at < now() - make_interval(days => $1)
               AND NOT EXISTS (SELECT FROM grants g WHERE g.chat_id = o.chat_id AND g.version = o.version)
             ORDER BY superseded_at LIMIT $2 FOR UPDATE SKIP LOCKED",
            HISTORY_DAYS.cast_signed(),
            i64::from(limit)
        )
        .fetch_all(&mut *tx)
        .await?;
        let deleted = sqlx::query!(
            "DELETE FROM outbox o WHERE outbox_id = ANY ($1)
               AND NOT EXISTS (SELECT FROM grants g WHERE g.chat_id = o.chat_id AND g.version = o.version)",
            &old
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(deleted.rows_affected())
    }
}
