//! Sessions of clients that are not active any more, or whose user is suspended, are closed. Looked at when
//! INVALIDATIONS says that a user's clients have changed, until Postgres has answered.

use std::sync::Arc;
use std::time::Duration;

use tidings_metadata::{ClientStanding, ClientState};
use tidings_nats::CloseReason;
use tidings_protocol::{ClientId, UserId};

use crate::gateway::Gateway;
use crate::mailbox::Ending;

/// Clients of one question to Postgres.
const CLIENTS_AT_ONCE: usize = 500;
/// While Postgres does not answer. A removed client gets nothing new meanwhile: no worker knows of it.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Gateway {
    /// Closes, in the background, those of these users' sessions that may not go on.
    pub(crate) fn close_inactive(self: &Arc<Self>, users: &[UserId]) {
        let sessions = users.iter().flat_map(|user_id| self.sessions.of_user(user_id));
        let clients: Vec<ClientId> = sessions.map(|session| session.client_id).collect();
        if clients.is_empty() {
            return;
        }
        let gateway = self.clone();
        self.tasks.spawn(async move {
            for clients in clients.chunks(CLIENTS_AT_ONCE) {
                let closing = gateway.close_inactive_of(clients);
                if gateway.stopping.run_until_cancelled(closing).await.is_none() {
                    return;
                }
            }
        });
    }

    async fn close_inactive_of(&self, clients: &[ClientId]) {
        let standings = loop {
            match self.metadata.standings(clients).await {
                Ok(standings) => break standings,
                Err(error) => {
                    tracing::warn!(%error, "users' clients have changed, and cannot be looked up; again in a second");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        };
        for client_id in clients {
            let reason = match standings.get(client_id) {
                Some(standing) => reason_to_close(*standing),
                None => Some(CloseReason::Removed),
            };
            if let (Some(reason), Some(session)) = (reason, self.sessions.get(*client_id)) {
                session.mailbox.close(Ending::Asked(reason));
            }
        }
    }
}

const fn reason_to_close(standing: ClientStanding) -> Option<CloseReason> {
    match standing.state {
        ClientState::Removed => Some(CloseReason::Removed),
        _ if standing.suspended => Some(CloseReason::Suspended),
        // It registers anew at its next hello.
        ClientState::Idle => Some(CloseReason::Kicked),
        ClientState::Active => None,
    }
}
