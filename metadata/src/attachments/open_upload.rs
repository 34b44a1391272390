//! An upload begins, or goes on.

use sqlx::{Postgres, Transaction};
use tidings_protocol::{AttachmentId, UserId};
use uuid::Uuid;

use super::life::{UNNAMED_HOURS, UPLOADS_MAX};
use super::record::{AttachmentRecord, AttachmentRow};
use crate::database_error::{DatabaseError, Result};
use crate::metadata::Metadata;

/// What to do with an upload that is there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Give it up, and begin another.
    Fresh,
    /// Go on with it, whoever else did.
    Resume,
}

/// The right to upload an attachment's bytes, until somebody else opens it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenUpload {
    /// The object to write.
    pub blob_id: Uuid,
    /// Names this opening to the calls that follow.
    pub fence: Uuid,
    /// What the store needs to go on; absent for an upload that begins.
    pub checkpoint: Option<serde_json::Value>,
    /// How many bytes were there at that checkpoint.
    pub received: u64,
    /// The attachment.
    pub record: AttachmentRecord,
    /// The upload that was given up for this one. It is doomed, and removed sooner or later.
    pub replaced: Option<Uuid>,
}

/// Why there is nothing to upload.
#[derive(Debug, thiserror::Error)]
pub enum OpenUploadError {
    /// The user has no such attachment.
    #[error("there is no such attachment of this user")]
    NotFound,
    /// It has expired.
    #[error("the attachment is gone")]
    Gone,
    /// Its bytes are there already.
    #[error("the attachment is stored already")]
    Stored(AttachmentRecord),
    /// It was begun as often as it may be.
    #[error("the upload of this attachment was begun {UPLOADS_MAX} times")]
    TooManyTries,
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for OpenUploadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// An upload that is there.
struct Standing {
    blob_id: Uuid,
    checkpoint: Option<serde_json::Value>,
    received: i64,
}

impl Metadata {
    /// Opens the upload of an attachment of this user's. Whoever had it open before loses it. The attachment lives for another day
    /// at least. The object's row is committed when this returns, before the first byte is written.
    pub async fn open_upload(
        &self,
        attachment_id: AttachmentId,
        owner: &UserId,
        attempt: Attempt,
    ) -> Result<OpenUpload, OpenUploadError> {
        let mut tx = self.begin().await?;
        let uploads = lock_slot(&mut tx, attachment_id, owner).await?;
        let record = refreshed(&mut tx, attachment_id).await?;
        if record.gone {
            return Err(OpenUploadError::Gone);
        }
        if record.blob_id.is_some() {
            return Err(OpenUploadError::Stored(record));
        }
        let standing = sqlx::query_as!(
            Standing,
            r#"SELECT blob_id, checkpoint, received
               FROM blobs WHERE attachment_id = $1 AND state = 'uploading' FOR UPDATE"#,
            attachment_id.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        let fence = Uuid::new_v4();
        let open = match standing {
            Some(standing) if attempt == Attempt::Resume => {
                take_over(&mut tx, standing.blob_id, fence).await?;
                OpenUpload {
                    blob_id: standing.blob_id,
                    fence,
                    checkpoint: standing.checkpoint,
                    received: standing.received.cast_unsigned(),
                    record,
                    replaced: None,
                }
            }
            standing => {
                if uploads >= UPLOADS_MAX {
                    return Err(OpenUploadError::TooManyTries);
                }
                let replaced = standing.map(|standing| standing.blob_id);
                if let Some(replaced) = replaced {
                    doom(&mut tx, replaced).await?;
                }
                OpenUpload {
                    blob_id: begin(&mut tx, &record, fence).await?,
                    fence,
                    checkpoint: None,
                    received: 0,
                    record,
                    replaced,
                }
            }
        };
        tx.commit().await?;
        Ok(open)
    }
}

/// Locks the slot, and says how many uploads were begun for it.
async fn lock_slot(
    tx: &mut Transaction<'static, Postgres>,
    attachment_id: AttachmentId,
    owner: &UserId,
) -> Result<i16, OpenUploadError> {
    let uploads = sqlx::query_scalar!(
        "SELECT uploads FROM attachments WHERE attachment_id = $1 AND owner = $2 FOR NO KEY UPDATE",
        attachment_id.0,
        owner.as_str()
    )
    .fetch_optional(&mut **tx)
    .await?;
    uploads.ok_or(OpenUploadError::NotFound)
}

/// Lets the locked slot live for another day, unless it is gone, and reads it.
async fn refreshed(
    tx: &mut Transaction<'static, Postgres>,
    attachment_id: AttachmentId,
) -> Result<AttachmentRecord> {
    let row = sqlx::query_as!(
        AttachmentRow,
        r#"UPDATE attachments a
           SET expires_at = CASE WHEN gone_at IS NULL
               THEN greatest(expires_at, clock_timestamp() + make_interval(hours => $2)) ELSE expires_at END
           WHERE attachment_id = $1
           RETURNING attachment_id, owner, hash, size, content_type, name, expires_at,
               gone_at IS NOT NULL AS "gone!",
               (SELECT b.blob_id FROM blobs b
                WHERE b.owner = a.owner AND b.hash = a.hash AND b.size = a.size AND b.state = 'stored'
               ) AS "blob_id?""#,
        attachment_id.0,
        UNNAMED_HOURS
    )
    .fetch_one(&mut **tx)
    .await?;
    row.try_into()
}

async fn take_over(tx: &mut Transaction<'static, Postgres>, blob_id: Uuid, fence: Uuid) -> Result<()> {
    sqlx::query!(
        "UPDATE blobs SET fence = $2, touched_at = clock_timestamp() WHERE blob_id = $1",
        blob_id,
        fence
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn doom(tx: &mut Transaction<'static, Postgres>, blob_id: Uuid) -> Result<()> {
    sqlx::query!(
        "UPDATE blobs SET state = 'doomed', touched_at = clock_timestamp() WHERE blob_id = $1",
        blob_id
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Writes the row of a new object.
async fn begin(
    tx: &mut Transaction<'static, Postgres>,
    record: &AttachmentRecord,
    fence: Uuid,
) -> Result<Uuid> {
    let blob_id = Uuid::new_v4();
    sqlx::query!(
        "WITH counted AS (
             UPDATE attachments SET uploads = uploads + 1 WHERE attachment_id = $5
         )
         INSERT INTO blobs (blob_id, owner, hash, size, state, attachment_id, fence)
         VALUES ($1, $2, $3, $4, 'uploading', $5, $6)",
        blob_id,
        record.owner.as_str(),
        record.hash.0.as_slice(),
        record.size.cast_signed(),
        record.attachment_id.0,
        fence
    )
    .execute(&mut **tx)
    .await?;
    Ok(blob_id)
}
