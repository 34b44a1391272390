//! Clients that did not connect for long become idle: no entry is stored for them any more, and their inbox is one to
//! sweep.

use std::time::Duration;

use tidings_metadata::{DatabaseError, OutboxKey, in_time};
use tidings_nats::{ApiError, SESSIONS, SessionKey, inbox_stream};
use tidings_protocol::{ClientId, UserId};
use tidings_service::{Context, LivingWatch, outbox};

use crate::clocks::{ClockError, Clocks};
use crate::{QUESTION_TIMEOUT, WORK_TIMEOUT};

/// How often clients are looked at: one is idle so much later than it could be, at most a tenth of its time.
const INTERVAL_MAX: Duration = Duration::from_mins(10);
const INTERVAL_MIN: Duration = Duration::from_millis(500);
/// Clients of one look at Postgres.
const CLIENTS_MAX: u32 = 100;
/// Looks of one round; the next one finds the rest.
const LOOKS_MAX: usize = 100;
/// How long before it a client that is about to become idle is counted.
const WARNING: Duration = Duration::from_hours(7 * 24);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a client is not idle yet.
#[derive(Debug, thiserror::Error)]
enum IdleError {
    /// A clock is wrong.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// NATS.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Nobody knows which gateways are alive.
    #[error("the gateways are not known: {0:#}")]
    Gateways(anyhow::Error),
}

/// Makes clients idle until the service is asked to stop.
pub(crate) async fn run(context: Context, clocks: Clocks, gateways: LivingWatch, idle_after: Duration) {
    let mut interval = tokio::time::interval((idle_after / 10).clamp(INTERVAL_MIN, INTERVAL_MAX));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while context
        .stopping
        .run_until_cancelled(interval.tick())
        .await
        .is_some()
    {
        if let Err(error) = round(&context, &clocks, &gateways, idle_after).await {
            tracing::warn!(%error, "clients that were away for long could not be made idle; the next round tries again");
        }
    }
}

async fn round(
    context: &Context,
    clocks: &Clocks,
    gateways: &LivingWatch,
    idle_after: Duration,
) -> Result<(), IdleError> {
    let soon = idle_after.checked_sub(WARNING).unwrap_or(idle_after);
    let warned = in_time(QUESTION_TIMEOUT, context.metadata.count_unseen(soon)).await?;
    metrics::gauge!("tidings_clients_idle_soon").set(warned as f64);
    for _ in 0..LOOKS_MAX {
        let unseen = context.metadata.unseen_clients(idle_after, CLIENTS_MAX);
        let unseen = in_time(QUESTION_TIMEOUT, unseen).await?;
        if unseen.is_empty() {
            return Ok(());
        }
        let mut failed = false;
        for (user_id, client_id) in &unseen {
            if context.stopping.is_cancelled() {
                return Ok(());
            }
            let idled = idle(context, clocks, gateways, user_id, *client_id, idle_after);
            match in_time(WORK_TIMEOUT, idled).await {
                Ok(()) => {}
                Err(IdleError::Clock(error)) => return Err(error.into()),
                Err(error) => {
                    // Its shard does not answer, say; those behind it are no worse for that.
                    tracing::warn!(client.id = %client_id, %error, "a client could not be made idle; the next round tries again");
                    failed = true;
                }
            }
        }
        // Those that failed would be found again.
        if failed || unseen.len() < CLIENTS_MAX as usize {
            return Ok(());
        }
    }
    Ok(())
}

async fn idle(
    context: &Context,
    clocks: &Clocks,
    gateways: &LivingWatch,
    user_id: &UserId,
    client_id: ClientId,
    idle_after: Duration,
) -> Result<(), IdleError> {
    let stream = inbox_stream(context.topology.shard(user_id));
    let moment = clocks.agreed().await?;
    let bounds = context.bus.stream_bounds(&stream, TIMEOUT).await?;
    clocks.check_leader(&stream, bounds.now, moment)?;
    let last_sequence = context.bus.last_sequence(&stream, TIMEOUT).await?;
    if is_connected(context, gateways, client_id).await? {
        // Its gateway could not write that for long.
        context.metadata.touch_clients(&[client_id]).await?;
        return Ok(());
    }
    let metadata = &context.metadata;
    if !metadata
        .idle_client(user_id, client_id, idle_after, last_sequence)
        .await?
    {
        return Ok(());
    }
    metrics::counter!("tidings_clients_idled_total").increment(1);
    tracing::info!(user.id = %user_id, client.id = %client_id, "a client is idle");
    let key = OutboxKey::User(user_id.clone());
    if let Err(error) = outbox::flush(metadata, &context.bus, &context.topology, key).await {
        tracing::debug!(%error, "that a client is idle was not published yet; the relay will");
    }
    Ok(())
}

/// Whether a living gateway has a connection of the client.
async fn is_connected(
    context: &Context,
    gateways: &LivingWatch,
    client_id: ClientId,
) -> Result<bool, IdleError> {
    let asked = tokio::time::Instant::now();
    let subject = format!("$KV.{SESSIONS}.{client_id}");
    let last = context
        .bus
        .last_by_subject_now(&format!("KV_{SESSIONS}"), &subject, TIMEOUT)
        .await?;
    let Some(key) = last.and_then(|message| SessionKey::decode(&message.payload)) else {
        return Ok(false);
    };
    let living = gateways.after(asked).await.map_err(IdleError::Gateways)?;
    Ok(living
        .instances
        .keys()
        .any(|boot_id| boot_id.to_string() == key.gateway))
}
