//! The life of inboxes beside the path of a message: publishing what a crash left in the outbox, forgetting what
//! nobody needs. Any number may run; they find each other's locks in Postgres.

mod config;
mod prune;
mod relay;

use tidings_service::{Context, Registration};
use tokio_util::sync::CancellationToken;

pub use config::InboxWorkerConfig;

/// Works until the service is asked to stop.
pub async fn run(_config: InboxWorkerConfig, context: Context) -> anyhow::Result<()> {
    let registered = CancellationToken::new();
    Registration::start(&context, None, registered.clone()).await?;
    tracing::info!("relaying the outbox");
    tokio::join!(relay::run(context.clone()), prune::run(context.clone()));
    registered.cancel();
    Ok(())
}
