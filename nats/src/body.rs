//! Large bodies, stored once: BODIES holds the entry, inboxes hold small references to it (adr/0026).
//!
//! A body belongs to one worker's work on one event. When that work has ended, the list of the entries that refer to
//! the body is stored beside it; a body without a list may be referred to by entries that nobody knows of, and stays.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_protocol::{ChatId, ClientId, MessageId, Timestamp, UserId};

use crate::event::{ChatUpdate, Entry, Event, Message};
use crate::shard::Shard;
use crate::wire::{self, WireError};

/// What a list has in the header that says what a message is.
pub const BODY_ENTRIES_KIND: &str = "bodyEntries";

/// An entry whose event lies in BODIES: what it says of the event is enough to know the body again, and for everybody
/// who does not need its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The event's stream sequence in CHATS.
    pub seq: u64,
    /// The rest.
    pub to: Referred,
}

/// See [`Reference`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referred {
    /// The body's stream sequence in BODIES.
    pub body: u64,
    /// The size of the whole entry, which is the body.
    pub bytes: u32,
    /// In which chat.
    pub chat_id: ChatId,
    /// By whom.
    pub from: UserId,
    /// When it happened, by the clock that the event has it from.
    pub at: Timestamp,
    /// Of a message, which one; None for a change of the chat.
    pub message: Option<ReferredMessage>,
}

/// A message that somebody sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferredMessage {
    /// The sending client.
    pub client_id: ClientId,
    /// That client's id for it.
    pub message_id: MessageId,
}

impl Reference {
    /// To the body at a sequence of BODIES, which holds this entry in so many bytes.
    pub fn new(seq: u64, event: &Event, body: u64, bytes: usize) -> Self {
        let message = match event {
            Event::Message(message) => Some(ReferredMessage {
                client_id: message.client_id,
                message_id: message.message_id,
            }),
            Event::ChatUpdate(_) => None,
        };
        Self {
            seq,
            to: Referred {
                body,
                bytes: bytes.try_into().unwrap_or(u32::MAX),
                chat_id: event.chat_id(),
                from: event.from().clone(),
                at: event.at(),
                message,
            },
        }
    }

    /// For an inbox: as an entry, with another kind of event.
    pub fn encode(&self) -> Bytes {
        wire::encode(&WireEntry {
            seq: self.seq,
            content: WireContent::Referred(self.to.clone()),
        })
    }

    /// The entry in what lies where this refers to. BODIES may have been made anew since, or be another backup's.
    pub fn follow(&self, body: &[u8]) -> Result<Entry, BodyError> {
        if u32::try_from(body.len()) != Ok(self.to.bytes) {
            return Err(BodyError::Another);
        }
        let entry = Entry::decode(body).map_err(BodyError::Unreadable)?;
        if Self::new(entry.seq, &entry.event, self.to.body, body.len()) == *self {
            Ok(entry)
        } else {
            Err(BodyError::Another)
        }
    }

    /// `message` or `chatUpdate`.
    pub const fn kind(&self) -> &'static str {
        match self.to.message {
            Some(_) => "message",
            None => "chatUpdate",
        }
    }
}

/// Why something in BODIES is not the entry that a reference is to.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum BodyError {
    /// It is something else: that entry's body is gone.
    #[error("another body is in its place")]
    Another,
    /// It may be that entry, of a kind or format that a newer build wrote: it is there.
    #[error(transparent)]
    Unreadable(WireError),
}

/// What an inbox holds of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InboxEntry {
    /// All of it.
    Whole(Entry),
    /// Where it is.
    Reference(Reference),
}

impl InboxEntry {
    /// From an inbox.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let WireEntry { seq, content } = wire::decode(payload)?;
        let event = match content {
            WireContent::Message(message) => Event::Message(message),
            WireContent::ChatUpdate(update) => Event::ChatUpdate(update),
            WireContent::Referred(to) => return Ok(Self::Reference(Reference { seq, to })),
        };
        Ok(Self::Whole(Entry { seq, event }))
    }

    /// The event's stream sequence in CHATS.
    pub const fn seq(&self) -> u64 {
        match self {
            Self::Whole(entry) => entry.seq,
            Self::Reference(reference) => reference.seq,
        }
    }

    /// In which chat.
    pub const fn chat_id(&self) -> ChatId {
        match self {
            Self::Whole(entry) => entry.event.chat_id(),
            Self::Reference(reference) => reference.to.chat_id,
        }
    }

    /// `message` or `chatUpdate`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Whole(entry) => entry.event.kind(),
            Self::Reference(reference) => reference.kind(),
        }
    }

    /// By whom.
    pub const fn from(&self) -> &UserId {
        match self {
            Self::Whole(entry) => entry.event.from(),
            Self::Reference(reference) => &reference.to.from,
        }
    }

    /// When it happened.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::Whole(entry) => entry.event.at(),
            Self::Reference(reference) => reference.to.at,
        }
    }

    /// Of a message, which one.
    pub const fn message(&self) -> Option<ReferredMessage> {
        match self {
            Self::Whole(Entry {
                event: Event::Message(message),
                ..
            }) => Some(ReferredMessage {
                client_id: message.client_id,
                message_id: message.message_id,
            }),
            Self::Whole(_) => None,
            Self::Reference(reference) => reference.to.message,
        }
    }
}

/// [`Entry`] with one more kind of event behind the others: whoever does not know it cannot read the entry, and keeps
/// it.
#[derive(Serialize, Deserialize)]
struct WireEntry {
    seq: u64,
    content: WireContent,
}

/// The variants of [`Event`], and the one behind them.
#[derive(Serialize, Deserialize)]
pub(crate) enum WireContent {
    Message(Message),
    ChatUpdate(ChatUpdate),
    Referred(Referred),
}

/// Which entries refer to a body: all that ever will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyEntries {
    /// The event's stream sequence in CHATS.
    pub seq: u64,
    /// The body's stream sequence in BODIES.
    pub body: u64,
    /// Each entry's shard and stream sequence there, in order. At most one for each client of a chat: 300.
    pub entries: Vec<(Shard, u64)>,
}

impl BodyEntries {
    /// For BODIES.
    pub fn encode(&self) -> Bytes {
        wire::encode(self)
    }

    /// From BODIES.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        wire::decode(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn message(text: &str) -> Event {
        Event::Message(Message {
            chat_id: ChatId(Uuid::from_u128(1)),
            message_id: MessageId(Uuid::from_u128(2)),
            user_id: UserId::new("al").expect("a user id"),
            client_id: ClientId(Uuid::from_u128(3)),
            sent_at: Timestamp(1),
            message: text.into(),
            attachments: vec![],
        })
    }

    fn update() -> Event {
        Event::ChatUpdate(ChatUpdate {
            chat_id: ChatId(Uuid::from_u128(1)),
            version: 2,
            kind: tidings_protocol::ChatKind::Group,
            name: Some("lunch".to_owned()),
            by: UserId::new("al").expect("a user id"),
            at: Timestamp(5),
            added: vec![],
            removed: vec![],
            participants: vec![],
        })
    }

    #[test]
    fn whole_entries_are_read_as_ever() {
        for event in [message("hi"), update()] {
            let entry = Entry { seq: 300, event };
            assert_eq!(InboxEntry::decode(&entry.encode()), Ok(InboxEntry::Whole(entry)));
        }
    }

    #[test]
    fn a_reference_comes_back_and_says_what_the_entry_says() {
        for event in [message("hi"), update()] {
            let whole = InboxEntry::Whole(Entry {
                seq: 300,
                event: event.clone(),
            });
            let reference = Reference::new(300, &event, 70_000, 9);
            let read = InboxEntry::decode(&reference.encode()).expect("it is an entry");
            assert_eq!(read, InboxEntry::Reference(reference));
            let said = |entry: &InboxEntry| {
                let from = entry.from().clone();
                (
                    entry.seq(),
                    entry.chat_id(),
                    entry.kind(),
                    from,
                    entry.at(),
                    entry.message(),
                )
            };
            assert_eq!(said(&read), said(&whole));
        }
    }

    #[test]
    fn who_does_not_know_references_cannot_read_one() {
        let reference = Reference::new(300, &message("hi"), 7, 9);
        assert!(matches!(
            Entry::decode(&reference.encode()),
            Err(WireError::Malformed(_))
        ));
    }

    #[test]
    fn another_body_under_the_same_sequence_is_not_shown() {
        let event = message("hi");
        let entry = Entry { seq: 300, event };
        let body = entry.encode();
        let reference = Reference::new(300, &entry.event, 7, body.len());
        assert_eq!(reference.follow(&body), Ok(entry));
        let mut another = message("hi");
        if let Event::Message(message) = &mut another {
            message.message_id = MessageId(Uuid::from_u128(9));
        }
        let others = [
            (301, message("hi")),
            (300, message("ho!")),
            (300, update()),
            (300, another),
        ];
        for (seq, event) in others {
            let body = Entry { seq, event }.encode();
            assert_eq!(reference.follow(&body), Err(BodyError::Another));
        }
        assert_eq!(reference.follow(b"rubbish"), Err(BodyError::Another));
    }

    #[test]
    fn a_body_of_a_newer_build_is_there() {
        let event = message("hi");
        let body = Entry {
            seq: 300,
            event: event.clone(),
        }
        .encode();
        let reference = Reference::new(300, &event, 7, body.len());
        let mut newer = body.to_vec();
        newer[0] = wire::FORMAT + 1;
        let error = Err(BodyError::Unreadable(WireError::Newer(wire::FORMAT + 1)));
        assert_eq!(reference.follow(&newer), error);
        // A kind of event behind those that are known.
        let mut newer = body.to_vec();
        newer[3] = 9;
        let followed = reference.follow(&newer);
        assert!(
            matches!(followed, Err(BodyError::Unreadable(WireError::Malformed(_)))),
            "{followed:?}"
        );
    }

    #[test]
    fn stored_bytes_outlive_the_build_that_wrote_them() {
        let list = BodyEntries {
            seq: 300,
            body: 7,
            entries: vec![(Shard(1), 128), (Shard(63), 1)],
        };
        let golden = [1, 0xac, 2, 7, 2, 1, 0x80, 1, 63, 1];
        assert_eq!(list.encode(), golden.as_slice());
        assert_eq!(BodyEntries::decode(&golden), Ok(list));
        // Version, seq, the third kind of event, body, bytes.
        let reference = Reference::new(300, &update(), 7, 9).encode();
        assert_eq!(reference[..6], [1, 0xac, 2, 2, 7, 9]);
    }
}
