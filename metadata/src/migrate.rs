//! The tables, made and compared.

use std::collections::HashMap;

use sqlx::Connection;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnection;

use crate::database_error::{DatabaseError, Result};
use crate::metadata::Metadata;

static MIGRATOR: Migrator = sqlx::migrate!();

/// Why a service may not start on this database, or `tidings setup` cannot make it so.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// These migrations are missing, as `version name`.
    #[error("the database lacks {}: run `tidings setup`", .0.join(", "))]
    Behind(Vec<String>),
    /// A migration was applied in another form than this build knows.
    #[error("migration {0} was applied to the database in another form than this version of tidings has")]
    Differs(i64),
    /// A migration failed.
    #[error("a migration failed: {0}")]
    Migration(#[source] MigrateError),
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for SchemaError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Metadata {
    /// Makes or upgrades the tables. Several processes may call it at once: one does the work. A database that a
    /// newer version has upgraded is left as it is.
    pub async fn migrate(&self) -> Result<(), SchemaError> {
        // A connection of its own: building an index may take longer than the pool's sessions let a statement.
        let mut connection = PgConnection::connect_with(&self.pool.connect_options()).await?;
        let migrator = Migrator {
            migrations: MIGRATOR.migrations.clone(),
            ignore_missing: true,
            ..Migrator::DEFAULT
        };
        migrator
            .run_direct(None, &mut connection, false)
            .await
            .map_err(|error| match error {
                MigrateError::Execute(error) => SchemaError::Database(error.into()),
                MigrateError::VersionMismatch(version) => SchemaError::Differs(version),
                error => SchemaError::Migration(error),
            })?;
        Ok(connection.close().await?)
    }

    /// The migrations that [`Metadata::migrate`] would apply, as `version name`.
    pub async fn pending_migrations(&self) -> Result<Vec<String>, SchemaError> {
        let applied = self.applied_migrations().await?;
        let mut pending = Vec::new();
        for migration in MIGRATOR.iter() {
            match applied.get(&migration.version) {
                None => pending.push(format!("{:04} {}", migration.version, migration.description)),
                Some(checksum) if **checksum != *migration.checksum => {
                    return Err(SchemaError::Differs(migration.version));
                }
                Some(_) => {}
            }
        }
        Ok(pending)
    }

    /// Refuses a database that lacks a migration. One that has more is fine: migrations only add what the version
    /// before does not mind, so that services can be restarted while an upgrade is under way.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        match self.pending_migrations().await? {
            pending if pending.is_empty() => Ok(()),
            pending => Err(SchemaError::Behind(pending)),
        }
    }

    /// The checksums of what was applied, by version.
    async fn applied_migrations(&self) -> Result<HashMap<i64, Vec<u8>>> {
        // Not checked at compile time: the table is sqlx's own, and absent from an empty database.
        let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&self.pool)
            .await?;
        if !exists {
            return Ok(HashMap::new());
        }
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success")
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().collect())
    }
}
