//! The chats, as the gateway needs them to accept messages: cached, and never ahead of what was published.

use std::sync::Arc;
use std::time::Duration;

use tidings_metadata::{ChatRecord, InvalidatedCache, OutboxKey};
use tidings_protocol::{ChatId, Error, ErrorCode, UserId};
use tidings_service::outbox::{self, FlushError, Flushed};

use crate::gateway::Gateway;
use crate::unavailable::{CHAT_BUSY_RETRY_MS, database_error, in_time, unavailable};

/// Chats kept: of the size of what one gateway's clients are active in. One of 100 participants is about 10 KB.
const CACHED_MAX: u64 = 50_000;
/// The last resort against an invalidation that never came.
const AGE_MAX: Duration = Duration::from_mins(10);

/// See the module.
pub(crate) type ChatCache = InvalidatedCache<ChatId, Option<Arc<ChatRecord>>>;

pub(crate) fn cache() -> ChatCache {
    InvalidatedCache::new(CACHED_MAX, AGE_MAX)
}

impl Gateway {
    /// The chat, for somebody who must be in it.
    pub(crate) async fn chat_of(&self, chat_id: ChatId, user_id: &UserId) -> Result<Arc<ChatRecord>, Error> {
        let known = self.chats.get(&chat_id);
        let outcome = if known.is_some() { "hit" } else { "miss" };
        metrics::counter!("tidings_cache_lookups_total", "cache" => "chats", "outcome" => outcome)
            .increment(1);
        let record = match known {
            Some(record) => record,
            None => self.loaded_chat(chat_id).await?,
        };
        let record =
            record.ok_or_else(|| Error::new(ErrorCode::NotFound, "there is no such chat").at("chatId"))?;
        if record.closed {
            return Err(Error::new(ErrorCode::ChatClosed, "everybody has left the chat").at("chatId"));
        }
        if !record
            .chat
            .participants
            .iter()
            .any(|participant| participant.user_id == *user_id)
        {
            return Err(Error::new(ErrorCode::NotAParticipant, "the user is not in the chat").at("chatId"));
        }
        Ok(record)
    }

    fn loaded_chat(&self, chat_id: ChatId) -> impl Future<Output = Result<Option<Arc<ChatRecord>>, Error>> {
        in_time(async move {
            let record = self.chats.get_or_load(&chat_id, || self.load_chat(chat_id)).await;
            record.map_err(|error| database_error(&error))
        })
    }

    /// From Postgres. What was committed and not published yet is published first: whoever was added may send only
    /// after everybody was told.
    async fn load_chat(&self, chat_id: ChatId) -> tidings_metadata::Result<Option<Arc<ChatRecord>>> {
        let Some(record) = self.metadata.chat(chat_id).await? else {
            return Ok(None);
        };
        if !record.unsent {
            return Ok(Some(Arc::new(record)));
        }
        if let Err(error) = self.flush(OutboxKey::Chat(chat_id)).await {
            tracing::debug!(chat.id = %chat_id, %error, "the chat's changes could not be published yet");
            return Err(tidings_metadata::DatabaseError::Unavailable(
                std::io::Error::other("the chat's changes could not be published").into(),
            ));
        }
        let record = self.metadata.chat(chat_id).await?;
        Ok(record.map(Arc::new))
    }

    /// Publishes what is committed of this chat, so that its place among the messages is known. None if somebody
    /// else has published it; then Postgres knows the place.
    pub(crate) async fn publish_change(&self, chat_id: ChatId, version: u64) -> Result<Option<u64>, Error> {
        self.chats.invalidate(&chat_id);
        match self.flush(OutboxKey::Chat(chat_id)).await {
            Ok(flushed) => Ok(flushed
                .iter()
                .find(|flushed| flushed.version == version)
                .map(|flushed| flushed.seq)),
            Err(FlushError::ChatBusy) => {
                let message = "the chat has too many events under way; retry with the same requestId";
                Err(Error::new(ErrorCode::ChatBusy, message).retry_after_ms(CHAT_BUSY_RETRY_MS))
            }
            Err(error) => {
                tracing::debug!(chat.id = %chat_id, %error, "a change was not published yet");
                Err(unavailable(
                    "the change is not published yet; retry with the same requestId",
                ))
            }
        }
    }

    /// Publishes what the outbox holds of a chat or a user.
    pub(crate) async fn flush(&self, key: OutboxKey) -> Result<Vec<Flushed>, FlushError> {
        outbox::flush(&self.metadata, &self.publisher.bus(), &self.topology, key).await
    }
}
