//! When clients were last connected, written to Postgres a minute's worth at a time.

use std::collections::HashSet;

use parking_lot::Mutex;
use tidings_metadata::Metadata;
use tidings_protocol::{ClientId, Error};

use crate::sessions::Sessions;
use crate::unavailable::{database_error, in_time};

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
        let touched = async {
            let touched = metadata.touch_clients(&clients).await;
            touched.map_err(|error| database_error(&error))
        };
        self.until_written(&clients, touched).await;
    }

    /// Keeps these for the next writing if this one fails or takes too long: all the upkeep waits for it. Who was written
    /// already may be written again.
    async fn until_written(&self, clients: &[ClientId], writing: impl Future<Output = Result<(), Error>>) {
        if let Err(error) = in_time(writing).await {
            let error = error.message;
            tracing::debug!(error, "when clients were last seen is written a minute later");
            self.state.lock().clients.extend(clients);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_written_in_time_is_written_with_the_next_ones() {
        let seen = Seen::default();
        let client_id = ClientId(uuid::Uuid::from_u128(1));
        let clients = [client_id];
        let stuck = seen.until_written(&clients, pending());
        let waited = tokio::time::timeout(Duration::from_mins(1), stuck).await;
        assert_eq!(waited, Ok(()), "the next minute's upkeep is due");
        assert!(seen.state.lock().clients.remove(&client_id));
        seen.until_written(&clients, ready(Ok(()))).await;
        assert!(seen.state.lock().clients.is_empty());
    }
}
