//! The outbox relay: publishes what was committed and then not published, because the process that committed it
//! died or lost the bus. Several workers may do it at once: whoever holds the key's lock publishes.

use std::time::Duration;

use futures::StreamExt as _;
use tidings_metadata::OutboxKey;
use tidings_service::{Context, outbox};

/// How often the outbox is looked at: what was left waits for about this and [`AGE_MIN`].
const INTERVAL: Duration = Duration::from_secs(1);
/// A change that is younger is being published by the process that made it.
const AGE_MIN: Duration = Duration::from_secs(2);
/// Keys of one look; the next look finds the rest.
const KEYS_MAX: u32 = 256;
/// Keys published at once: each holds a connection to Postgres.
const AT_ONCE: usize = 4;

/// Relays until the service is asked to stop.
pub(crate) async fn run(context: Context) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while context
        .stopping
        .run_until_cancelled(interval.tick())
        .await
        .is_some()
    {
        match context.metadata.unsent_keys(AGE_MIN, KEYS_MAX).await {
            Ok(keys) => {
                metrics::gauge!("tidings_outbox_waiting_keys").set(keys.len() as f64);
                relay(&context, keys).await;
            }
            Err(error) => tracing::debug!(%error, "the outbox could not be looked at"),
        }
    }
}

async fn relay(context: &Context, keys: Vec<OutboxKey>) {
    let flush = |key: OutboxKey| async move {
        let flushed = outbox::flush(&context.metadata, &context.bus, &context.topology, key.clone()).await;
        match flushed {
            Ok(flushed) if flushed.is_empty() => {}
            Ok(flushed) => {
                metrics::counter!("tidings_outbox_relayed_total").increment(flushed.len() as u64);
                tracing::info!(
                    ?key,
                    changes = flushed.len(),
                    "published what was left in the outbox"
                );
            }
            Err(error) => tracing::warn!(?key, %error, "what is left in the outbox cannot be published yet"),
        }
    };
    futures::stream::iter(keys)
        .for_each_concurrent(AT_ONCE, flush)
        .await;
}
