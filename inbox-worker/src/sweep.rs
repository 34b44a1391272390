//! Empties the inboxes of clients that are idle or removed, and deletes their durables. The list is in Postgres, so
//! that no crash forgets it; each is emptied again a minute and twenty minutes later, since a worker that did not know
//! yet, or whose cache missed it, may have stored something meanwhile. Several may sweep at once.

use std::time::Duration;

use futures::StreamExt as _;
use tidings_metadata::{DatabaseError, InboxSweep, in_time};
use tidings_nats::{ApiError, Inbox, Shard, inbox_stream, inbox_subject, lost_subject};
use tidings_service::Context;

use crate::{QUESTION_TIMEOUT, WORK_TIMEOUT};

/// How often the list is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// After a failure, once it was emptied, and once it was emptied again: a worker learns from INVALIDATIONS within
/// seconds, and from the age of its cache, 10 minutes, at last.
const AGAIN_AFTER: [Duration; 3] = [
    Duration::from_secs(5),
    Duration::from_mins(1),
    Duration::from_mins(20),
];
/// Inboxes of one look; the next look finds the rest.
const SWEEPS_MAX: u32 = 100;
/// Inboxes that are emptied at once.
const AT_ONCE: usize = 4;
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why an inbox is not empty yet.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    /// NATS.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Sweeps until the service is asked to stop.
pub(crate) async fn run(context: Context) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while context
        .stopping
        .run_until_cancelled(interval.tick())
        .await
        .is_some()
    {
        let sweeps = context.metadata.inboxes_to_sweep(AGAIN_AFTER, SWEEPS_MAX);
        match in_time(QUESTION_TIMEOUT, sweeps).await {
            Ok(sweeps) => {
                metrics::gauge!("tidings_inbox_sweeps_waiting").set(sweeps.len() as f64);
                futures::stream::iter(sweeps)
                    .for_each_concurrent(AT_ONCE, |sweep| try_sweep(&context, sweep))
                    .await;
            }
            Err(error) => tracing::debug!(%error, "inboxes to sweep could not be looked for"),
        }
    }
}

async fn try_sweep(context: &Context, listed: InboxSweep) {
    match in_time(WORK_TIMEOUT, sweep(context, &listed)).await {
        Ok(deleted) => {
            metrics::counter!("tidings_inbox_sweeps_total").increment(1);
            if deleted > 0 {
                metrics::counter!("tidings_swept_entries_total").increment(deleted);
                tracing::info!(client.id = %listed.client, state = ?listed.state, entries = deleted, "an inbox was emptied");
            }
        }
        Err(error) => {
            tracing::warn!(client.id = %listed.client, %error, "an inbox is not emptied yet; later again");
            // Behind those that wait for their first try.
            let noted = context.metadata.inbox_swept(&listed, false);
            let _ = in_time(QUESTION_TIMEOUT, noted).await;
        }
    }
}

/// Says how many entries and marks there were.
async fn sweep(context: &Context, listed: &InboxSweep) -> Result<u64, SweepError> {
    let (bus, topology) = (&context.bus, &context.topology);
    let shard = topology.shard(&listed.user);
    let stream = inbox_stream(shard);
    // What is stored by now was stored before the client is seen to be idle below. Should it be back by the time that
    // this is deleted, nothing that was stored for it since is.
    let until = bus.last_sequence(&stream, TIMEOUT).await?;
    let now = context.metadata.client(listed.client).await?;
    if now.is_none_or(|now| now.state != listed.state) {
        return Ok(0);
    }
    let own = inbox_subject(topology, &listed.user, Inbox::Client(listed.client));
    let mut deleted = empty(context, shard, &own, until).await?;
    if let Some(inherited_up_to) = listed.inherited_up_to {
        let first = inbox_subject(topology, &listed.user, Inbox::First);
        deleted += empty(context, shard, &first, inherited_up_to).await?;
    }
    // Should the client be back already, its next connection makes the durable again.
    bus.delete_durable(shard, listed.client, TIMEOUT).await?;
    context.metadata.inbox_swept(listed, true).await?;
    Ok(deleted)
}

/// Deletes entries and marks.
async fn empty(context: &Context, shard: Shard, subject: &str, until: u64) -> Result<u64, ApiError> {
    let stream = inbox_stream(shard);
    let mut deleted = 0;
    for subject in [subject, &lost_subject(subject)] {
        deleted += context
            .bus
            .purge_subject_up_to(&stream, subject, until, TIMEOUT)
            .await?;
    }
    Ok(deleted)
}
