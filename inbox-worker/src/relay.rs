//! The outbox relay: publishes what was committed and then not published, because the process that committed it
//! died or lost the bus. Several workers may do it at once: whoever holds the key's lock publishes.

use std::time::Duration;

use futures::StreamExt as _;
use tidings_metadata::{OutboxKey, in_time};
use tidings_service::{Context, outbox};

use crate::{QUESTION_TIMEOUT, WORK_TIMEOUT};

/// How often the outbox is looked at: what was left waits for about this and [`AGE_MIN`].
const INTERVAL: Duration = Duration::from_secs(1);
/// A change that is younger is being published by the process that made it.
const AGE_MIN: Duration = Duration::from_secs(2);
/// Keys of one look. The next look goes on behind those that could not be published, so that as many chats that are
/// full for long do not keep everybody else waiting.
const KEYS_MAX: u32 = 256;
/// Keys published at once: each holds a connection to Postgres.
const AT_ONCE: usize = 4;

/// Relays until the service is asked to stop.
pub(crate) async fn run(context: Context) {
    let mut interval = tokio::time::interval(INTERVAL);
    let mut skip = 0;
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while context
        .stopping
        .run_until_cancelled(interval.tick())
        .await
        .is_some()
    {
        let unsent = context.metadata.unsent_keys(AGE_MIN, skip, KEYS_MAX);
        match in_time(QUESTION_TIMEOUT, unsent).await {
            Ok(keys) => {
                metrics::gauge!("tidings_outbox_waiting_keys").set(f64::from(skip) + keys.len() as f64);
                let last = keys.len() < KEYS_MAX as usize;
                let failed = relay(&context, keys).await;
                skip = if last { 0 } else { skip + failed };
            }
            Err(error) => tracing::debug!(%error, "the outbox could not be looked at"),
        }
    }
}

/// Says how many keys could not be published.
async fn relay(context: &Context, keys: Vec<OutboxKey>) -> u32 {
    let flush = |key: OutboxKey| async move {
        let flushed = outbox::flush(&context.metadata, &context.bus, &context.topology, key.clone());
        match in_time(WORK_TIMEOUT, flushed).await {
            Ok(flushed) if flushed.is_empty() => {}
            Ok(flushed) => {
                metrics::counter!("tidings_outbox_relayed_total").increment(flushed.len() as u64);
                tracing::info!(
                    ?key,
                    changes = flushed.len(),
                    "published what was left in the outbox"
                );
            }
            Err(error) => {
                tracing::warn!(?key, %error, "what is left in the outbox cannot be published yet");
                return 1;
            }
        }
        0
    };
    futures::stream::iter(keys)
        .map(flush)
        .buffer_unordered(AT_ONCE)
        .fold(0, async |failed, one| failed + one)
        .await
}
