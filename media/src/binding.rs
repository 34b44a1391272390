//! Which store belongs to which database. Both carry the same id, so that a service that was given another folder or
//! bucket than the others says so, instead of losing what it is given and missing what it is asked for.
//!
//! The condition `blob-store` says how it stands. It is about the store as a whole: a single object that is missing is
//! a matter of its own request. A store that does not answer for a moment is weather, as Postgres is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_blobs::{BlobError, BlobStore};
use tidings_metadata::{DatabaseError, Metadata};
use tidings_service::{BaseContext, Condition};
use tokio::time::Instant;
use uuid::Uuid;

/// How often the store is asked who it is, while all is well.
const INTERVAL: Duration = Duration::from_secs(10);
/// And while it is not.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// For one answer: a folder on a network may hang for ever.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After this without an answer the condition does not hold. Requests answer for themselves meanwhile: that the
/// store is away is the same everywhere, and no reason to send anybody elsewhere at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the store is the database's. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Binding(Arc<AtomicBool>);

/// Why it is not known to be.
#[derive(Debug, thiserror::Error)]
enum Unbound {
    /// Two that do not belong together.
    #[error(
        "the store of attachments (--blob-store) is {store}, and the database's attachments are in {database}: give \
         this service the database's store"
    )]
    Foreign { store: Uuid, database: Uuid },
    /// A store that was never used, or whose folder is not mounted.
    #[error(
        "the store of attachments (--blob-store) is empty, and the database's attachments are in {0}: is it mounted? \
         If that store is lost, see the operations guide"
    )]
    Empty(Uuid),
    /// The store does not say.
    #[error(transparent)]
    Store(#[from] BlobError),
    /// Postgres does not say.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// One of them says nothing at all.
    #[error("the store of attachments or the database is silent")]
    Silent,
}

impl Binding {
    /// Finds out in a task, and goes on looking.
    pub(crate) fn start(context: &BaseContext, store: BlobStore) -> Self {
        let binding = Self::default();
        let condition = context.require("blob-store");
        let (metadata, stopping, watched) =
            (context.metadata.clone(), context.ended.clone(), binding.clone());
        context.tasks.spawn(async move {
            let watch = watched.watch(&metadata, &store, &condition);
            stopping.run_until_cancelled(watch).await;
        });
        binding
    }

    /// Whether the store is known to be the database's.
    pub(crate) fn is_held(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    async fn watch(&self, metadata: &Metadata, store: &BlobStore, condition: &Condition) {
        let mut answered = Instant::now();
        loop {
            let answer = tokio::time::timeout(TIMEOUT, bind(metadata, store)).await;
            let held = match answer.unwrap_or(Err(Unbound::Silent)) {
                Ok(id) => {
                    if !self.0.swap(true, Ordering::Relaxed) {
                        tracing::info!(store.id = %id, "the store of attachments is the database's");
                    }
                    answered = Instant::now();
                    condition.holds();
                    true
                }
                Err(error @ (Unbound::Foreign { .. } | Unbound::Empty(_))) => {
                    self.0.store(false, Ordering::Relaxed);
                    condition.fails(error.to_string());
                    false
                }
                Err(error) => {
                    tracing::debug!(%error, "the store of attachments was not found out");
                    // What was the database's a moment ago still is, if it answers at all.
                    if !self.is_held() || answered.elapsed() >= PATIENCE {
                        condition.fails(error.to_string());
                    }
                    false
                }
            };
            tokio::time::sleep(if held { INTERVAL } else { RETRY_INTERVAL }).await;
        }
    }
}

/// The id that both carry. A store that nobody has claimed is given the database's if that has no bytes anywhere yet.
async fn bind(metadata: &Metadata, store: &BlobStore) -> Result<Uuid, Unbound> {
    let (id, known) = (store.id().await?, metadata.blob_store().await?);
    let id = match (id, known) {
        (Some(id), Some(known)) if id == known => return Ok(id),
        (Some(id), _) => id,
        (None, Some(known)) => {
            if metadata.count_attachments().await?.stored > 0 {
                return Err(Unbound::Empty(known));
            }
            // Somebody is at it at this moment, or was when it died.
            store.claim(known).await?
        }
        (None, None) => store.claim(Uuid::new_v4()).await?,
    };
    let known = metadata.bind_blob_store(id).await?;
    if id == known {
        Ok(id)
    } else {
        Err(Unbound::Foreign {
            store: id,
            database: known,
        })
    }
}
