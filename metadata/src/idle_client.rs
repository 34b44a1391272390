//! Clients that did not connect for long become idle, and lose their place among the three.

use std::time::Duration;

use tidings_protocol::{ClientId, UserId};

use crate::database_error::Result;
use crate::metadata::Metadata;
use crate::users::{invalidate_user, lock_user};

impl Metadata {
    /// Up to `limit` active clients that were not seen for this long, the longest unseen first.
    pub async fn unseen_clients(&self, unseen_for: Duration, limit: u32) -> Result<Vec<(UserId, ClientId)>> {
        let rows = sqlx::query!(
            "SELECT user_id, client_id FROM clients
             WHERE state = 'active' AND last_seen_at < now() - make_interval(secs => $1)
             ORDER BY last_seen_at LIMIT $2",
            unseen_for.as_secs_f64(),
            i64::from(limit)
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| Ok((crate::stored::user_id(&row.user_id)?, row.client_id.into())))
            .collect()
    }

    /// How many active clients were not seen for this long.
    pub async fn count_unseen(&self, unseen_for: Duration) -> Result<u64> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM clients
               WHERE state = 'active' AND last_seen_at < now() - make_interval(secs => $1)"#,
            unseen_for.as_secs_f64()
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(count.cast_unsigned())
    }

    /// Makes the client idle if it is active and was not seen for this long; says whether it did. The outbox then
    /// has a row of this user that should be published at once, and the inbox is one to sweep: up to a sequence that
    /// is read before the client is seen to be idle, since it may be back at any moment.
    ///
    /// `inbox_sequence` is the last sequence of the stream of the user's inboxes, read before this call: what the
    /// client inherited ends there.
    pub async fn idle_client(
        &self,
        user: &UserId,
        client: ClientId,
        unseen_for: Duration,
        inbox_sequence: u64,
    ) -> Result<bool> {
        let mut tx = self.begin().await?;
        if lock_user(&mut tx, user).await?.is_none() {
            return Ok(false);
        }
        let done = sqlx::query!(
            "UPDATE clients
             SET state = 'idle', sweeps = 0, swept_at = NULL,
                 away_since = coalesce(away_since, date_trunc('milliseconds', last_seen_at)),
                 inherited_up_to = CASE WHEN heir THEN $4::bigint END
             WHERE client_id = $1 AND user_id = $2 AND state = 'active'
               AND last_seen_at < clock_timestamp() - make_interval(secs => $3)",
            client.0,
            user.as_str(),
            unseen_for.as_secs_f64(),
            inbox_sequence.cast_signed()
        )
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        invalidate_user(&mut tx, user).await?;
        tx.commit().await?;
        Ok(true)
    }
}
