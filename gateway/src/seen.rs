//! When clients were last connected, written to Postgres a minute's worth at a time.

use std::collections::HashSet;

use parking_lot::Mutex;
use tidings_metadata::Metadata;
use tidings_protocol::ClientId;

use crate::sessions::Sessions;

/// Every so many writings all connected clients are touched, so that none of them counts as away.
const ALL_EVERY: u32 = 60;

/// The clients that came or went since the last writing.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: HashSet<ClientId>,
    writings: u32,
}

impl Seen {
    /// This client came or went.
    pub(crate) fn note(&self, client_id: ClientId) {
        self.state.lock().clients.insert(client_id);
    }

    /// Writes them. What cannot be written is tried again with the next ones.
    pub(crate) async fn write(&self, metadata: &Metadata, sessions: &Sessions) {
        let clients: Vec<ClientId> = {
            let mut state = self.state.lock();
            state.writings += 1;
            let mut clients = std::mem::take(&mut state.clients);
            if state.writings.is_multiple_of(ALL_EVERY) {
                clients.extend(sessions.all().iter().map(|session| session.client_id));
            }
            clients.into_iter().collect()
        };
        if clients.is_empty() {
            return;
        }
        if let Err(error) = metadata.touch_clients(&clients).await {
            tracing::debug!(%error, "when clients were last seen is written a minute later");
            self.state.lock().clients.extend(clients);
        }
    }
}
