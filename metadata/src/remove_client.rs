//! A client is removed, for ever.

use tidings_protocol::{ClientId, UserId};

use crate::clients::{ClientState, client_record};
use crate::database_error::{DatabaseError, Result};
use crate::metadata::Metadata;
use crate::users::{invalidate_user, lock_user};

/// Why it is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveClientError {
    /// The user has and had no such client.
    #[error("the user has no such client")]
    NotFound,
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for RemoveClientError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Metadata {
    /// Removes a client of the user; false if it was removed already. When it changed something, the outbox has a
    /// row of this user that should be published at once. What it inherited goes with it.
    pub async fn remove_client(&self, user: &UserId, client: ClientId) -> Result<bool, RemoveClientError> {
        let mut tx = self.begin().await?;
        lock_user(&mut tx, user)
            .await?
            .ok_or(RemoveClientError::NotFound)?;
        let record = client_record(&mut *tx, client)
            .await?
            .filter(|record| record.user == *user)
            .ok_or(RemoveClientError::NotFound)?;
        if record.state == ClientState::Removed {
            return Ok(false);
        }
        sqlx::query!(
            "UPDATE clients SET state = 'removed' WHERE client_id = $1",
            client.0
        )
        .execute(&mut *tx)
        .await?;
        invalidate_user(&mut tx, user).await?;
        tx.commit().await?;
        Ok(true)
    }
}
