//! How far an upload is.

use tidings_protocol::{AttachmentId, UserId};

use super::record::{AttachmentRecord, AttachmentRow};
use crate::database_error::Result;
use crate::metadata::Metadata;

/// How far the upload of an attachment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadStanding {
    /// The attachment, which may be gone.
    pub record: AttachmentRecord,
    /// Bytes that are safe: all of them once it is stored. More may have come since the last checkpoint.
    pub received: u64,
}

impl Metadata {
    /// How far the upload of this user's attachment is; absent if the user has no such attachment.
    pub async fn upload(
        &self,
        attachment_id: AttachmentId,
        owner: &UserId,
    ) -> Result<Option<UploadStanding>> {
        let row = sqlx::query!(
            r#"SELECT a.attachment_id, a.owner, a.hash, a.size, a.content_type, a.name, a.expires_at,
                      a.gone_at IS NOT NULL AS "gone!", b.blob_id AS "blob_id?", u.received AS "received?"
               FROM attachments a
               LEFT JOIN blobs b
                   ON b.owner = a.owner AND b.hash = a.hash AND b.size = a.size AND b.state = 'stored'
               LEFT JOIN blobs u ON u.attachment_id = a.attachment_id AND u.state = 'uploading'
               WHERE a.attachment_id = $1 AND a.owner = $2"#,
            attachment_id.0,
            owner.as_str()
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            let received = row.received.unwrap_or(0).cast_unsigned();
            let record: AttachmentRecord = AttachmentRow {
                attachment_id: row.attachment_id,
                owner: row.owner,
                hash: row.hash,
                size: row.size,
                content_type: row.content_type,
                name: row.name,
                expires_at: row.expires_at,
                gone: row.gone,
                blob_id: row.blob_id,
            }
            .try_into()?;
            Ok(UploadStanding {
                received: if record.blob_id.is_some() {
                    record.size
                } else {
                    received
                },
                record,
            })
        })
        .transpose()
    }
}
