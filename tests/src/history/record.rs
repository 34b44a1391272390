//! One thing that a recording client did or saw.

use std::fmt;
use std::sync::Arc;

use tidings_protocol::{ClientFrame, ClientId, ServerFrame, UserId};

use super::moment::Moment;

/// One attempt of a device to be connected, from the first try to the close.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordedConnection {
    /// What the workload calls the device; unique in a run.
    pub device: String,
    /// Whose it is.
    pub user_id: UserId,
    /// Its client id.
    pub client_id: ClientId,
    /// Counts the device's attempts to connect, from 1.
    pub number: u32,
}

impl fmt::Display for RecordedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.device, self.number)
    }
}

/// Something that a recording client did or saw. Records of one connection stand in the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub at: Moment,
    /// On which connection.
    pub connection: Arc<RecordedConnection>,
    /// What.
    pub what: What,
}

/// What a client did or saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// No connection was made.
    Refused {
        /// Where it was tried.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A connection was made.
    Opened {
        /// To whom.
        url: String,
    },
    /// A frame is handed to the socket next; whether it arrives is not known. Tokens are taken out.
    Sent(Box<ClientFrame>),
    /// A frame came.
    Received(Box<ServerFrame>),
    /// A frame of an unknown type came.
    Unknown {
        /// Its number, if it is a delivery.
        delivery: Option<u64>,
    },
    /// The connection is over.
    Closed {
        /// The close code; 1006 without one.
        code: u16,
        /// Why, for people.
        reason: String,
        /// Whether the recording client ended it.
        by_client: bool,
    },
    /// The client is at rest: connected, caught up, nothing under way for it any more, everything confirmed.
    AtRest,
    /// The client should be at rest by now and is not.
    NotAtRest {
        /// What is missing, for people.
        reason: String,
    },
}
