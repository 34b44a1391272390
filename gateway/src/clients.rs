//! `listClients` and `removeClient`, and what follows when a client is removed.

use std::time::Duration;

use tidings_metadata::{OutboxKey, RemoveClientError};
use tidings_nats::{CloseReason, Inbox, inbox_stream, inbox_subject};
use tidings_protocol::{ClientId, ClientInfo, Error, ErrorCode, ListClients, RemoveClient, Reply, UserId};

use crate::gateway::Gateway;
use crate::mailbox::Ending;
use crate::sessions::SessionHandle;
use crate::take_over;
use crate::unavailable::database_error;

/// For emptying a removed client's inbox.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(5);

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
        let removed = self
            .metadata
            .remove_client(&session.user_id, request.client_id)
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

    /// Tells everybody and closes the connection. What the inbox still holds is emptied in the background; should
    /// this process die over it, it expires.
    pub(crate) async fn after_removal(&self, user_id: &UserId, client_id: ClientId) {
        if let Err(error) = self.flush(OutboxKey::User(user_id.clone())).await {
            tracing::debug!(%error, "the removal was not published yet; the relay will");
        }
        if let Some(handle) = self.sessions.get(client_id) {
            handle.mailbox.close(Ending::Asked(CloseReason::Removed));
        } else if let Ok(Some(key)) = take_over::read_key(&self.bus, client_id).await {
            take_over::close_elsewhere(&self.bus, client_id, &key, CloseReason::Removed).await;
        }
        let bus = self.bus.clone();
        let shard = self.topology.shard(user_id);
        let subject = inbox_subject(&self.topology, user_id, Inbox::Client(client_id));
        self.tasks.spawn(async move {
            let deleted = bus.delete_durable(shard, client_id, CLEAN_TIMEOUT).await;
            let purged = bus.purge_subject(&inbox_stream(shard), &subject, CLEAN_TIMEOUT).await;
            if let Err(error) = deleted.and(purged) {
                tracing::warn!(client.id = %client_id, %error, "a removed client's inbox was not emptied; it expires");
            }
        });
    }
}
