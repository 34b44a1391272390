//! A message names attachments: those who are in its chat may read them from now on.

use std::collections::HashMap;

use sqlx::{Postgres, Transaction};
use tidings_protocol::{Attachment, AttachmentId, ChatId, UserId};
use uuid::Uuid;

use super::life::NAMED_DAYS;
use super::record::{AttachmentRecord, AttachmentRow};
use crate::database_error::{DatabaseError, Result};
use crate::metadata::Metadata;

/// What was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who was in the chat at this version of it may read them.
    pub version: u64,
    /// The attachments, in the order in which they were named.
    pub attachments: Vec<Attachment>,
}

/// What speaks against naming an attachment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum GrantRefusal {
    /// Its bytes are not there yet.
    NotReady,
    /// It has expired.
    Gone,
    /// There is none, as far as this user may know.
    Forbidden,
}

/// Why nothing was granted.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// One of the attachments cannot be named by this user.
    #[error("attachment {index} is refused: {why:?}")]
    Refused {
        /// The first such, among those that were named.
        index: usize,
        /// What speaks against it.
        why: GrantRefusal,
    },
    /// There is no such chat.
    #[error("there is no such chat")]
    NoChat,
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for GrantError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Metadata {
    /// Grants everybody who is in the chat now what the sender may read, all of it or nothing; it lives for 31 days
    /// from now at least. That the sender is in the chat is the caller's to know.
    pub async fn grant_attachments(
        &self,
        chat_id: ChatId,
        sender: &UserId,
        attachments: &[AttachmentId],
    ) -> Result<Grant, GrantError> {
        let mut tx = self.begin().await?;
        let found = lock_named(&mut tx, sender, attachments).await?;
        let mut named = Vec::with_capacity(attachments.len());
        for (index, attachment_id) in attachments.iter().enumerate() {
            let record =
                usable(found.get(attachment_id)).map_err(|why| GrantError::Refused { index, why })?;
            named.push(record.to_wire());
        }
        let version = sqlx::query_scalar!(
            r#"WITH chat AS (SELECT version FROM chats WHERE chat_id = $1),
               granted AS (
                   INSERT INTO grants (attachment_id, chat_id, version)
                   SELECT attachment_id, $1, version FROM chat, unnest($2::uuid[]) AS named (attachment_id)
                   ON CONFLICT DO NOTHING
               ),
               kept AS (
                   UPDATE attachments
                   SET expires_at = greatest(expires_at, clock_timestamp() + make_interval(days => $3))
                   WHERE attachment_id = ANY ($2)
               )
               SELECT version FROM chat"#,
            chat_id.0,
            &uuids(attachments),
            NAMED_DAYS
        )
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(GrantError::NoChat)?;
        tx.commit().await?;
        Ok(Grant {
            version: version.cast_unsigned(),
            attachments: named,
        })
    }

    /// Grants those who were in the chat at this version what a message there names, whoever sent it. For the fan-out, where
    /// that is another version than the one of [`Metadata::grant_attachments`]. What is not there any more is left out.
    pub async fn grant_attachments_at(
        &self,
        chat_id: ChatId,
        version: u64,
        attachments: &[AttachmentId],
    ) -> Result<()> {
        sqlx::query!(
            "WITH named AS (
                 SELECT attachment_id FROM attachments WHERE attachment_id = ANY ($3)
                 ORDER BY attachment_id FOR NO KEY UPDATE
             ),
             kept AS (
                 UPDATE attachments
                 SET expires_at = greatest(expires_at, clock_timestamp() + make_interval(days => $4))
                 FROM named WHERE attachments.attachment_id = named.attachment_id
             )
             INSERT INTO grants (attachment_id, chat_id, version)
             SELECT attachment_id, $1, $2 FROM named
             ON CONFLICT DO NOTHING",
            chat_id.0,
            version.cast_signed(),
            &uuids(attachments),
            NAMED_DAYS
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// The ids, each once: an attachment may be named twice.
fn uuids(attachments: &[AttachmentId]) -> Vec<Uuid> {
    let mut uuids: Vec<Uuid> = attachments.iter().map(|id| id.0).collect();
    uuids.sort_unstable();
    uuids.dedup();
    uuids
}

/// Locks what was named, so that it does not expire meanwhile, and reads what of it the sender may read. In the order
/// of ids: two messages that name the same must not wait for each other.
///
/// What is not gone once it is locked was not gone before, so that a blob that was stored when this statement began
/// still is.
async fn lock_named(
    tx: &mut Transaction<'static, Postgres>,
    sender: &UserId,
    attachments: &[AttachmentId],
) -> Result<HashMap<AttachmentId, AttachmentRecord>> {
    let rows = sqlx::query_as!(
        AttachmentRow,
        r#"SELECT a.attachment_id, a.owner, a.hash, a.size, a.content_type, a.name, a.expires_at,
                  a.gone_at IS NOT NULL AS "gone!",
                  (SELECT b.blob_id FROM blobs b
                   WHERE b.owner = a.owner AND b.hash = a.hash AND b.size = a.size AND b.state = 'stored'
                  ) AS "blob_id?"
           FROM attachments a
           WHERE a.attachment_id = ANY ($1) AND (a.owner = $2 OR EXISTS (
               SELECT FROM grants g JOIN outbox o ON o.chat_id = g.chat_id AND o.version = g.version
               WHERE g.attachment_id = a.attachment_id
                 AND o.change->'participants' @> jsonb_build_array(jsonb_build_object('userId', $2))
           ))
           ORDER BY a.attachment_id FOR NO KEY UPDATE OF a"#,
        &uuids(attachments),
        sender.as_str()
    )
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter()
        .map(|row| Ok((AttachmentId(row.attachment_id), row.try_into()?)))
        .collect()
}

/// The attachment, if a message may name it.
fn usable(found: Option<&AttachmentRecord>) -> Result<&AttachmentRecord, GrantRefusal> {
    match found {
        None => Err(GrantRefusal::Forbidden),
        Some(record) if record.gone => Err(GrantRefusal::Gone),
        Some(record) if record.blob_id.is_none() => Err(GrantRefusal::NotReady),
        Some(record) => Ok(record),
    }
}
