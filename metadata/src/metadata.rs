//! The handle through which everything else in this crate is called.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Executor, Postgres, Transaction};
use tidings_protocol::Timestamp;

use crate::database_error::Result;

/// How long a caller waits for a connection before `Unavailable`: shorter than the patience of a client program,
/// longer than an election of a Postgres cluster's proxy takes to be noticed.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// What each session is told first. A statement is one row or a hundred, a lock is held for milliseconds; the one
/// transaction that waits for somebody else is the outbox's, while it publishes.
const SESSION: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'; \
     SET idle_in_transaction_session_timeout = '30s'; SET timezone = 'UTC'";

/// Postgres, as Tidings uses it. Cheap to clone; all clones share one pool.
#[derive(Clone)]
pub struct Metadata {
    pub(crate) pool: PgPool,
}

impl Metadata {
    /// Reads the URL and prepares a pool of at most `connections_max`. Connects when first asked for something, so
    /// that the only error here is a URL that cannot be read. Needs a running Tokio.
    pub fn connect(url: &str, connections_max: u32) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)?.application_name("tidings");
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute(SESSION).await.map(|_| ()) })
            })
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// Postgres' clock, the one by which things expire.
    pub async fn clock(&self) -> Result<Timestamp> {
        let now = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#)
            .fetch_one(&self.pool)
            .await?;
        Ok(now.into())
    }

    /// Closes the connections; calls after it, also on clones, are `Unavailable`.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Begins a transaction. In a task of its own, which goes on to its end when nobody waits for it any more: a beginning
    /// that is given up half-way would go back into the pool as an open transaction that nobody knows of, in which the
    /// next one's work would hang (<https://github.com/transact-rs/sqlx/issues/4385>, in 0.9.0).
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin().await }).await;
        // It can only have panicked, or the runtime ends.
        Ok(begun.map_err(|_| sqlx::Error::WorkerCrashed)??)
    }
}

impl fmt::Debug for Metadata {
    // The pool's own Debug shows how it connects.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("connections", &self.pool.size())
            .finish_non_exhaustive()
    }
}
