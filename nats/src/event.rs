//! What happens in chats, as CHATS and the inboxes store it.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tidings_protocol::{Attachment, ChatId, ChatKind, ClientId, MessageId, Participant, Timestamp, UserId};

use crate::wire::{self, WireError};

/// What happened in a chat; its place there is its stream sequence in CHATS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Somebody said something.
    Message(Message),
    /// The participants have changed.
    ChatUpdate(ChatUpdate),
}

/// A message as the gateway accepted it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Where.
    pub chat_id: ChatId,
    /// The sender's id for it.
    pub message_id: MessageId,
    /// From whom.
    pub user_id: UserId,
    /// From which of their clients.
    pub client_id: ClientId,
    /// When the gateway accepted it, by its clock.
    pub sent_at: Timestamp,
    /// What. Never in a log.
    pub message: String,
    /// Files.
    pub attachments: Vec<Attachment>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("chat_id", &self.chat_id)
            .field("message_id", &self.message_id)
            .field("user_id", &self.user_id)
            .field("client_id", &self.client_id)
            .field("message_bytes", &self.message.len())
            .finish_non_exhaustive()
    }
}

/// The participants of a chat after a change, and the change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatUpdate {
    /// Where.
    pub chat_id: ChatId,
    /// Counts the changes of this chat from 1.
    pub version: u64,
    /// Two or many.
    pub kind: ChatKind,
    /// The chat's name.
    pub name: Option<String>,
    /// Who did it.
    pub by: UserId,
    /// When, by Postgres' clock.
    pub at: Timestamp,
    /// Who came.
    pub added: Vec<UserId>,
    /// Who went.
    pub removed: Vec<UserId>,
    /// Everybody who is in it now.
    pub participants: Vec<Participant>,
}

impl Event {
    /// In which chat.
    pub const fn chat_id(&self) -> ChatId {
        match self {
            Self::Message(message) => message.chat_id,
            Self::ChatUpdate(update) => update.chat_id,
        }
    }

    /// `message` or `chatUpdate`, for headers and logs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::ChatUpdate(_) => "chatUpdate",
        }
    }

    /// When: a message's by the clock of the gateway that accepted it, a change's by Postgres'.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::Message(message) => message.sent_at,
            Self::ChatUpdate(update) => update.at,
        }
    }

    /// By whom.
    pub const fn from(&self) -> &UserId {
        match self {
            Self::Message(message) => &message.user_id,
            Self::ChatUpdate(update) => &update.by,
        }
    }

    /// For CHATS.
    pub fn encode(&self) -> Bytes {
        wire::encode(self)
    }

    /// From CHATS.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        wire::decode(payload)
    }

    /// Its `Nats-Msg-Id` in CHATS. Without the chat, a message forwarded to a second chat would be swallowed.
    pub fn message_id(&self) -> String {
        match self {
            Self::Message(message) => {
                format!("{}.{}.{}", message.chat_id, message.client_id, message.message_id)
            }
            Self::ChatUpdate(update) => format!("{}.u.{}", update.chat_id, update.version),
        }
    }
}

/// One event in one inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The event's stream sequence in CHATS.
    pub seq: u64,
    /// The event.
    pub event: Event,
}

impl Entry {
    /// For an inbox.
    pub fn encode(&self) -> Bytes {
        wire::encode(self)
    }

    /// The same bytes from an event as it came from CHATS, without reading it: an entry is the sequence, then
    /// the event, in the format of the event.
    pub fn encode_around(seq: u64, event_payload: &[u8]) -> Result<Bytes, WireError> {
        let body = wire::body(event_payload)?;
        let mut out = BytesMut::with_capacity(11 + body.len());
        out.put_u8(event_payload[0]);
        let mut buffer = [0_u8; 10];
        out.put_slice(postcard::to_slice(&seq, &mut buffer).expect("ten bytes hold every u64"));
        out.put_slice(body);
        Ok(out.freeze())
    }

    /// From an inbox or a notice.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        wire::decode(payload)
    }

    /// Its `Nats-Msg-Id` in the inbox's stream: unforgeable, since the server gave the sequence.
    pub fn message_id(seq: u64, client: &str) -> String {
        format!("{seq}.{client}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn message() -> Event {
        Event::Message(Message {
            chat_id: ChatId(Uuid::from_u128(1)),
            message_id: MessageId(Uuid::from_u128(2)),
            user_id: UserId::new("al").expect("a user id"),
            client_id: ClientId(Uuid::from_u128(3)),
            sent_at: Timestamp(1),
            message: "hi".into(),
            attachments: vec![],
        })
    }

    #[test]
    fn stored_bytes_outlive_the_build_that_wrote_them() {
        let mut golden = vec![1, 0];
        for id in 1..=2_u8 {
            golden.push(16);
            golden.extend([0; 15]);
            golden.push(id);
        }
        golden.extend([2, b'a', b'l', 16]);
        golden.extend([0; 15]);
        golden.push(3);
        golden.extend([2, 2, b'h', b'i', 0]);
        assert_eq!(message().encode(), golden);
        assert_eq!(Event::decode(&golden), Ok(message()));
    }

    #[test]
    fn an_entry_is_the_sequence_and_the_event() {
        for seq in [0, 127, 128, 300, u64::MAX] {
            let entry = Entry {
                seq,
                event: message(),
            };
            assert_eq!(Entry::encode_around(seq, &message().encode()), Ok(entry.encode()));
            assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
        }
    }

    #[test]
    fn a_newer_format_is_told_from_rubbish() {
        assert_eq!(Event::decode(&[2, 0]), Err(WireError::Newer(2)));
        assert!(matches!(Event::decode(&[]), Err(WireError::Malformed(_))));
        assert!(matches!(Event::decode(&[1, 9]), Err(WireError::Malformed(_))));
        let mut long = message().encode().to_vec();
        long.push(0);
        assert!(matches!(Event::decode(&long), Err(WireError::Malformed(_))));
    }

    #[test]
    fn ids_name_chat_client_and_message() {
        let uuid = |id| Uuid::from_u128(id).to_string();
        assert_eq!(
            message().message_id(),
            format!("{}.{}.{}", uuid(1), uuid(3), uuid(2))
        );
        assert_eq!(Entry::message_id(41, "first"), "41.first");
    }
}
