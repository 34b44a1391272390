//! `listClients` and `removeClient`, and what follows when a client is removed.

use std::time::Duration;

use tidings_metadata::{OutboxKey, RemoveClientError};
use tidings_nats::{CloseReason, inbox_stream};
use tidings_protocol::{ClientId, ClientInfo, Error, ErrorCode, ListClients, RemoveClient, Reply, UserId};

use crate::gateway::Gateway;
use crate::mailbox::Ending;
use crate::sessions::SessionHandle;
use crate::take_over;
use crate::unavailable::{database_error, in_time, unavailable};

/// For the end of an inbox's stream.
const INFO_TIMEOUT: Duration = Duration::from_secs(2);

impl Gateway {
    /// The user's active clients.
    pub(crate) async fn list_clients(
        &self,
        session: &SessionHandle,
        request: ListClients,
    ) -> Result<Reply, Error> {
        let clients = self
            .metadata
            .clients_of(&session.user_id)
            .await
            .map_err(|error| database_error(&error))?;
        Ok(Reply {
            clients: Some(self.with_presence(clients).await),
            ..Reply::success(request.id)
        })
    }

    /// Removes a client of the same user, for ever.
    pub(crate) async fn remove_client(
        &self,
        session: &SessionHandle,
        request: RemoveClient,
    ) -> Result<Reply, Error> {
        let sequence = self.inbox_sequence(&session.user_id).await;
        let removed = self
            .metadata
            .remove_client(&session.user_id, request.client_id, sequence)
            .await;
        removed.map_err(|error| match error {
            RemoveClientError::NotFound => Error::new(ErrorCode::NotFound, error.to_string()).at("clientId"),
            RemoveClientError::Database(error) => database_error(&error),
        })?;
        self.after_removal(&session.user_id, request.client_id).await;
        Ok(Reply::success(request.id))
    }

    /// Which of these clients are connected. A key whose gateway is gone says nothing.
    pub(crate) async fn with_presence(&self, mut clients: Vec<ClientInfo>) -> Vec<ClientInfo> {
        let gateways = self.gateways.now();
        for client in &mut clients {
            let key = take_over::read_key(&self.bus, client.client_id)
                .await
                .ok()
                .flatten();
            client.online = key.is_some_and(|key| {
                gateways
                    .instances
                    .keys()
                    .any(|boot_id| boot_id.to_string() == key.gateway)
            });
        }
        clients
    }

    /// Tells everybody and closes the connection. An inbox worker empties the inbox.
    pub(crate) async fn after_removal(&self, user_id: &UserId, client_id: ClientId) {
        let flushed = in_time(async {
            let flushed = self.flush(OutboxKey::User(user_id.clone())).await;
            flushed.map_err(|error| unavailable(&error.to_string()))
        });
        if let Err(error) = flushed.await {
            let error = error.message;
            tracing::debug!(error, "the removal was not published yet; the relay will");
        }
        if let Some(handle) = self.sessions.get(client_id) {
            handle.mailbox.close(Ending::Asked(CloseReason::Removed));
        } else if let Ok(Some(key)) = take_over::read_key(&self.bus, client_id).await {
            take_over::close_elsewhere(&self.bus, client_id, &key, CloseReason::Removed).await;
        }
    }

    /// The last sequence of the stream of a user's inboxes; None where it is not known in time.
    pub(crate) async fn inbox_sequence(&self, user_id: &UserId) -> Option<u64> {
        let stream = inbox_stream(self.topology.shard(user_id));
        match self.bus.last_sequence(&stream, INFO_TIMEOUT).await {
            Ok(sequence) => Some(sequence),
            Err(error) => {
                tracing::debug!(%stream, %error, "the end of an inbox's stream is not known");
                None
            }
        }
    }
}
