//! One thing that a recording client did or saw.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidings_protocol::{AttachmentId, ClientFrame, ClientId, ServerFrame, UserId};

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
    /// An attachment was asked for with this client's token.
    Fetched {
        /// Which.
        attachment_id: AttachmentId,
        /// What came.
        outcome: Fetch,
    },
    /// The client is at rest: connected, caught up, nothing under way for it any more, everything confirmed.
    AtRest,
    /// The client should be at rest by now and is not.
    NotAtRest {
        /// What is missing, for people.
        reason: String,
    },
}

/// How asking for an attachment ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fetch {
    /// With the bytes that were announced.
    Whole,
    /// With other bytes.
    Wrong(String),
    /// With this status, for good.
    Refused(u16),
    /// With nothing, as long as somebody waited.
    GaveUp(String),
}

impl fmt::Display for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("whole"),
            Self::Wrong(what) => write!(f, "wrong bytes: {what}"),
            Self::Refused(status) => write!(f, "refused with {status}"),
            Self::GaveUp(reason) => write!(f, "given up: {reason}"),
        }
    }
}
