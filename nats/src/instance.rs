//! Values of the bucket INSTANCES. JSON, since operators read them with `nats kv get INSTANCES <key>`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_protocol::Timestamp;

use crate::INSTANCES;

/// What a process says about itself, under the key `<service>.<boot id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The kind of service, such as `gateway`.
    pub service: String,
    /// Where it can be reached, for people; what that means depends on the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Which version runs there.
    pub version: String,
    /// When it started, by its own clock.
    pub started: Timestamp,
}

impl Instance {
    /// The subject of a key, or of keys where it has wildcards.
    pub fn subject(key: &str) -> String {
        format!("$KV.{INSTANCES}.{key}")
    }

    /// For the bucket.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("an instance has string names and no failing Serialize")
            .into()
    }

    /// From the bucket. None for what no process wrote.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}
