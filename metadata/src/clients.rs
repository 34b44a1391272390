//! Users' clients, read, and when they were last seen.

use std::collections::HashMap;

use sqlx::{Executor, Postgres};
use tidings_protocol::{ClientId, ClientInfo, Timestamp, UserId};

use crate::database_error::{DatabaseError, Result};
use crate::metadata::Metadata;
use crate::stored;

/// What a client is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Has an inbox; one of at most three.
    Active,
    /// Did not connect for 30 days: has no inbox, and registers anew at its next hello.
    Idle,
    /// Refused for ever.
    Removed,
}

impl ClientState {
    /// As the column has it.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Removed => "removed",
        }
    }
}

/// Whether a client may be connected.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ClientStanding {
    /// What it is.
    pub state: ClientState,
    /// Whether its user is suspended.
    pub suspended: bool,
}

/// A client as Postgres knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// Whose.
    pub user: UserId,
    /// What it is.
    pub state: ClientState,
    /// What people call it.
    pub name: Option<String>,
    /// Whether it reads the entries under `first`, as long as it is active.
    pub heir: bool,
    /// When it became active last.
    pub registered_at: Timestamp,
    /// When it last said hello or was touched.
    pub last_seen_at: Timestamp,
    /// Since when it was away when it became idle, until that is marked in its inbox.
    pub away_since: Option<Timestamp>,
}

impl Metadata {
    /// Notes that these clients are connected now. For batches of any size; unknown ids and clients that are not
    /// active are left alone. A connected client must be touched at least daily, or it may become idle. A clock that
    /// was set back makes nobody look unseen.
    pub async fn touch_clients(&self, clients: &[ClientId]) -> Result<()> {
        let ids: Vec<_> = clients.iter().map(|client| client.0).collect();
        // Locked in one order, or two gateways with the same clients could wait for each other.
        sqlx::query!(
            "UPDATE clients SET last_seen_at = greatest(last_seen_at, clock_timestamp())
             WHERE client_id IN (
                 SELECT client_id FROM clients WHERE client_id = ANY($1) AND state = 'active'
                 ORDER BY client_id FOR NO KEY UPDATE
             )",
            &ids
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The user's active clients, the oldest registration first. `online` is false: Postgres does not know.
    pub async fn clients_of(&self, user: &UserId) -> Result<Vec<ClientInfo>> {
        active_clients_of(&self.pool, user).await
    }

    /// The active clients of each of these users; a user who has none is there with none.
    pub async fn active_clients(&self, users: &[UserId]) -> Result<HashMap<UserId, Vec<ClientId>>> {
        let ids: Vec<String> = users.iter().map(ToString::to_string).collect();
        let rows = sqlx::query!(
            "SELECT user_id, client_id FROM clients WHERE user_id = ANY($1) AND state = 'active'
             ORDER BY registered_at, client_id",
            &ids
        )
        .fetch_all(&self.pool)
        .await?;
        let mut clients: HashMap<UserId, Vec<ClientId>> =
            users.iter().map(|user| (user.clone(), Vec::new())).collect();
        for row in rows {
            clients
                .entry(stored::user_id(&row.user_id)?)
                .or_default()
                .push(row.client_id.into());
        }
        Ok(clients)
    }

    /// How each of these clients stands; those that nobody ever registered are not there.
    pub async fn standings(&self, clients: &[ClientId]) -> Result<HashMap<ClientId, ClientStanding>> {
        let ids: Vec<_> = clients.iter().map(|client| client.0).collect();
        let rows = sqlx::query!(
            r#"SELECT client_id, state, suspended_at IS NOT NULL AS "suspended!"
               FROM clients JOIN users USING (user_id) WHERE client_id = ANY($1)"#,
            &ids
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let standing = ClientStanding {
                    state: state(&row.state)?,
                    suspended: row.suspended,
                };
                Ok((row.client_id.into(), standing))
            })
            .collect()
    }

    /// The client, whatever it is.
    pub async fn client(&self, client: ClientId) -> Result<Option<ClientRecord>> {
        client_record(&self.pool, client).await
    }
}

pub(crate) async fn client_record<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    client: ClientId,
) -> Result<Option<ClientRecord>> {
    let row = sqlx::query!(
        "SELECT user_id, state, name, heir, registered_at, last_seen_at, away_since
         FROM clients WHERE client_id = $1",
        client.0
    )
    .fetch_optional(executor)
    .await?;
    row.map(|row| {
        Ok(ClientRecord {
            user: stored::user_id(&row.user_id)?,
            state: state(&row.state)?,
            name: row.name,
            heir: row.heir,
            registered_at: row.registered_at.into(),
            last_seen_at: row.last_seen_at.into(),
            away_since: row.away_since.map(Into::into),
        })
    })
    .transpose()
}

pub(crate) fn state(text: &str) -> Result<ClientState> {
    match text {
        "active" => Ok(ClientState::Active),
        "idle" => Ok(ClientState::Idle),
        "removed" => Ok(ClientState::Removed),
        _ => Err(DatabaseError::Defect(sqlx::Error::Decode(
            format!("not a client's state: {text:?}").into(),
        ))),
    }
}

pub(crate) async fn active_clients_of<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    user: &UserId,
) -> Result<Vec<ClientInfo>> {
    let rows = sqlx::query!(
        "SELECT client_id, name, last_seen_at FROM clients WHERE user_id = $1 AND state = 'active'
         ORDER BY registered_at, client_id",
        user.as_str()
    )
    .fetch_all(executor)
    .await?;
    let info = rows.into_iter().map(|row| ClientInfo {
        client_id: row.client_id.into(),
        name: row.name,
        last_seen: row.last_seen_at.into(),
        online: false,
    });
    Ok(info.collect())
}
