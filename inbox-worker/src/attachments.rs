//! The end of attachments: what nobody names any more is gone, and the bytes that nothing needs are removed.
//!
//! All of it is in Postgres, so that a removal which was interrupted is found again and finished, by whoever comes next:
//! a blob's row goes only after its bytes. One worker at a time does it; two that believe to be the one remove the same
//! thing twice, which does no harm. Where a clock is wrong nothing is done, since everything here is done for its age.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt as _;
use tidings_blobs::{BlobError, BlobStore};
use tidings_metadata::{DatabaseError, DoomedBlob, in_time};
use tidings_service::Context;
use tokio::time::Instant;
use uuid::Uuid;

use crate::blob_store::{self, StoreError};
use crate::clocks::{ClockError, Clocks};
use crate::{QUESTION_TIMEOUT, WORK_TIMEOUT};

/// What this worker is alone with.
const LEASE: &str = "attachments";
/// How long a worker that died keeps the others waiting. Longer than what is done between two renewals takes: a batch of
/// blobs, each within [`WORK_TIMEOUT`] at worst.
const LEASE_LASTS: Duration = Duration::from_mins(5);
/// How often it is looked: attachments live for days, but the bytes of an upload that was given up are in the way.
const INTERVAL: Duration = Duration::from_secs(10);
/// Rows of one step: at worst a transaction for each, all within [`QUESTION_TIMEOUT`].
const ROWS_MAX: u32 = 200;
/// Blobs of one look, which is as much as may be between two renewals of the lease.
const BLOBS_MAX: usize = 64;
/// Blobs that are removed at once: a removal waits for the store, which others use meanwhile.
const AT_ONCE: usize = 8;

/// After so long, blobs that could not be removed are tried again.
const POSTPONED_FOR: Duration = Duration::from_mins(5);
/// Blobs that could not be removed and are passed over meanwhile; beyond, the rest waits.
const POSTPONED_MAX: usize = 10_000;

/// Blobs that could not be removed, so that they are not in the way of those behind them.
#[derive(Debug)]
struct Postponed {
    blobs: HashSet<Uuid>,
    since: Instant,
}

/// Why a round ended early; the next one goes on.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    /// A clock is wrong.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The store is another one, or does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Whether a round was long enough.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Round {
    Done,
    /// There is more, which need not wait.
    Cut,
}

/// Removes until the service is asked to stop.
pub(crate) async fn run(context: Context, clocks: Clocks, store: BlobStore) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = None;
    let mut postponed = Postponed::new();
    while context
        .stopping
        .run_until_cancelled(interval.tick())
        .await
        .is_some()
    {
        loop {
            let failure = match round(&context, &clocks, &store, &mut postponed).await {
                Ok(Round::Cut) if !context.stopping.is_cancelled() => continue,
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = &failure {
                metrics::counter!("tidings_attachment_failures_total").increment(1);
                // Said once, not every ten seconds for as long as it lasts.
                if said != failure {
                    tracing::error!(error, "attachments are not removed; they will be");
                }
            }
            said = failure;
            break;
        }
    }
    // Another worker need not wait for it to run out.
    let returned = context.metadata.return_lease(LEASE, context.boot_id.0);
    let _ = in_time(QUESTION_TIMEOUT, returned).await;
}

/// One step of each kind.
async fn round(
    context: &Context,
    clocks: &Clocks,
    store: &BlobStore,
    postponed: &mut Postponed,
) -> Result<Round, RoundError> {
    let metadata = &context.metadata;
    // Whoever cannot do it leaves it to others.
    let stored = blob_store::check(metadata, store).await?;
    clocks.agreed().await?;
    let lease = metadata.take_lease(LEASE, context.boot_id.0, LEASE_LASTS);
    if !in_time(QUESTION_TIMEOUT, lease).await? {
        // Whoever has it tells; what this worker knew, when it had it, is over.
        metrics::gauge!("tidings_blobs_to_remove").set(0);
        return Ok(Round::Done);
    }
    let expired = in_time(QUESTION_TIMEOUT, metadata.expire_attachments(ROWS_MAX)).await?;
    metrics::counter!("tidings_attachments_expired_total").increment(expired);
    let left = in_time(QUESTION_TIMEOUT, metadata.doom_unused_blobs(ROWS_MAX)).await?;
    metrics::counter!("tidings_uploads_left_total").increment(left);
    let pruned = in_time(QUESTION_TIMEOUT, metadata.prune_attachments(ROWS_MAX)).await?;
    metrics::counter!("tidings_pruned_rows_total", "table" => "attachments").increment(pruned);
    let mut cut = [expired, left, pruned].contains(&u64::from(ROWS_MAX));
    if stored {
        cut |= remove_some(context, store, postponed).await?;
    }
    Ok(if cut { Round::Cut } else { Round::Done })
}

/// Removes some of what is doomed; whether there is more.
async fn remove_some(
    context: &Context,
    store: &BlobStore,
    postponed: &mut Postponed,
) -> Result<bool, DatabaseError> {
    postponed.forget_old();
    let limit = BLOBS_MAX + postponed.blobs.len();
    let doomed = context.metadata.doomed_blobs(limit as u32);
    let doomed = in_time(QUESTION_TIMEOUT, doomed).await?;
    metrics::gauge!("tidings_blobs_to_remove").set(doomed.len() as f64);
    let more = doomed.len() == limit;
    let mut left = futures::stream::iter(doomed)
        .filter(|blob| std::future::ready(!postponed.blobs.contains(&blob.blob_id)))
        .map(|blob| remove_one(context, store, blob))
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect::<Vec<Uuid>>()
        .await;
    let none_left = left.is_empty();
    postponed.blobs.extend(left.drain(..));
    Ok(more && (none_left || postponed.blobs.len() <= POSTPONED_MAX))
}

/// Removes a blob; names it if it is still there.
async fn remove_one(context: &Context, store: &BlobStore, blob: DoomedBlob) -> Option<Uuid> {
    match tokio::time::timeout(WORK_TIMEOUT, remove(context, store, &blob)).await {
        Ok(Ok(())) => return None,
        // Its last bytes are on their way; they are refused there, and then it is nobody's.
        Ok(Err(RemoveError::Store(BlobError::Busy))) => {}
        Ok(Err(error)) => failed(&blob, &error.to_string()),
        Err(_) => failed(&blob, "it took too long"),
    }
    Some(blob.blob_id)
}

impl Postponed {
    fn new() -> Self {
        Self {
            blobs: HashSet::new(),
            since: Instant::now(),
        }
    }

    fn forget_old(&mut self) {
        if self.blobs.is_empty() || self.since.elapsed() >= POSTPONED_FOR {
            *self = Self::new();
        }
    }
}

fn failed(blob: &DoomedBlob, error: &str) {
    metrics::counter!("tidings_blob_removal_failures_total").increment(1);
    tracing::warn!(blob.id = %blob.blob_id, error, "a blob is not removed yet; it is tried again");
}

/// Why a blob is still there, or its row.
#[derive(Debug, thiserror::Error)]
enum RemoveError {
    #[error(transparent)]
    Store(#[from] BlobError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The bytes first: until then the row says that they are there.
async fn remove(context: &Context, store: &BlobStore, blob: &DoomedBlob) -> Result<(), RemoveError> {
    store.remove(blob.blob_id, blob.checkpoint.as_ref()).await?;
    context.metadata.forget_blob(blob.blob_id).await?;
    metrics::counter!("tidings_blobs_removed_total").increment(1);
    tracing::debug!(blob.id = %blob.blob_id, "a blob was removed");
    Ok(())
}
