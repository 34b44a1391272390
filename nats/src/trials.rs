//! Values of the bucket TRIALS, one for each partition of CHATS. JSON, since operators read them with
//! `nats kv get TRIALS <partition>`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::TRIALS;
use crate::shard::Partition;

/// Which events of a partition are tried on their own, and what came of it before. Sequences are those of CHATS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionTrials {
    /// The events that are being tried, and by which worker (its boot id). One that is gone has died while it tried.
    #[serde(default)]
    pub trying: BTreeMap<u64, String>,
    /// How many workers in a row have died while they tried an event.
    #[serde(default)]
    pub deaths: BTreeMap<u64, u32>,
}

impl PartitionTrials {
    /// The subject of a partition's key.
    pub fn subject(partition: Partition) -> String {
        format!("$KV.{TRIALS}.{partition}")
    }

    /// For the bucket.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("the value has string names and no failing Serialize")
            .into()
    }

    /// From the bucket. None for what no worker wrote.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_can_read_it() {
        let trials = PartitionTrials {
            trying: BTreeMap::from([(41, "w".to_owned())]),
            deaths: BTreeMap::from([(41, 2)]),
        };
        let text = br#"{"trying":{"41":"w"},"deaths":{"41":2}}"#;
        assert_eq!(trials.encode(), &text[..]);
        assert_eq!(PartitionTrials::decode(text), Some(trials));
        assert_eq!(PartitionTrials::decode(b"{}"), Some(PartitionTrials::default()));
        assert_eq!(PartitionTrials::subject(Partition(7)), "$KV.TRIALS.07");
    }
}
