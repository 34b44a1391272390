//! The live lane: what fan-out workers tell gateways over core NATS, on `live.<gateway>`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_protocol::ClientId;
use uuid::Uuid;

use crate::shard::Shard;
use crate::wire::{self, WireError};

/// What a worker tells a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LiveMessage {
    /// An event was stored in inboxes of clients that are connected there.
    Notice(Notice),
    /// How far the worker is.
    Beacon(Beacon),
}

impl LiveMessage {
    /// For `live.<gateway>`.
    pub fn encode(&self) -> Bytes {
        wire::encode(self)
    }

    /// From `live.<gateway>`.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        wire::decode(payload)
    }
}

/// One event, for all its recipients at one gateway.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The worker's boot id.
    pub worker: Uuid,
    /// Counts this worker's notices to this gateway from 1; a gap casts doubt on every session.
    pub number: u64,
    /// The entry, as it is stored in the inboxes.
    pub entry: Bytes,
    /// Who gets it here.
    pub recipients: Vec<Recipient>,
}

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notice")
            .field("worker", &self.worker)
            .field("number", &self.number)
            .field("entry_bytes", &self.entry.len())
            .field("recipients", &self.recipients)
            .finish()
    }
}

/// A connected client that an entry was stored for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Which.
    pub client_id: ClientId,
    /// On which of its connections; an older or a newer one must not get it.
    pub connection: u64,
    /// In which stream the entry is.
    pub shard: Shard,
    /// Its stream sequence there.
    pub sequence: u64,
}

/// Sent every 500 ms to each gateway, and soon after a session's key was applied.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// The worker's boot id.
    pub worker: Uuid,
    /// The number of its last notice to this gateway; 0 before the first.
    pub notices: u64,
    /// Up to which revision of SESSIONS it looks clients up.
    pub sessions_revision: u64,
    /// Up to which sequence of INVALIDATIONS its caches are right.
    pub invalidations_sequence: u64,
}
