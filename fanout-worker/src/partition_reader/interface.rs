//! What a reader is told, and what it wants done.

use std::time::Duration;

use tidings_nats::{ConsumerStatus, DeliveryInfo};

use crate::chat_queue::ChatKey;

/// What a reader is told.
#[derive(Debug)]
pub(crate) enum Event<D> {
    /// Time has passed; at least four times a second.
    Tick,
    /// There is a connection (again).
    Connected,
    /// There is none.
    Disconnected,
    /// Something may have been lost on the way to this process.
    Doubt,
    /// The worker may (again) work: its own key is renewed.
    Resume,
    /// The worker may not work: its own key is too old.
    Suspend,
    /// Whether the worker holds its share of partitions already.
    Reluctant(bool),
    /// Give the partition away, if it is held.
    Release,
    /// Finish what runs, within this time, and end.
    Stop { within: Duration },
    /// A message came to a generation's inbox.
    Delivered {
        generation: u64,
        pin: Option<String>,
        info: DeliveryInfo,
        delivery: Delivery<D>,
    },
    /// A status came to a generation's inbox, for one of its pulls.
    Status {
        generation: u64,
        pull: u64,
        status: ConsumerStatus,
        /// How many messages the pull still waited for, where the status says it.
        unanswered: Option<u32>,
    },
    /// The consumer was reset, or not.
    Reset { generation: u64, done: bool },
    /// The consumer was unpinned, or not.
    Unpinned,
    /// An event is told or stored for everybody, and is not finished: the next one of its chat may begin.
    Told { sequence: u64 },
    /// All that follows from an event is stored, or confirmed.
    Finished { sequence: u64 },
    /// The work on an event was cancelled; something may be stored already.
    Abandoned { sequence: u64 },
    /// The request to delete an event was answered, or given up: then it comes again, and is deleted again.
    Deleted { sequence: u64 },
}

/// A message of the stream.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) struct Delivery<D> {
    /// Its chat.
    pub(crate) chat: ChatKey,
    /// What it costs to keep it.
    pub(crate) bytes: usize,
    /// Where it is said that it is in progress.
    pub(crate) reply: String,
    /// Its content, which the reader does not look at.
    pub(crate) content: D,
}

/// What a reader wants done, in this order.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) enum Action<D> {
    /// Listen on the reply inbox of a generation, and on no earlier one any more. What was remembered of chats is
    /// forgotten.
    Open { generation: u64 },
    /// Ask for messages.
    Pull {
        generation: u64,
        number: u64,
        batch: u32,
        bytes_max: u32,
        expires: Duration,
        pin: Option<String>,
    },
    /// Ask for a message that is not to be delivered: renews the pin, or asks whether it still holds.
    Renew {
        generation: u64,
        number: u64,
        pin: String,
    },
    /// Reset the consumer to the beginning of the stream, and tell.
    Reset { generation: u64 },
    /// Look whether the consumer is there, and make it if not; whether it has forgotten what is stored while nobody is pinned,
    /// and if so, reset it.
    Look,
    /// Take the pin away, and tell.
    Unpin,
    /// Work on an event until it is finished or cancelled, and tell.
    Start {
        sequence: u64,
        chat: ChatKey,
        content: D,
    },
    /// End the work on an event at the next opportunity.
    Cancel { sequence: u64 },
    /// Delete a finished event from the stream, and tell. Nothing else removes one.
    Delete { sequence: u64 },
    /// Say that it is being worked on.
    Progress { reply: String },
    /// Forget what is remembered of a chat: an event of it was finished elsewhere.
    Forget { chat: ChatKey },
    /// The reader has ended.
    End,
}
