//! Which store has this database's blobs.

use uuid::Uuid;

use crate::database_error::Result;
use crate::metadata::Metadata;

impl Metadata {
    /// Binds the database to a store, unless it is bound to one: returns the one that it is bound to, for ever.
    pub async fn bind_blob_store(&self, store_id: Uuid) -> Result<Uuid> {
        sqlx::query!(
            "INSERT INTO blob_store (store_id) VALUES ($1) ON CONFLICT DO NOTHING",
            store_id
        )
        .execute(&self.pool)
        .await?;
        let bound = sqlx::query_scalar!("SELECT store_id FROM blob_store")
            .fetch_one(&self.pool)
            .await?;
        Ok(bound)
    }

    /// The store that the database is bound to.
    pub async fn blob_store(&self) -> Result<Option<Uuid>> {
        let bound = sqlx::query_scalar!("SELECT store_id FROM blob_store")
            .fetch_optional(&self.pool)
            .await?;
        Ok(bound)
    }
}
