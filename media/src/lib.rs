//! Attachments over HTTP: uploads, whole or in parts by tus 1.0, and downloads.
//!
//! Bytes never pass through the bus, and neither does anything else of this service: whoever breaks into what faces
//! everybody's uploads finds no login for it. What is there, and who may read it, is in Postgres; the bytes are in a folder or
//! bucket ([`tidings_blobs`]); this service holds nothing of its own, so any number of them may run.

mod attachments;
mod bearer;
mod binding;
mod byte_range;
mod config;
mod content_type;
mod cors;
mod disposition;
mod download;
mod linger;
mod media;
mod metrics;
mod openapi;
mod places;
mod refusal;
mod router;
mod server;
mod spool;
mod turns;
mod tus;
mod upload;
mod upload_error;
mod weather;

use tidings_service::{BaseContext, listen};

pub use config::MediaConfig;
pub use openapi::openapi;

/// Of the drain timeout, for uploads that cannot be resumed elsewhere to come to their end.
const DRAIN_SHARE: f64 = 0.8;

/// Serves until the service is asked to stop.
pub async fn run(config: MediaConfig, context: BaseContext) -> anyhow::Result<()> {
    let accepting = context.require("listening");
    metrics::describe();
    let media = media::Media::start(&config, &context).await?;
    let listener = listen(config.listen)?;
    let address = listener.local_addr()?;
    accepting.holds();
    tracing::info!(%address, "attachments can be uploaded and downloaded");

    let router = router::router(media.clone(), cors::Origins::new(&config.cors_origin));
    let server = server::Server::new(&config, router);
    let served = server.serve(context.clone(), listener);
    let give_up = async {
        context.stopping.cancelled().await;
        tokio::time::sleep(context.drain_timeout.mul_f64(DRAIN_SHARE)).await;
        media.giving_up.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = served => {}
        () = give_up => {}
    }
    Ok(())
}
