//! An attachment, as it is read.

use sqlx::types::time::OffsetDateTime;
use tidings_protocol::{Attachment, AttachmentId, ContentHash, Timestamp, UserId};
use uuid::Uuid;

use crate::database_error::{DatabaseError, Result};
use crate::stored;

/// An attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentRecord {
    /// Which.
    pub attachment_id: AttachmentId,
    /// Whose.
    pub owner: UserId,
    /// SHA-256 of its bytes, as the owner said; what is stored was compared with it.
    pub hash: ContentHash,
    /// How many bytes.
    pub size: u64,
    /// MIME type, as the owner said.
    pub content_type: String,
    /// File name, as the owner said.
    pub name: Option<String>,
    /// When it will be gone unless something is done with it meanwhile.
    pub expires_at: Timestamp,
    /// Whether it is gone.
    pub gone: bool,
    /// The object that holds its bytes: there is one if it is ready and not gone.
    pub blob_id: Option<Uuid>,
}

impl AttachmentRecord {
    /// As a message names it.
    pub fn to_wire(&self) -> Attachment {
        Attachment {
            attachment_id: self.attachment_id,
            size: self.size,
            content_type: self.content_type.clone(),
            hash: self.hash.to_string(),
            name: self.name.clone(),
        }
    }
}

/// The columns.
pub(super) struct AttachmentRow {
    pub(super) attachment_id: Uuid,
    pub(super) owner: String,
    pub(super) hash: Vec<u8>,
    pub(super) size: i64,
    pub(super) content_type: String,
    pub(super) name: Option<String>,
    pub(super) expires_at: OffsetDateTime,
    pub(super) gone: bool,
    pub(super) blob_id: Option<Uuid>,
}

impl TryFrom<AttachmentRow> for AttachmentRecord {
    type Error = DatabaseError;

    fn try_from(row: AttachmentRow) -> Result<Self> {
        Ok(Self {
            attachment_id: row.attachment_id.into(),
            owner: stored::user_id(&row.owner)?,
            hash: stored::content_hash(&row.hash)?,
            size: row.size.cast_unsigned(),
            content_type: row.content_type,
            name: row.name,
            expires_at: row.expires_at.into(),
            gone: row.gone,
            blob_id: row.blob_id.filter(|_| !row.gone),
        })
    }
}
