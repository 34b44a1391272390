//! The lock under which what an owner's contents are wanted for, and what is stored of them, is changed.

use sqlx::{Postgres, Transaction};
use tidings_protocol::UserId;

use crate::database_error::Result;

/// Waits for everybody else who changes the owner's contents. What is asked after this call sees what the last holder
/// committed: each statement under READ COMMITTED takes a new snapshot. One with the lock in it would not.
pub(super) async fn owner_lock(tx: &mut Transaction<'static, Postgres>, owner: &UserId) -> Result<()> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
        format!("attachments {owner}")
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
