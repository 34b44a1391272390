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
    /// either count reaches the limit. A chat's newest row stays for ever, and what is unsent always.
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
        let outbox = sqlx::query!(
            "DELETE FROM outbox WHERE outbox_id IN (
                 SELECT outbox_id FROM outbox
                 WHERE superseded_at < now() - make_interval(days => $1)
                 ORDER BY superseded_at LIMIT $2 FOR UPDATE SKIP LOCKED
             )",
            HISTORY_DAYS.cast_signed(),
            i64::from(limit)
        )
        .execute(&self.pool)
        .await?;
        Ok(Pruned {
            requests: requests.rows_affected(),
            outbox: outbox.rows_affected(),
        })
    }
}
