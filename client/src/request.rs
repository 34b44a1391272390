//! Requests and what becomes of them.

use tidings_protocol::{Chat, ChatId, Error, MessageId, Reply, Timestamp, UserId};
use tokio::sync::oneshot;

use crate::link::Stopped;

/// A request that did not succeed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The server refused it, or the library knows that it would; trying again unchanged is no use, unless
    /// the error says so.
    #[error(transparent)]
    Refused(#[from] Error),
    /// Too many requests wait already.
    #[error("{max} requests wait for their answers already")]
    OutboxFull {
        /// [`Options::outbox_max`](crate::Options::outbox_max)
        max: usize,
    },
    /// The client has stopped. A message or a change that waited is sent when a client is made with the same
    /// store.
    #[error("the client has stopped: {0}")]
    Stopped(#[from] Stopped),
    /// The server said SUCCESS without what belongs to it.
    #[error("the server's reply lacks {0}")]
    Incomplete(&'static str),
}

/// An accepted message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its place within the chat.
    pub seq: u64,
    /// When the server accepted it.
    pub sent_at: Option<Timestamp>,
    /// It had been accepted before; the library had not heard of it.
    pub duplicate: bool,
}

impl Accepted {
    /// What a `sendMessage` was answered.
    pub fn from_reply(reply: &Reply) -> Result<Self, RequestError> {
        Ok(Self {
            seq: reply.seq.ok_or(RequestError::Incomplete("seq"))?,
            sent_at: reply.sent_at,
            duplicate: reply.duplicate.unwrap_or(false),
        })
    }
}

/// A chat that was made or found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub chat_id: ChatId,
    /// The place of its first event, or of its newest change if it was found.
    pub seq: Option<u64>,
    /// Whether this request made it.
    pub created: bool,
}

impl Created {
    /// What a `createChat` was answered.
    pub fn from_reply(reply: &Reply) -> Result<Self, RequestError> {
        Ok(Self {
            chat_id: reply.chat_id.ok_or(RequestError::Incomplete("chatId"))?,
            seq: reply.seq,
            created: reply.created.unwrap_or(false),
        })
    }
}

/// A change of a chat's participants.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its place within the chat.
    pub seq: Option<u64>,
    /// Whether there was something to do.
    pub changed: bool,
}

impl Changed {
    /// What a `modifyChatParticipants` was answered.
    pub fn from_reply(reply: &Reply) -> Self {
        Self {
            seq: reply.seq,
            changed: reply.changed.unwrap_or(false),
        }
    }
}

/// A chat as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatNow {
    /// Its participants and what else is known.
    pub chat: Chat,
    /// The participants who have no active client yet; what is sent waits for their first one. Empty where
    /// the server does not say.
    pub not_yet_connected: Vec<UserId>,
}

/// A message on its way. Letting go of it does not stop the message; its end is then told by
/// [`Event::Settled`](crate::Event::Settled).
#[derive(Debug)]
pub struct Sending {
    pub(crate) message_id: MessageId,
    pub(crate) answer: oneshot::Receiver<Result<Box<Reply>, RequestError>>,
}

impl Sending {
    /// The id that the library chose.
    pub fn message_id(&self) -> MessageId {
        self.message_id
    }

    /// Waits until the server has accepted or refused it, for as long as that takes.
    pub async fn accepted(self) -> Result<Accepted, RequestError> {
        let reply = self.answer.await.map_err(|_| Stopped::ByApplication)??;
        Accepted::from_reply(&reply)
    }
}
