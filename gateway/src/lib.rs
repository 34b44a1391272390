//! The WebSocket edge: sessions, commands in, deliveries out.
//!
//! A connection is one task ([`session`]) around a pure state machine ([`inbox_session`]). What it needs of the
//! rest is in [`gateway`]; what the rest tells it comes through a [`mailbox`] that nobody waits for.

mod admission;
mod bodies;
mod changed_users;
mod chats;
mod check;
mod clients;
mod config;
mod confirm;
mod create_attachment;
mod create_chat;
mod cut_off;
mod delivery;
mod direct_answers;
mod doubts;
mod drain;
mod ends;
mod ensure_durable;
mod frame_bounds;
mod gateway;
mod grant;
mod handshake;
mod hello;
mod inactive;
mod inbox_reader;
mod inbox_session;
mod live;
mod look_up_chats;
mod mailbox;
mod metrics;
mod modify_chat_participants;
mod outgoing;
mod publisher;
mod rate_limits;
mod readings;
mod renew_token;
mod requests;
mod seat;
mod seen;
mod send_message;
mod session;
mod session_keys;
mod sessions;
mod socket;
mod take_over;
mod unavailable;
mod upgrade;
mod web_socket;
mod window;
mod wire;
mod workers;

use tidings_service::{Context, Registration, listen};
use tokio_util::sync::CancellationToken;

pub use config::GatewayConfig;

/// Serves clients until the service is asked to stop, then sends them elsewhere.
pub async fn run(config: GatewayConfig, context: Context) -> anyhow::Result<()> {
    let accepting = context.require("listening");
    metrics::describe();
    let gateway = gateway::Gateway::start(&config, &context).await?;
    let listener = listen(config.listen)?;
    let address = listener.local_addr()?;
    let registered = CancellationToken::new();
    let registration = Registration::start(&context, Some(address.to_string()), registered.clone()).await?;
    let (cut_off, stopping) = (
        cut_off::run(gateway.clone(), context.clone(), registration),
        context.stopping.clone(),
    );
    context.tasks.spawn(async move {
        stopping.run_until_cancelled(cut_off).await;
    });
    accepting.holds();
    tracing::info!(%address, "clients can connect");

    let router = upgrade::router(gateway.clone(), context.stopping.clone(), config.stall_timeout);
    let stopping = context.stopping.clone();
    let server = axum::serve(
        socket::Sockets::new(listener, config.proxy_protocol),
        router.into_make_service_with_connect_info::<socket::Peer>(),
    )
    .with_graceful_shutdown(async move { stopping.cancelled().await });
    context
        .tasks
        .spawn_essential("listener", async move { Ok(server.await?) });
    context.stopping.cancelled().await;
    drain::drain(&gateway.sessions, context.drain_timeout).await;
    registered.cancel();
    Ok(())
}
