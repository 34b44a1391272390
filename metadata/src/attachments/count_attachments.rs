//! How much there is.

use crate::database_error::Result;
use crate::metadata::Metadata;

/// How much there is of everything.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachmentCounts {
    /// Attachments that are not gone.
    pub attachments: u64,
    /// Attachments that are gone and remembered.
    pub gone: u64,
    /// Blobs that attachments are read from.
    pub stored: u64,
    /// Bytes of those.
    pub stored_bytes: u64,
    /// Uploads.
    pub uploading: u64,
    /// Blobs to remove.
    pub doomed: u64,
}

/// What waits for an inbox worker.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovalBacklog {
    /// Attachments whose time has come.
    pub expired: u64,
    /// Blobs to remove.
    pub doomed: u64,
}

impl Metadata {
    /// How much there is. Reads whole tables: for people and tests, not for metrics.
    pub async fn count_attachments(&self) -> Result<AttachmentCounts> {
        let row = sqlx::query!(
            r#"SELECT
                 (SELECT count(*) FROM attachments WHERE gone_at IS NULL) AS "attachments!",
                 (SELECT count(*) FROM attachments WHERE gone_at IS NOT NULL) AS "gone!",
                 count(*) FILTER (WHERE state = 'stored') AS "stored!",
                 coalesce(sum(size) FILTER (WHERE state = 'stored'), 0)::bigint AS "stored_bytes!",
                 count(*) FILTER (WHERE state = 'uploading') AS "uploading!",
                 count(*) FILTER (WHERE state = 'doomed') AS "doomed!"
               FROM blobs"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(AttachmentCounts {
            attachments: row.attachments.cast_unsigned(),
            gone: row.gone.cast_unsigned(),
            stored: row.stored.cast_unsigned(),
            stored_bytes: row.stored_bytes.cast_unsigned(),
            uploading: row.uploading.cast_unsigned(),
            doomed: row.doomed.cast_unsigned(),
        })
    }

    /// What waits for an inbox worker.
    pub async fn removal_backlog(&self) -> Result<RemovalBacklog> {
        let row = sqlx::query!(
            r#"SELECT
                 (SELECT count(*) FROM attachments WHERE gone_at IS NULL AND expires_at < now()) AS "expired!",
                 (SELECT count(*) FROM blobs WHERE state = 'doomed') AS "doomed!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(RemovalBacklog {
            expired: row.expired.cast_unsigned(),
            doomed: row.doomed.cast_unsigned(),
        })
    }
}
