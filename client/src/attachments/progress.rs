//! How far an upload or a download is.

/// What a transfer is doing.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// It reads what is on this machine, to know what it is.
    Hashing,
    /// It waits for the connection, or until it may try again.
    Waiting,
    /// Bytes are on their way.
    Sending,
    /// Bytes come.
    Receiving,
}

/// How far a transfer is. `done` may go back: what was handed to a connection that broke is sent again.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    /// What it is doing.
    pub stage: Stage,
    /// Bytes that are hashed, sent or received.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}
