//! The connections of clients are ended by the gateways that hold them.

use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use serde::Serialize;
use tidings_nats::{ApiError, CloseReason, CloseRequest};
use tidings_protocol::ClientId;

use crate::look::Look;
use crate::look::presence::{Gateways, Presence};
use crate::print;

/// For a gateway's word that a connection is closed. It gives 3 s to what the client has sent, 2 s to what was answered,
/// and waits a moment for the other side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a client's connection.
#[derive(Debug, Serialize)]
pub(super) struct Ended {
    client_id: ClientId,
    /// Whether a connection was closed; else there was none.
    closed: bool,
    /// Where it was connected, or is said to have been by a gateway that is gone.
    session: Option<Presence>,
}

/// Ends the connections of these clients, all at once. Returns when the gateways have closed them.
pub(super) async fn end(
    look: &Look,
    clients: &[ClientId],
    reason: CloseReason,
) -> anyhow::Result<Vec<Ended>> {
    let gateways = Gateways::read(look).await?;
    try_join_all(
        clients
            .iter()
            .map(|client| end_one(look, &gateways, *client, reason)),
    )
    .await
}

async fn end_one(
    look: &Look,
    gateways: &Gateways,
    client_id: ClientId,
    reason: CloseReason,
) -> anyhow::Result<Ended> {
    let session = gateways.presence(look, client_id).await?;
    let connected = session.as_ref().filter(|session| session.alive);
    let closed = connected.is_some();
    if let Some(at) = connected {
        let request = CloseRequest {
            client_id,
            // Whichever it has by then: one that came since is as good a reason.
            connection: None,
            reason,
        };
        match look.bus.request_close(&at.gateway, &request, CLOSE_TIMEOUT).await {
            // A gateway that does not listen has stopped, and its connections with it.
            Ok(()) | Err(ApiError::NoResponders(_)) => {}
            Err(error) => {
                return Err(error).with_context(|| {
                    let address = at.address.as_deref().unwrap_or("an unknown address");
                    format!(
                        "the gateway {} at {address} has not said that the connection of client {client_id} is closed",
                        at.gateway
                    )
                });
            }
        }
    }
    Ok(Ended {
        client_id,
        closed,
        session,
    })
}

impl Ended {
    /// A line for people.
    pub(super) fn show(&self, look: &Look) -> String {
        let presence = Presence::show(self.session.as_ref(), look);
        let closed = if self.closed { "closed, was at " } else { "" };
        format!("  client {}  {closed}{presence}\n", self.client_id)
    }
}

/// Lines for people, with how many connections were closed.
pub(super) fn show(look: &Look, ended: &[Ended]) -> String {
    let closed = ended.iter().filter(|ended| ended.closed).count() as u64;
    let closed = print::count(closed, "connection", "connections");
    let lines: String = ended.iter().map(|ended| ended.show(look)).collect();
    format!("{closed} closed\n{lines}")
}
