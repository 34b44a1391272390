//! Leases: what one process at a time should do, by Postgres' clock.

use std::time::Duration;

use tidings_protocol::Timestamp;
use uuid::Uuid;

use crate::database_error::Result;
use crate::metadata::Metadata;

impl Metadata {
    /// Takes a lease, or renews it; false while another holder's has not run out. Two may believe to hold it for a
    /// moment when one is slow: what they do must bear that.
    pub async fn take_lease(&self, name: &str, holder: Uuid, lasts: Duration) -> Result<bool> {
        let done = sqlx::query!(
            "INSERT INTO leases (name, holder, expires_at)
             VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
             WHERE leases.holder = excluded.holder OR leases.expires_at < clock_timestamp()",
            name,
            holder,
            lasts.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Who holds a lease, and until when unless it is renewed.
    pub async fn lease(&self, name: &str) -> Result<Option<(Uuid, Timestamp)>> {
        let row = sqlx::query!("SELECT holder, expires_at FROM leases WHERE name = $1", name)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| (row.holder, row.expires_at.into())))
    }

    /// Gives a lease back, if it is still this holder's.
    pub async fn return_lease(&self, name: &str, holder: Uuid) -> Result<()> {
        sqlx::query!("DELETE FROM leases WHERE name = $1 AND holder = $2", name, holder)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
