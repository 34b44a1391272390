//! The life of inboxes beside the path of a message: publishing what a crash left in the outbox, expiring what is too
//! old, emptying the inboxes of clients that are gone, forgetting what nobody needs, large bodies and attachments' bytes too. Any number may run; they find each
//! other's locks in Postgres.

mod attachments;
mod backlog;
mod blob_store;
mod bodies;
mod clocks;
mod config;
mod expire;
mod idle;
mod metrics;
mod orphans;
mod prune;
mod relay;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use tidings_blobs::BlobStore;
use tidings_protocol::Timestamp;
use tidings_service::{Context, LivingWatch, Registration, clock};
use tokio_util::sync::CancellationToken;

use crate::clocks::Clocks;

pub use config::InboxWorkerConfig;

/// For one question to Postgres, above its own limits.
pub(crate) const QUESTION_TIMEOUT: Duration = Duration::from_secs(15);
/// For a piece of work that asks Postgres and NATS several things; nothing is lost when it is given up.
pub(crate) const WORK_TIMEOUT: Duration = Duration::from_mins(1);

/// Works until the service is asked to stop.
pub async fn run(config: InboxWorkerConfig, context: Context) -> anyhow::Result<()> {
    metrics::describe();
    let registered = CancellationToken::new();
    Registration::start(&context, None, registered.clone()).await?;
    let offset = config.clock_offset.saturating_mul(1_000);
    let clocks = Clocks::new(
        &context,
        Arc::new(move || Timestamp(clock::now().0.saturating_add(offset))),
    );
    let store = BlobStore::open(&config.store)?;
    let gateways = LivingWatch::start(&context, "gateway").await?;
    tracing::info!("relaying the outbox, looking after inboxes");
    tokio::join!(
        relay::run(context.clone()),
        prune::run(context.clone()),
        backlog::run(context.clone()),
        clocks.run(&context),
        expire::run(context.clone(), clocks.clone(), config.retention),
        sweep::run(context.clone()),
        bodies::run(context.clone()),
        idle::run(context.clone(), clocks.clone(), gateways, config.idle_after),
        attachments::run(context.clone(), clocks.clone(), store.clone()),
        orphans::run(context.clone(), clocks.clone(), store),
    );
    registered.cancel();
    Ok(())
}
