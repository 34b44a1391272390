//! Bytes that no row speaks of. A blob's row is committed before its first byte and goes after its last, so there are
//! none, but for a process that was stopped for long in the middle of an upload, and then wrote on.

use std::time::Duration;

use futures::StreamExt as _;
use tidings_blobs::{BlobError, BlobStore, StoredBlob};
use tidings_metadata::{DatabaseError, in_time};
use tidings_protocol::Timestamp;
use tidings_service::{BootId, Context};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::blob_store::{self, StoreError};
use crate::clocks::{ClockError, Clocks, Moment};
use crate::{QUESTION_TIMEOUT, WORK_TIMEOUT};

/// Held until the next search is due, by nobody who lives.
const LEASE: &str = "attachment-orphans";
/// Between two searches, whoever does them: each reads the names of all that is stored.
const SEARCH_INTERVAL: Duration = Duration::from_hours(24);
/// After a search that failed.
const RETRY_INTERVAL: Duration = Duration::from_mins(10);
/// How often it is looked whether one is due.
const INTERVAL: Duration = Duration::from_mins(10);
/// What is younger is left alone: whatever may still be written will have been.
const AGE_MIN: Duration = Duration::from_hours(24);
/// Names that Postgres is asked for at once.
const BATCH: usize = 500;

/// Why a search ended early.
#[derive(Debug, thiserror::Error)]
enum SearchError {
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the store of attachments is silent")]
    Silent,
}

/// Searches until the service is asked to stop.
pub(crate) async fn run(context: Context, clocks: Clocks, store: BlobStore) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while context
        .stopping
        .run_until_cancelled(interval.tick())
        .await
        .is_some()
    {
        let search = search_if_due(&context, &clocks, &store);
        // What is not searched now is searched again; an orphan can wait.
        let result = context.stopping.run_until_cancelled(search).await;
        if let Some(Err(error)) = result {
            tracing::warn!(%error, "bytes that nobody knows of were not searched for; later again");
        }
    }
}

async fn search_if_due(context: &Context, clocks: &Clocks, store: &BlobStore) -> Result<(), SearchError> {
    // Whoever cannot do it leaves it to others.
    if !blob_store::check(&context.metadata, store).await? {
        return Ok(());
    }
    let moment = clocks.agreed().await?;
    // Nobody renews it: it is taken once a day.
    let holder = BootId::random().0;
    let take = |lasts| {
        in_time(
            QUESTION_TIMEOUT,
            context.metadata.take_lease(LEASE, holder, lasts),
        )
    };
    if !take(SEARCH_INTERVAL).await? {
        return Ok(());
    }
    let searched = search(context, store, moment).await;
    if searched.is_err() {
        take(RETRY_INTERVAL).await?;
    }
    searched
}

async fn search(context: &Context, store: &BlobStore, moment: Moment) -> Result<(), SearchError> {
    let before = moment.minus(AGE_MIN);
    let mut listed = store.list().ready_chunks(BATCH);
    let (mut seen, mut removed) = (0, 0);
    while let Some(blobs) = tokio::time::timeout(WORK_TIMEOUT, listed.next())
        .await
        .map_err(|_| SearchError::Silent)?
    {
        let blobs = blobs.into_iter().collect::<Result<Vec<_>, _>>()?;
        seen += blobs.len();
        let old: Vec<Uuid> = blobs
            .iter()
            .filter(|blob| is_older(blob, before))
            .map(|blob| blob.blob_id)
            .collect();
        let known = in_time(QUESTION_TIMEOUT, context.metadata.known_blobs(&old)).await?;
        for blob_id in old.iter().filter(|blob_id| !known.contains(blob_id)) {
            match store.remove(*blob_id, None).await {
                Ok(()) => {
                    removed += 1;
                    metrics::counter!("tidings_blob_orphans_total").increment(1);
                    tracing::warn!(blob.id = %blob_id, "bytes that nobody knew of were removed");
                }
                // Somebody writes them at this moment.
                Err(BlobError::Busy) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    tracing::info!(
        blobs = seen,
        removed,
        "the store was searched for bytes that nobody knows of"
    );
    Ok(())
}

/// Whether a blob was written to last before that, by the store's clock. One without a time that can be read stays.
fn is_older(blob: &StoredBlob, before: Timestamp) -> bool {
    Timestamp::from(OffsetDateTime::from(blob.modified)) < before
}
