//! A client is removed, for ever.

use sqlx::{Postgres, Transaction};
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
    /// row of this user that should be published at once, and the inbox is one to sweep.
    ///
    /// What it inherited goes with it: what the user's inbox `first` holds up to `inbox_sequence`, the last sequence
    /// of the stream of the user's inboxes, read before this call. What comes after that may be for the next heir.
    /// Without it, nothing of `first` is deleted.
    pub async fn remove_client(
        &self,
        user: &UserId,
        client: ClientId,
        inbox_sequence: Option<u64>,
    ) -> Result<bool, RemoveClientError> {
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
        set_removed(&mut tx, client, inbox_sequence).await?;
        invalidate_user(&mut tx, user).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Writes that a client, whose user's row is locked, is removed, and that its inbox is to be emptied.
pub(crate) async fn set_removed(
    tx: &mut Transaction<'static, Postgres>,
    client: ClientId,
    inbox_sequence: Option<u64>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE clients
         SET inherited_up_to = CASE WHEN state = 'active' AND heir THEN $2 ELSE inherited_up_to END,
             state = 'removed', away_since = NULL, sweeps = 0, swept_at = NULL
         WHERE client_id = $1",
        client.0,
        inbox_sequence.map(u64::cast_signed)
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
