//! An operator suspends a user, who is refused until resumed.

use tidings_protocol::UserId;

use crate::database_error::{DatabaseError, Result};
use crate::metadata::Metadata;
use crate::users::{invalidate_user, lock_or_create_user, lock_user};

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum SuspendError {
    /// Nobody of this id ever registered a client or was suspended.
    #[error("there is no such user")]
    NotFound,
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for SuspendError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Metadata {
    /// Suspends the user, who need not have connected before; says whether this changed something.
    pub async fn suspend_user(&self, user: &UserId) -> Result<bool> {
        let mut tx = self.begin().await?;
        if lock_or_create_user(&mut tx, user).await?.suspended {
            return Ok(false);
        }
        sqlx::query!(
            "UPDATE users SET suspended_at = clock_timestamp() WHERE user_id = $1",
            user.as_str()
        )
        .execute(&mut *tx)
        .await?;
        invalidate_user(&mut tx, user).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Lets the user in again; says whether this changed something.
    pub async fn resume_user(&self, user: &UserId) -> Result<bool, SuspendError> {
        let mut tx = self.begin().await?;
        if !lock_user(&mut tx, user)
            .await?
            .ok_or(SuspendError::NotFound)?
            .suspended
        {
            return Ok(false);
        }
        sqlx::query!(
            "UPDATE users SET suspended_at = NULL WHERE user_id = $1",
            user.as_str()
        )
        .execute(&mut *tx)
        .await?;
        invalidate_user(&mut tx, user).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Whether the user is suspended. Somebody unknown is not.
    pub async fn is_suspended(&self, user: &UserId) -> Result<bool> {
        let suspended = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM users WHERE user_id = $1 AND suspended_at IS NOT NULL) AS "suspended!""#,
            user.as_str()
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(suspended)
    }
}
