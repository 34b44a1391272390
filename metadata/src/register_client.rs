//! A client says hello: known, new, or back after it had become idle.

use sqlx::{Postgres, Transaction};
use tidings_protocol::{CLIENTS_MAX, ClientId, ClientInfo, Registration, Timestamp, UserId};

use crate::clients::{ClientRecord, ClientState, active_clients_of, client_record};
use crate::database_error::{DatabaseError, Result};
use crate::metadata::Metadata;
use crate::remove_client::set_removed;
use crate::users::{invalidate_user, lock_or_create_user};

/// A hello, as the token and the frame have it.
#[derive(Clone, Debug)]
pub struct RegisterClient {
    /// The token's `sub`.
    pub user: UserId,
    /// The token's `client`.
    pub client: ClientId,
    /// What people call the device; absent keeps what is known.
    pub name: Option<String>,
    /// A client of the same user to remove for this one. Means something only when this one is not active yet.
    pub replace: Option<ClientId>,
    /// With `replace`: the last sequence of the stream of the user's inboxes, read before. What the removed client
    /// inherited and did not confirm ends there. Absent where it is not known: then nobody deletes it.
    pub inbox_sequence: Option<u64>,
}

/// The client is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Whether it was already.
    pub registration: Registration,
    /// Whether it reads the entries under the reserved client `first`, besides its own.
    pub heir: bool,
    /// Whether the user's clients changed: the outbox has a row of this user that should be published at once.
    pub changed: bool,
    /// The client that was removed for this one. Absent if it had been removed before.
    pub removed: Option<ClientId>,
    /// Since when it was away, if it had become idle and its inbox has no mark of that yet; see
    /// [`Metadata::absence_marked`].
    pub away_since: Option<Timestamp>,
    /// What [`Metadata::told_until`] says, where it was found out on the way.
    pub told_until: Option<u64>,
}

/// Why the client is not active.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// It was removed, which is final.
    #[error("this client was removed")]
    Removed,
    /// The user has as many active clients as there may be: these.
    #[error("the user has {} active clients already", .0.len())]
    TooManyClients(Vec<ClientInfo>),
    /// The user is suspended.
    #[error("the user is suspended")]
    Suspended,
    /// The client is another user's.
    #[error("this client is another user's")]
    ForeignClient,
    /// The client to replace is no other client of this user.
    #[error("the client to replace is not one of this user's others")]
    ReplaceNotFound,
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for RegisterError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Metadata {
    /// Makes the client active, unless one of the errors speaks against it, which leave everything as it was.
    ///
    /// The client that registers while the user has no (other) active one becomes the heir of what was written to
    /// the user before. There is never more than one; nobody follows an heir while others are active.
    pub async fn register_client(&self, hello: RegisterClient) -> Result<Registered, RegisterError> {
        // Most hellos are reconnects; thousands come at once when a gateway restarts, and write nothing.
        if let Some(known) = self.known(&hello).await? {
            return Ok(known);
        }
        let mut tx = self.begin().await?;
        let registered = register(&mut tx, &hello).await?;
        tx.commit().await?;
        Ok(registered)
    }

    /// Notes that a client's absence since then is marked in its inbox. Until this was called, each hello says again
    /// that it must be.
    pub async fn absence_marked(&self, client: ClientId, away_since: Timestamp) -> Result<()> {
        sqlx::query!(
            "UPDATE clients SET away_since = NULL
             WHERE client_id = $1 AND state = 'active'
               AND away_since = timestamptz 'epoch' + $2::float8 * interval '1 millisecond'",
            client.0,
            away_since.0 as f64
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// If the client is active and nothing about it has to be written: what there is to know of it, in one question.
    /// One that was last seen long ago is looked at under the lock, since it may be about to become idle.
    async fn known(&self, hello: &RegisterClient) -> Result<Option<Registered>> {
        let known = sqlx::query!(
            r#"SELECT heir, told.unsent AS "unsent!", told.seq AS "seq!"
               FROM clients JOIN users USING (user_id), LATERAL (
                   SELECT coalesce(bool_or(seq IS NULL), false) AS unsent, coalesce(max(seq), 0) AS seq
                   FROM outbox WHERE user_id = $2
               ) AS told
               WHERE client_id = $1 AND user_id = $2 AND state = 'active' AND suspended_at IS NULL
                 AND ($3::text IS NULL OR name IS NOT DISTINCT FROM $3)
                 AND last_seen_at > clock_timestamp() - interval '1 day' AND away_since IS NULL"#,
            hello.client.0,
            hello.user.as_str(),
            hello.name
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(known.map(|known| Registered {
            registration: Registration::Known,
            heir: known.heir,
            changed: false,
            removed: None,
            away_since: None,
            told_until: (!known.unsent).then_some(known.seq as u64),
        }))
    }
}

async fn register(
    tx: &mut Transaction<'static, Postgres>,
    hello: &RegisterClient,
) -> Result<Registered, RegisterError> {
    let user = lock_or_create_user(tx, &hello.user).await?;
    let client = client_record(&mut **tx, hello.client).await?;
    match &client {
        Some(client) if client.user != hello.user => return Err(RegisterError::ForeignClient),
        Some(client) if client.state == ClientState::Removed => return Err(RegisterError::Removed),
        _ if user.suspended => return Err(RegisterError::Suspended),
        Some(client) if client.state == ClientState::Active => return greet(tx, hello, client).await,
        _ => {}
    }

    let removed = match hello.replace {
        Some(replaced) => remove_replaced(tx, hello, replaced).await?,
        None => None,
    };
    let active = active_clients_of(&mut **tx, &hello.user).await?;
    if active.len() >= CLIENTS_MAX {
        return Err(RegisterError::TooManyClients(active));
    }
    let heir = active.is_empty();
    if !activate(tx, hello, heir).await? {
        // Another user registered the same id since we looked; it cannot be the same user, whose row we hold.
        return Err(RegisterError::ForeignClient);
    }
    invalidate_user(tx, &hello.user).await?;
    let registration = if client.is_some() {
        Registration::Reactivated
    } else {
        Registration::New
    };
    Ok(Registered {
        registration,
        heir,
        changed: true,
        removed,
        away_since: client.and_then(|client| client.away_since),
        told_until: None,
    })
}

/// Notes the name and the hour of a client that is active.
async fn greet(
    tx: &mut Transaction<'static, Postgres>,
    hello: &RegisterClient,
    client: &ClientRecord,
) -> Result<Registered, RegisterError> {
    sqlx::query!(
        "UPDATE clients SET name = coalesce($2, name), last_seen_at = greatest(last_seen_at, clock_timestamp())
         WHERE client_id = $1",
        hello.client.0,
        hello.name
    )
    .execute(&mut **tx)
    .await?;
    Ok(Registered {
        registration: Registration::Known,
        heir: client.heir,
        changed: false,
        removed: None,
        away_since: client.away_since,
        told_until: None,
    })
}

/// Removes the client to replace. One that is removed already is fine: this hello may be a retry.
async fn remove_replaced(
    tx: &mut Transaction<'static, Postgres>,
    hello: &RegisterClient,
    replaced: ClientId,
) -> Result<Option<ClientId>, RegisterError> {
    let client = client_record(&mut **tx, replaced)
        .await?
        .filter(|client| client.user == hello.user && replaced != hello.client)
        .ok_or(RegisterError::ReplaceNotFound)?;
    if client.state == ClientState::Removed {
        return Ok(None);
    }
    set_removed(tx, replaced, hello.inbox_sequence).await?;
    Ok(Some(replaced))
}

/// Writes the client as active; false if the id is another user's.
async fn activate(
    tx: &mut Transaction<'static, Postgres>,
    hello: &RegisterClient,
    heir: bool,
) -> Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO clients (client_id, user_id, state, name, heir) VALUES ($1, $2, 'active', $3, $4)
         ON CONFLICT (client_id) DO UPDATE
         SET state = 'active', name = coalesce(excluded.name, clients.name), heir = excluded.heir,
             registered_at = clock_timestamp(), last_seen_at = greatest(clients.last_seen_at, clock_timestamp()),
             inherited_up_to = NULL, sweeps = 0, swept_at = NULL
         WHERE clients.user_id = excluded.user_id AND clients.state = 'idle'",
        hello.client.0,
        hello.user.as_str(),
        hello.name,
        heir
    )
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}
