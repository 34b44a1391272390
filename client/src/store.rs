//! What a client remembers between connections: which events it has taken, and what it has yet to send.
//!
//! There are two: [`MemoryStore`] forgets with the process, [`DiskStore`] does not.

use std::time::Duration;

use tidings_protocol::{ChatId, ClientFrame, ClientId, MessageId, Timestamp, UserId};

pub use crate::disk_store::DiskStore;
pub use crate::memory_store::MemoryStore;

/// How long a message is remembered: a day longer than an inbox keeps it.
pub const KNOWN_FOR: Duration = Duration::from_hours(31 * 24);

/// An event that the application has taken.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Known {
    /// A message, received or sent. Forgotten after [`KNOWN_FOR`].
    Message {
        /// Where.
        chat_id: ChatId,
        /// Which client sent it.
        client_id: ClientId,
        /// The sender's id for it.
        message_id: MessageId,
    },
    /// A change of a chat; all lower versions are known with it. Not forgotten.
    Update {
        /// Of which chat.
        chat_id: ChatId,
        /// Which version it made.
        version: u64,
    },
}

/// A request that waits for its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its place; what was queued later has a higher one.
    pub position: u64,
    /// The request; its `id` is set when it is sent.
    pub frame: ClientFrame,
}

/// A change of what is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The application has taken this event, or the server this client's message.
    Know(Known),
    /// A request is to be sent.
    Queue(Queued),
    /// The request at this position has its final answer.
    Settle(u64),
}

/// Whose memory this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user_id: UserId,
    /// The client.
    pub client_id: ClientId,
}

/// The memory failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// A client's memory. Calls may block for as long as a write to the disk takes.
pub trait Store: Send + 'static {
    /// Takes the memory for a client at its first welcome; the memory of somebody else is refused, since
    /// what waits in it would be sent in the wrong name.
    fn claim(&mut self, owner: &Owner) -> Result<(), StoreError>;

    /// Whether the application has taken this event.
    fn knows(&self, known: &Known) -> Result<bool, StoreError>;

    /// What waits to be sent, by position.
    fn queued(&self) -> Result<Vec<Queued>, StoreError>;

    /// Remembers all of it or nothing. When this returns, it is remembered. `now` dates messages.
    fn commit(&mut self, changes: &[Change], now: Timestamp) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use tidings_protocol::SendMessage;
    use uuid::Uuid;

    use super::*;

    const DAY: i64 = 24 * 60 * 60 * 1_000;

    fn message(number: u128) -> Known {
        Known::Message {
            chat_id: ChatId(Uuid::from_u128(1)),
            client_id: ClientId(Uuid::from_u128(2)),
            message_id: MessageId(Uuid::from_u128(number)),
        }
    }

    fn update(version: u64) -> Known {
        Known::Update {
            chat_id: ChatId(Uuid::from_u128(1)),
            version,
        }
    }

    fn queued(position: u64) -> Queued {
        let frame = ClientFrame::SendMessage(SendMessage {
            id: 9,
            chat_id: ChatId(Uuid::from_u128(1)),
            message_id: MessageId(Uuid::from_u128(position.into())),
            message: format!("message {position}"),
            attachments: Vec::new(),
        });
        Queued { position, frame }
    }

    /// Runs a check on both.
    fn each(check: impl Fn(&mut dyn Store)) {
        check(&mut MemoryStore::default());
        let folder = tempfile::tempdir().expect("a folder");
        check(&mut DiskStore::open(folder.path().join("store.redb")).expect("opened"));
    }

    #[test]
    fn messages_are_known_for_a_month_and_a_day() {
        each(|store| {
            store
                .commit(&[Change::Know(message(1))], Timestamp(0))
                .expect("stored");
            // Once more does not make it younger.
            store
                .commit(&[Change::Know(message(1))], Timestamp(30 * DAY))
                .expect("stored");
            assert!(store.knows(&message(1)).expect("read"));
            assert!(!store.knows(&message(2)).expect("read"));
            store
                .commit(&[Change::Know(message(2))], Timestamp(31 * DAY))
                .expect("stored");
            assert!(store.knows(&message(1)).expect("read"));
            store
                .commit(&[Change::Know(message(3))], Timestamp(31 * DAY + 1))
                .expect("stored");
            assert!(!store.knows(&message(1)).expect("read"));
            assert!(store.knows(&message(2)).expect("read"));
        });
    }

    #[test]
    fn versions_only_grow() {
        each(|store| {
            assert!(!store.knows(&update(1)).expect("read"));
            let changes = [8, 7].map(|version| Change::Know(update(version)));
            store.commit(&changes, Timestamp(0)).expect("stored");
            for (version, known) in [(7, true), (8, true), (9, false)] {
                assert_eq!(store.knows(&update(version)).expect("read"), known, "{version}");
            }
        });
    }

    #[test]
    fn what_waits_stays_in_order_until_it_is_settled() {
        each(|store| {
            let changes = [10, 9, 2].map(|position| Change::Queue(queued(position)));
            store.commit(&changes, Timestamp(0)).expect("stored");
            store
                .commit(&[Change::Settle(9), Change::Settle(77)], Timestamp(0))
                .expect("stored");
            assert_eq!(store.queued().expect("read"), [queued(2), queued(10)]);
        });
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = DiskStore::open("/nowhere/at/all.redb").expect_err("no folder");
        assert!(error.to_string().starts_with("/nowhere/at/all.redb: "), "{error}");
    }
}
