//! The user's row: what whoever changes the user's clients holds, so that such changes come one after another.

use sqlx::{Postgres, Transaction};
use tidings_protocol::UserId;

use crate::database_error::Result;

/// A user's row, locked until the end of the transaction.
pub(crate) struct LockedUser {
    pub(crate) suspended: bool,
}

/// Locks the user's row, and makes it first if there is none. What is read after this call is what the last
/// holder committed: each statement under READ COMMITTED takes a new snapshot.
pub(crate) async fn lock_or_create_user(
    tx: &mut Transaction<'static, Postgres>,
    user: &UserId,
) -> Result<LockedUser> {
    sqlx::query!(
        "INSERT INTO users (user_id) VALUES ($1) ON CONFLICT DO NOTHING",
        user.as_str()
    )
    .execute(&mut **tx)
    .await?;
    let row = sqlx::query!(
        "SELECT suspended_at FROM users WHERE user_id = $1 FOR UPDATE",
        user.as_str()
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(LockedUser {
        suspended: row.suspended_at.is_some(),
    })
}

/// Locks the user's row, if there is one.
pub(crate) async fn lock_user(
    tx: &mut Transaction<'static, Postgres>,
    user: &UserId,
) -> Result<Option<LockedUser>> {
    let row = sqlx::query!(
        "SELECT suspended_at FROM users WHERE user_id = $1 FOR UPDATE",
        user.as_str()
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(row.map(|row| LockedUser {
        suspended: row.suspended_at.is_some(),
    }))
}

/// Writes that the user's clients changed: the next version, and the row of the outbox that says so.
pub(crate) async fn invalidate_user(tx: &mut Transaction<'static, Postgres>, user: &UserId) -> Result<()> {
    sqlx::query!(
        "WITH changed AS (UPDATE users SET version = version + 1 WHERE user_id = $1 RETURNING version)
         INSERT INTO outbox (user_id, version) SELECT $1, version FROM changed",
        user.as_str()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
