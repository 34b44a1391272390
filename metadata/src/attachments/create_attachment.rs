//! A slot is made, within the limits of its owner.

use std::time::Duration;

use sqlx::{Postgres, Transaction};
use tidings_protocol::{AttachmentId, ContentHash, UserId};
use uuid::Uuid;

use super::life::UNNAMED_HOURS;
use super::owner_lock::owner_lock;
use crate::database_error::{DatabaseError, Result};
use crate::metadata::Metadata;

/// What is to be uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAttachment {
    /// Whose it will be.
    pub owner: UserId,
    /// SHA-256 of its bytes.
    pub hash: ContentHash,
    /// How many bytes.
    pub size: u64,
    /// MIME type.
    pub content_type: String,
    /// File name.
    pub name: Option<String>,
}

/// What one user may have. Exact, over all processes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AttachmentLimits {
    /// Slots made within an hour.
    pub per_hour: u32,
    /// Bytes of all contents that have a slot, each once, uploaded or not.
    pub bytes_per_user: u64,
}

/// A slot.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct CreatedAttachment {
    /// Which.
    pub attachment_id: AttachmentId,
    /// Whether its bytes are there already.
    pub uploaded: bool,
}

/// Why there is no slot.
#[derive(Debug, thiserror::Error)]
pub enum CreateAttachmentError {
    /// The user made as many as there may be within an hour.
    #[error("too many attachments were created within an hour")]
    TooMany {
        /// When the next one fits.
        retry_after: Duration,
    },
    /// It does not fit into what the user may have.
    #[error("the user's attachments have {used} of {budget} bytes already")]
    BudgetSpent {
        /// Bytes of what the user has.
        used: u64,
        /// Bytes that a user may have.
        budget: u64,
    },
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for CreateAttachmentError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Metadata {
    /// Makes a slot, or finds the one that was made of the same, which then lives for another day at least: a
    /// retry makes no second one.
    pub async fn create_attachment(
        &self,
        new: &NewAttachment,
        limits: Option<AttachmentLimits>,
    ) -> Result<CreatedAttachment, CreateAttachmentError> {
        let mut tx = self.begin().await?;
        owner_lock(&mut tx, &new.owner).await?;
        let attachment_id = if let Some(known) = refresh(&mut tx, new).await? {
            known
        } else {
            if let Some(limits) = limits {
                check_rate(&mut tx, &new.owner, limits.per_hour).await?;
                check_budget(&mut tx, new, limits.bytes_per_user).await?;
            }
            insert(&mut tx, new).await?
        };
        let uploaded = sqlx::query_scalar!(
            r#"SELECT EXISTS (
                   SELECT FROM blobs WHERE owner = $1 AND hash = $2 AND size = $3 AND state = 'stored'
               ) AS "stored!""#,
            new.owner.as_str(),
            new.hash.0.as_slice(),
            new.size.cast_signed()
        )
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(CreatedAttachment {
            attachment_id,
            uploaded,
        })
    }
}

/// Finds the slot of the same, and lets it live for as long as a new one.
async fn refresh(
    tx: &mut Transaction<'static, Postgres>,
    new: &NewAttachment,
) -> Result<Option<AttachmentId>> {
    let id = sqlx::query_scalar!(
        "UPDATE attachments SET expires_at = greatest(expires_at, clock_timestamp() + make_interval(hours => $6))
         WHERE gone_at IS NULL AND attachment_id = (
             SELECT attachment_id FROM attachments
             WHERE owner = $1 AND hash = $2 AND size = $3 AND content_type = $4 AND name IS NOT DISTINCT FROM $5
               AND gone_at IS NULL
             ORDER BY created_at LIMIT 1
         )
         RETURNING attachment_id",
        new.owner.as_str(),
        new.hash.0.as_slice(),
        new.size.cast_signed(),
        new.content_type,
        new.name,
        UNNAMED_HOURS
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(id.map(AttachmentId))
}

/// Refuses one more than there may be within an hour.
async fn check_rate(
    tx: &mut Transaction<'static, Postgres>,
    owner: &UserId,
    per_hour: u32,
) -> Result<(), CreateAttachmentError> {
    const HOUR: Duration = Duration::from_hours(1);
    let Some(skip) = per_hour.checked_sub(1) else {
        return Err(CreateAttachmentError::TooMany { retry_after: HOUR });
    };
    // The one that has to be an hour old: found from the newest on, however many the user ever made.
    let age = sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 AS "age!" FROM attachments
           WHERE owner = $1 ORDER BY created_at DESC OFFSET $2 LIMIT 1"#,
        owner.as_str(),
        i64::from(skip)
    )
    .fetch_optional(&mut **tx)
    .await?;
    match age.map(|age| HOUR.as_secs_f64() - age.max(0.0)) {
        Some(wait) if wait > 0.0 => Err(CreateAttachmentError::TooMany {
            retry_after: Duration::from_secs_f64(wait),
        }),
        _ => Ok(()),
    }
}

/// Refuses what is beyond the bytes that a user may have. A content that has a slot already costs nothing more.
async fn check_budget(
    tx: &mut Transaction<'static, Postgres>,
    new: &NewAttachment,
    budget: u64,
) -> Result<(), CreateAttachmentError> {
    let had = sqlx::query!(
        r#"SELECT coalesce(sum(size), 0)::bigint AS "used!",
                  coalesce(bool_or(hash = $2 AND size = $3), false) AS "known!"
           FROM (SELECT DISTINCT hash, size FROM attachments WHERE owner = $1 AND gone_at IS NULL) AS contents"#,
        new.owner.as_str(),
        new.hash.0.as_slice(),
        new.size.cast_signed()
    )
    .fetch_one(&mut **tx)
    .await?;
    let used = had.used.cast_unsigned();
    if !had.known && used.saturating_add(new.size) > budget {
        return Err(CreateAttachmentError::BudgetSpent { used, budget });
    }
    Ok(())
}

async fn insert(tx: &mut Transaction<'static, Postgres>, new: &NewAttachment) -> Result<AttachmentId> {
    let attachment_id = Uuid::new_v4();
    sqlx::query!(
        "INSERT INTO attachments (attachment_id, owner, hash, size, content_type, name, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(hours => $7))",
        attachment_id,
        new.owner.as_str(),
        new.hash.0.as_slice(),
        new.size.cast_signed(),
        new.content_type,
        new.name,
        UNNAMED_HOURS
    )
    .execute(&mut **tx)
    .await?;
    Ok(attachment_id.into())
}
