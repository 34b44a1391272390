//! Values of the bucket SESSIONS. JSON, since operators read them with `nats kv get SESSIONS <client>`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_protocol::{Timestamp, UserId};

/// Where a client is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKey {
    /// The gateway's boot id: `live.<gateway>` reaches it.
    pub gateway: String,
    /// 64 random bits that name the connection.
    pub connection: u64,
    /// Whose client it is.
    pub user_id: UserId,
    /// Since when.
    pub since: Timestamp,
}

impl SessionKey {
    /// For the bucket.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("the key has string names and no failing Serialize")
            .into()
    }

    /// From the bucket. None for what no gateway wrote.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}
