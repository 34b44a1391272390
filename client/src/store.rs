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
