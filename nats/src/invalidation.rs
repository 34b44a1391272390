//! What a cache must forget.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_protocol::{ChatId, UserId};

use crate::wire::{self, WireError};

/// Something that caches hold has changed in Postgres.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Invalidation {
    /// The clients of a user.
    User {
        /// Who.
        user_id: UserId,
    },
    /// The participants of a chat.
    Chat {
        /// Which.
        chat_id: ChatId,
        /// What is older than this is forgotten.
        version: u64,
    },
}

impl Invalidation {
    /// For INVALIDATIONS.
    pub fn encode(&self) -> Bytes {
        wire::encode(self)
    }

    /// From INVALIDATIONS.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        wire::decode(payload)
    }
}
