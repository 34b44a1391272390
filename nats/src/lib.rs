//! The contract on the bus: subjects, streams, consumers, the formats of what travels, and the few JetStream
//! calls that the services share.
//!
//! Definitions of streams and consumers are JSON files in `nats/definitions/`, which the `nats` command reads
//! too. JetStream's words mean JetStream's things here.

mod api;
mod as_of_now;
mod body;
mod close_request;
mod delivery;
mod denials;
mod direct;
mod direct_get;
mod durable;
mod event;
mod headed;
mod headers;
mod instance;
mod invalidation;
mod live;
mod lost;
mod partition_consumer;
mod publish;
#[cfg(test)]
mod recorded_tests;
mod remembered;
mod session_key;
pub mod setup;
mod shard;
mod subject;
mod summary;
mod trials;
mod users;
mod wire;

pub use api::{ApiError, Bus, StreamBounds};
pub use body::{BODY_ENTRIES_KIND, BodyEntries, BodyError, InboxEntry, Reference, Referred, ReferredMessage};
pub use close_request::{CloseReason, CloseRequest};
pub use delivery::{ConsumerStatus, DeliveryInfo, Pull};
pub use denials::{Denial, Denials};
pub use direct::{DirectAnswer, DirectAnswers};
pub use direct_get::{DirectGetError, StoredMessage};
pub use durable::{DurableInfo, StartedDurable, durable_config, inbox_subjects};
pub use event::{ChatUpdate, Entry, Event, Message};
pub use headed::HeadedMessage;
pub use headers::{
    CHAT as HEADER_CHAT, FROM as HEADER_FROM, GRANTED as HEADER_GRANTED, KIND as HEADER_KIND,
    REASON as HEADER_REASON, TRACE as HEADER_TRACE, TRIES as HEADER_TRIES, body_headers, event_headers,
    granted_version,
};
pub use instance::Instance;
pub use invalidation::Invalidation;
pub use live::{Beacon, DirectNotice, DirectRecipient, Lane, LiveMessage, Notice, Recipient};
pub use lost::{LOST_CHATS_MAX, LOST_KIND, Lost};
pub use partition_consumer::{PartitionConsumer, partition_consumer_config};
pub use publish::{Accepted, PublishError};
pub use session_key::SessionKey;
pub use shard::{Partition, Shard, Topology};
pub use subject::{
    BODY_ENTRIES, FIRST, Inbox, barrier_subject, body_entries_subject, body_subject, chat_subject,
    close_subject, dead_letter_subject, direct_subject, escape_user, fanout_consumer, inbox_stream,
    inbox_subject, invalidation_subject, is_barrier, is_mark, live_subject, lost_subject, partition_subjects,
    unescape_user,
};
pub use summary::{ConsumerSummary, StreamSummary};
pub use trials::PartitionTrials;
pub use users::{NatsUser, Permissions, users_conf};
pub use wire::{FORMAT, WireError};

/// Stream of accepted events.
pub const CHATS: &str = "CHATS";
/// Stream of large bodies.
pub const BODIES: &str = "BODIES";
/// Stream of invalidations.
pub const INVALIDATIONS: &str = "INVALIDATIONS";
/// Stream of events that cannot be processed.
pub const DEAD_LETTERS: &str = "DEAD_LETTERS";
/// Bucket of connected clients.
pub const SESSIONS: &str = "SESSIONS";
/// Bucket of living processes.
pub const INSTANCES: &str = "INSTANCES";
/// Bucket of events that are tried on their own.
pub const TRIALS: &str = "TRIALS";
/// Priority group of the fan-out consumers.
pub const FANOUT_GROUP: &str = "fanout";
