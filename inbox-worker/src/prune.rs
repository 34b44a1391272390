//! Forgets requests after a day, and published changes of chats that nobody needs any more.

use std::time::Duration;

use tidings_metadata::in_time;
use tidings_service::Context;

use crate::QUESTION_TIMEOUT;

/// How often.
const INTERVAL: Duration = Duration::from_mins(1);
/// Rows of one statement: a few milliseconds of work, and short locks.
const ROWS_MAX: u32 = 5_000;

/// Prunes until the service is asked to stop.
pub(crate) async fn run(context: Context) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while context
        .stopping
        .run_until_cancelled(interval.tick())
        .await
        .is_some()
    {
        match in_time(QUESTION_TIMEOUT, context.metadata.prune(ROWS_MAX)).await {
            Ok(pruned) => {
                metrics::counter!("tidings_pruned_rows_total", "table" => "requests")
                    .increment(pruned.requests);
                metrics::counter!("tidings_pruned_rows_total", "table" => "outbox").increment(pruned.outbox);
            }
            Err(error) => tracing::debug!(%error, "nothing was pruned; in a minute again"),
        }
    }
}
