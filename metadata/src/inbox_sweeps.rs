//! Inboxes of clients that are not active any more: they are emptied, and again later, since a worker that did not
//! know yet may have stored something meanwhile. The clients' own rows are the list of what is to be done.

use std::time::Duration;

use tidings_protocol::{ClientId, UserId};

use crate::clients::{ClientState, state};
use crate::database_error::Result;
use crate::metadata::Metadata;
use crate::stored;

/// How often an inbox is emptied; the index of migration 0004 has the same number.
const SWEEPS: usize = 3;

/// An inbox to empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxSweep {
    /// Whose.
    pub user: UserId,
    /// Which client's.
    pub client: ClientId,
    /// Idle, which may end any moment, or removed, which is final.
    pub state: ClientState,
    /// What the client inherited ends here; absent if it inherited nothing, or nobody knows up to where.
    pub inherited_up_to: Option<u64>,
    /// How often it was emptied.
    pub sweeps: u16,
}

impl Metadata {
    /// Up to `limit` inboxes of clients that are not active, and were not tried yet, or so long ago: `again_after`
    /// says it for those that were emptied never, once, and twice. The longest waiting first.
    pub async fn inboxes_to_sweep(
        &self,
        again_after: [Duration; SWEEPS],
        limit: u32,
    ) -> Result<Vec<InboxSweep>> {
        let rows = sqlx::query!(
            "SELECT client_id, user_id, state, inherited_up_to, sweeps FROM clients
             WHERE state <> 'active' AND sweeps < 3
               AND (swept_at IS NULL
                    OR swept_at < now() - make_interval(secs => ($1::float8[])[sweeps + 1]))
             ORDER BY swept_at NULLS FIRST LIMIT $2",
            &again_after.map(|age| age.as_secs_f64()),
            i64::from(limit)
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(InboxSweep {
                    user: stored::user_id(&row.user_id)?,
                    client: row.client_id.into(),
                    state: state(&row.state)?,
                    inherited_up_to: row.inherited_up_to.map(i64::cast_unsigned),
                    sweeps: row.sweeps.cast_unsigned(),
                })
            })
            .collect()
    }

    /// Notes that an inbox was tried, and whether it was emptied, unless the client has changed meanwhile.
    pub async fn inbox_swept(&self, sweep: &InboxSweep, emptied: bool) -> Result<()> {
        sqlx::query!(
            "UPDATE clients SET sweeps = sweeps + $4, swept_at = clock_timestamp()
             WHERE client_id = $1 AND sweeps = $2 AND state = $3",
            sweep.client.0,
            sweep.sweeps.cast_signed(),
            sweep.state.text(),
            i16::from(emptied)
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
