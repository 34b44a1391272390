//! What an inbox session is told, and what it wants done.

use uuid::Uuid;

/// What a session hears.
#[derive(Debug)]
pub(crate) enum Input<B> {
    /// The connection is open: read everything.
    Start,
    /// A worker says that an entry was stored.
    Notice(Stored<B>),
    /// A worker tells of an event before it is stored.
    Direct(Direct<B>),
    /// Something that a worker told directly may have been lost, and will be stored: what it tells directly under the
    /// grants that it has may come before that.
    Withdraw,
    /// The reading that was asked for has ended. `entries` are in stream order, without holes from its `from` on
    /// but for those that this version cannot read. `complete` says that nothing was stored behind `through`,
    /// as of a moment after it was read.
    Read {
        /// What was read.
        entries: Vec<Stored<B>>,
        /// The last sequence that was seen, readable or not; 0 if none.
        through: u64,
        /// Whether it was everything.
        complete: bool,
    },
    /// A notice may have been lost.
    Doubt,
    /// From here on every worker knows of this session.
    FencePassed,
    /// The last sequence that is stored in the inbox.
    Checked(u64),
    /// There has been room for some time, and nothing was read.
    Waited,
    /// The client has confirmed one delivery.
    Received(u64),
    /// The client has confirmed everything up to a delivery.
    ReceivedThrough(u64),
}

/// An entry of the inbox.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Stored<B> {
    /// Its stream sequence.
    pub(crate) sequence: u64,
    /// Its size, for the window.
    pub(crate) bytes: usize,
    /// The sequence in CHATS of the event that it holds; None for a mark.
    pub(crate) event: Option<u64>,
    /// The rest of it.
    pub(crate) body: B,
}

/// An event that is not stored.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Direct<B> {
    /// The boot id of the worker that waits for an answer.
    pub(crate) worker: Uuid,
    /// The sequence in CHATS.
    pub(crate) event: u64,
    /// Under which grant it is told.
    pub(crate) grant: u32,
    /// Its size, for the window.
    pub(crate) bytes: usize,
    /// The rest of it.
    pub(crate) body: B,
}

/// What a session wants done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<B> {
    /// Write a delivery to the socket.
    Deliver {
        /// Its number on this connection.
        delivery: u64,
        /// What.
        body: B,
    },
    /// Delete an entry: it is confirmed, or its event was shown on this connection by another entry.
    Delete {
        /// Its stream sequence.
        sequence: u64,
    },
    /// Tell a worker that an event is confirmed, and need not be stored.
    Confirmed {
        /// The worker's boot id.
        worker: Uuid,
        /// The event's sequence in CHATS.
        event: u64,
    },
    /// Tell a worker that an event must be stored.
    Refused {
        /// The worker's boot id.
        worker: Uuid,
        /// The event's sequence in CHATS.
        event: u64,
    },
    /// Read the inbox.
    Read(Reading),
    /// Tell the client that everything older has been sent.
    CaughtUp,
    /// Tell the client that it confirmed something that is not outstanding.
    UnknownDelivery(u64),
}

/// A reading of the inbox.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Reading {
    /// The first sequence to read.
    pub(crate) from: u64,
    /// At most so many entries.
    pub(crate) count: usize,
    /// At most about so many bytes.
    pub(crate) bytes: usize,
}
