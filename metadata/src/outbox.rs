//! What must be published because of what was committed.
//!
//! A row is written in the transaction that changes something, and published afterwards by whoever holds the
//! lock of its chat or user: the gateway at once, the relay for what a crash left.

use std::time::Duration;

use sqlx::types::Json;
use sqlx::{Postgres, Transaction};
use tidings_protocol::{ChatId, UserId};

use crate::chat_change::ChatChange;
use crate::database_error::Result;
use crate::metadata::Metadata;
use crate::stored;

/// Whose changes: they are published in order within a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OutboxKey {
    /// A chat's, to CHATS.
    Chat(ChatId),
    /// A user's clients', to INVALIDATIONS.
    User(UserId),
}

/// What is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboxChange {
    /// A chat's participants changed.
    Chat(ChatChange),
    /// A user's clients changed.
    User {
        /// Whose.
        user: UserId,
    },
}

/// A row that is not published yet, or not known to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Names the row to [`OutboxLock::mark_sent`].
    pub outbox_id: i64,
    /// What to publish.
    pub change: OutboxChange,
    /// Grows by one within the key; part of the message's id.
    pub version: u64,
}

/// The right to publish what the outbox holds of one key; one at a time has it, over all processes. Dropped
/// without [`OutboxLock::commit`] it forgets what was marked. Postgres takes it back after 30 s without a call.
#[derive(Debug)]
pub struct OutboxLock {
    tx: Transaction<'static, Postgres>,
    key: OutboxKey,
}

impl Metadata {
    /// Waits until nobody else publishes for this key, 5 s at most (then `Unavailable`). Holds a connection of the
    /// pool until it is committed or dropped.
    pub async fn lock_outbox(&self, key: OutboxKey) -> Result<OutboxLock> {
        let name = match &key {
            OutboxKey::Chat(chat_id) => format!("chat {chat_id}"),
            OutboxKey::User(user) => format!("user {user}"),
        };
        let mut tx = self.begin().await?;
        sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)
            .execute(&mut *tx)
            .await?;
        Ok(OutboxLock { tx, key })
    }

    /// Up to `limit` keys that have unsent rows of at least this age, the longest waiting first, without the first
    /// `skip` of them.
    pub async fn unsent_keys(&self, older_than: Duration, skip: u32, limit: u32) -> Result<Vec<OutboxKey>> {
        let rows = sqlx::query!(
            "SELECT chat_id, user_id FROM outbox
             WHERE seq IS NULL AND created_at <= now() - make_interval(secs => $1)
             GROUP BY chat_id, user_id ORDER BY min(created_at) OFFSET $2 LIMIT $3",
            older_than.as_secs_f64(),
            i64::from(skip),
            i64::from(limit)
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .filter_map(|row| match (row.chat_id, row.user_id) {
                (Some(chat_id), _) => Some(Ok(OutboxKey::Chat(chat_id.into()))),
                (None, Some(user)) => Some(stored::user_id(&user).map(OutboxKey::User)),
                (None, None) => None,
            })
            .collect()
    }

    /// How long the oldest unsent row has waited; zero if there is none.
    pub async fn outbox_age(&self) -> Result<Duration> {
        let seconds = sqlx::query_scalar!(
            r#"SELECT greatest(coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0), 0)::float8
                   AS "seconds!"
               FROM outbox WHERE seq IS NULL"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Duration::from_secs_f64(seconds))
    }

    /// The highest sequence, of CHATS or of INVALIDATIONS, that a published change has; 0 if there is none.
    pub async fn last_sequence(&self) -> Result<u64> {
        let last = sqlx::query_scalar!(r#"SELECT coalesce(max(seq), 0) AS "seq!" FROM outbox"#)
            .fetch_one(&self.pool)
            .await?;
        Ok(last as u64)
    }

    /// How far the changes of a user's clients have been told: the sequence in INVALIDATIONS of the last one that
    /// was published, 0 if there is none; absent while one is not published.
    pub async fn told_until(&self, user: &UserId) -> Result<Option<u64>> {
        let told = sqlx::query!(
            r#"SELECT coalesce(bool_or(seq IS NULL), false) AS "unsent!", coalesce(max(seq), 0) AS "seq!"
               FROM outbox WHERE user_id = $1"#,
            user.as_str()
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((!told.unsent).then_some(told.seq as u64))
    }

    /// How many rows of this key wait to be published.
    pub async fn unsent_rows(&self, key: &OutboxKey) -> Result<u64> {
        let (chat_id, user) = match key {
            OutboxKey::Chat(chat_id) => (Some(chat_id.0), None),
            OutboxKey::User(user) => (None, Some(user.as_str())),
        };
        let rows = sqlx::query_scalar!(
            r#"SELECT count(*) AS "rows!" FROM outbox WHERE seq IS NULL AND (chat_id = $1 OR user_id = $2)"#,
            chat_id,
            user
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(rows as u64)
    }
}

impl OutboxLock {
    /// The unsent rows of this key, in the order in which they must be published.
    pub async fn rows(&mut self) -> Result<Vec<OutboxRow>> {
        match self.key.clone() {
            OutboxKey::Chat(chat_id) => self.chat_rows(chat_id).await,
            OutboxKey::User(user) => self.user_rows(user).await,
        }
    }

    async fn chat_rows(&mut self, chat_id: ChatId) -> Result<Vec<OutboxRow>> {
        let rows = sqlx::query!(
            r#"SELECT outbox_id, version, change AS "change!: Json<ChatChange>" FROM outbox
               WHERE chat_id = $1 AND seq IS NULL ORDER BY version"#,
            chat_id.0
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let rows = rows.into_iter().map(|row| OutboxRow {
            outbox_id: row.outbox_id,
            change: OutboxChange::Chat(row.change.0),
            version: row.version as u64,
        });
        Ok(rows.collect())
    }

    async fn user_rows(&mut self, user: UserId) -> Result<Vec<OutboxRow>> {
        let rows = sqlx::query!(
            "SELECT outbox_id, version FROM outbox WHERE user_id = $1 AND seq IS NULL ORDER BY version",
            user.as_str()
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let rows = rows.into_iter().map(|row| OutboxRow {
            outbox_id: row.outbox_id,
            change: OutboxChange::User { user: user.clone() },
            version: row.version as u64,
        });
        Ok(rows.collect())
    }

    /// Notes the stream sequence at which a row was published. Takes effect with [`OutboxLock::commit`].
    pub async fn mark_sent(&mut self, outbox_id: i64, seq: u64) -> Result<()> {
        // A chat's row becomes history when its successor is published, a user's at once.
        sqlx::query!(
            "WITH sent AS (
                 UPDATE outbox SET seq = $2, sent_at = clock_timestamp(),
                     superseded_at = CASE WHEN user_id IS NOT NULL THEN clock_timestamp() END
                 WHERE outbox_id = $1
                 RETURNING chat_id, version
             )
             UPDATE outbox SET superseded_at = clock_timestamp()
             FROM sent WHERE outbox.chat_id = sent.chat_id AND outbox.version = sent.version - 1",
            outbox_id,
            seq as i64
        )
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Keeps what was marked, and lets the next one in.
    pub async fn commit(self) -> Result<()> {
        Ok(self.tx.commit().await?)
    }
}

/// Writes a version of a chat, in the transaction that makes it.
pub(crate) async fn write_chat_change(
    tx: &mut Transaction<'static, Postgres>,
    change: &ChatChange,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO outbox (chat_id, version, change) VALUES ($1, $2, $3)",
        change.chat_id.0,
        change.version as i64,
        Json(change) as _
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
