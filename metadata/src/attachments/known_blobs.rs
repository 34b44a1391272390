//! Which objects of a store are ours.

use std::collections::HashSet;

use uuid::Uuid;

use crate::database_error::Result;
use crate::metadata::Metadata;

impl Metadata {
    /// Those of the objects that have a row.
    pub async fn known_blobs(&self, blobs: &[Uuid]) -> Result<HashSet<Uuid>> {
        let known = sqlx::query_scalar!("SELECT blob_id FROM blobs WHERE blob_id = ANY ($1)", blobs)
            .fetch_all(&self.pool)
            .await?;
        Ok(known.into_iter().collect())
    }
}
