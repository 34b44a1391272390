//! An attachment, for one who may read it.

use tidings_protocol::{AttachmentId, UserId};

use super::record::{AttachmentRecord, AttachmentRow};
use crate::database_error::Result;
use crate::metadata::Metadata;

impl Metadata {
    /// The attachment, if there is one and this user may read it, also when it is gone: its owner may, and who was
    /// in a chat when a message there named it, whether or not they have left since.
    pub async fn attachment(
        &self,
        attachment_id: AttachmentId,
        reader: &UserId,
    ) -> Result<Option<AttachmentRecord>> {
        // The grants are looked through for strangers and recipients only, each by two primary keys.
        let row = sqlx::query_as!(
            AttachmentRow,
            r#"SELECT a.attachment_id, a.owner, a.hash, a.size, a.content_type, a.name, a.expires_at,
                      a.gone_at IS NOT NULL AS "gone!", b.blob_id AS "blob_id?"
               FROM attachments a
               LEFT JOIN blobs b
                   ON b.owner = a.owner AND b.hash = a.hash AND b.size = a.size AND b.state = 'stored'
               WHERE a.attachment_id = $1 AND (a.owner = $2 OR EXISTS (
                   SELECT FROM grants g JOIN outbox o ON o.chat_id = g.chat_id AND o.version = g.version
                   WHERE g.attachment_id = a.attachment_id
                     AND o.change->'participants' @> jsonb_build_array(jsonb_build_object('userId', $2))
               ))"#,
            attachment_id.0,
            reader.as_str()
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(AttachmentRecord::try_from).transpose()
    }
}
