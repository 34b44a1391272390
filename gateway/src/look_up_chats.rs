//! `listChats` and `getChat`.

use tidings_protocol::{Chat, Error, GetChat, ListChats, Reply, UserId};

use crate::gateway::Gateway;
use crate::sessions::SessionHandle;
use crate::unavailable::database_error;

/// Chats of a page when the client does not say, and at most: a page of full chats is about 500 KB.
const PAGE: u32 = 100;

impl Gateway {
    /// A page of the user's chats.
    pub(crate) async fn list_chats(
        &self,
        session: &SessionHandle,
        request: ListChats,
    ) -> Result<Reply, Error> {
        let limit = request.limit.unwrap_or(PAGE);
        let page = self
            .metadata
            .list_chats(&session.user_id, request.after, limit)
            .await;
        let (chats, next) = page.map_err(|error| database_error(&error))?;
        Ok(Reply {
            chats: Some(chats),
            next: Some(next),
            ..Reply::success(request.id)
        })
    }

    /// One chat that the user is in.
    pub(crate) async fn get_chat(&self, session: &SessionHandle, request: GetChat) -> Result<Reply, Error> {
        let record = self.chat_of(request.chat_id, &session.user_id).await?;
        Ok(Reply {
            chat: Some(record.chat.clone()),
            not_yet_connected: self.not_yet_connected(&record.chat).await,
            ..Reply::success(request.id)
        })
    }

    /// The participants without an active client, in the order of the chat. None where Postgres does not say:
    /// the chat itself may be cached, and is answered all the same.
    async fn not_yet_connected(&self, chat: &Chat) -> Option<Vec<UserId>> {
        let users = || chat.participants.iter().map(|participant| &participant.user_id);
        let all: Vec<UserId> = users().cloned().collect();
        let clients = match self.metadata.active_clients(&all).await {
            Ok(clients) => clients,
            Err(error) => {
                tracing::debug!(%error, chat.id = %chat.chat_id, "no word about who has connected");
                return None;
            }
        };
        let without = |user: &&UserId| clients.get(*user).is_none_or(Vec::is_empty);
        Some(users().filter(without).cloned().collect())
    }
}
