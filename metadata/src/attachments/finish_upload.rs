//! An upload whose object is whole becomes what its attachment is read from.

use sqlx::{Postgres, Transaction};
use tidings_protocol::UserId;
use uuid::Uuid;

use super::life::UNNAMED_HOURS;
use super::owner_lock::owner_lock;
use crate::database_error::Result;
use crate::metadata::Metadata;
use crate::stored;

/// What an upload came to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FinishedUpload {
    /// Every attachment of this content is ready, read from this object.
    Stored,
    /// The content was stored by another upload meanwhile: the attachment is ready, and this object doomed.
    AlreadyStored,
    /// The upload is not the caller's any more, or the attachment is gone. The object is somebody else's or doomed.
    Lost,
}

/// An upload that may be finished.
struct Running {
    owner: UserId,
    attachment_id: Uuid,
}

impl Metadata {
    /// Makes the object the one that the attachment is read from. Call it when the object is whole and durable. The
    /// attachment lives for another day at least. Whoever did not hear the answer may ask again.
    pub async fn finish_upload(&self, blob_id: Uuid, fence: Uuid) -> Result<FinishedUpload> {
        let mut tx = self.begin().await?;
        let upload = match running(&mut tx, blob_id, fence).await? {
            Ok(upload) => upload,
            Err(finished) => return Ok(finished),
        };
        owner_lock(&mut tx, &upload.owner).await?;
        let alive = sqlx::query!(
            "UPDATE attachments SET expires_at = greatest(expires_at, clock_timestamp() + make_interval(hours => $2))
             WHERE attachment_id = $1 AND gone_at IS NULL",
            upload.attachment_id,
            UNNAMED_HOURS
        )
        .execute(&mut *tx)
        .await?;
        if alive.rows_affected() == 0 {
            // The blob went with its slot.
            return Ok(FinishedUpload::Lost);
        }
        let state = sqlx::query_scalar!(
            r#"UPDATE blobs SET touched_at = clock_timestamp(),
                   received = CASE WHEN other.is_stored THEN received ELSE size END,
                   state = CASE WHEN other.is_stored THEN 'doomed' ELSE 'stored' END
               FROM (
                   SELECT EXISTS (
                       SELECT FROM blobs o JOIN blobs b USING (owner, hash, size)
                       WHERE b.blob_id = $1 AND o.state = 'stored'
                   ) AS is_stored
               ) AS other
               WHERE blob_id = $1 AND fence = $2 AND state = 'uploading'
               RETURNING state"#,
            blob_id,
            fence
        )
        .fetch_optional(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(match state.as_deref() {
            Some("stored") => FinishedUpload::Stored,
            Some(_) => FinishedUpload::AlreadyStored,
            None => FinishedUpload::Lost,
        })
    }
}

/// The upload, if it is the caller's, or what it has come to.
async fn running(
    tx: &mut Transaction<'static, Postgres>,
    blob_id: Uuid,
    fence: Uuid,
) -> Result<Result<Running, FinishedUpload>> {
    let row = sqlx::query!(
        r#"SELECT owner, attachment_id, state FROM blobs WHERE blob_id = $1 AND fence = $2"#,
        blob_id,
        fence
    )
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else {
        return Ok(Err(FinishedUpload::Lost));
    };
    match (row.state.as_str(), row.attachment_id) {
        ("uploading", Some(attachment_id)) => Ok(Ok(Running {
            owner: stored::user_id(&row.owner)?,
            attachment_id,
        })),
        ("stored", _) => Ok(Err(FinishedUpload::Stored)),
        _ => Ok(Err(FinishedUpload::Lost)),
    }
}
