//! How chats and users are spread: a stable hash, cut into a number of parts that never changes for a system.

use std::fmt;

use tidings_protocol::{ChatId, UserId};
use xxhash_rust::xxh3::xxh3_64;

/// A part of CHATS: `fanout-<p>` reads it, in order.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Partition(pub u16);

/// A part of the inboxes: stream `INBOX_<s>`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Shard(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

/// How many parts there are. Stands in the metadata of CHATS, written by setup, so that every service agrees.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Partitions of CHATS. 32 lets 32 workers share the work; one costs a consumer.
    pub partitions: u16,
    /// Streams of inboxes. 64 keeps the consumers of a stream in the hundreds for tens of thousands of clients.
    pub shards: u16,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            partitions: 32,
            shards: 64,
        }
    }
}

impl Topology {
    /// The most parts that two digits can name.
    pub const PARTS_MAX: u16 = 100;

    /// Where a chat's events go. XXH3 is specified and stable; the hash is part of the format.
    pub fn partition(&self, chat_id: ChatId) -> Partition {
        Partition((xxh3_64(chat_id.0.as_bytes()) % u64::from(self.partitions)) as u16)
    }

    /// Where a user's inboxes are. All clients of a user share a shard, so that an heir reads one stream.
    pub fn shard(&self, user_id: &UserId) -> Shard {
        Shard((xxh3_64(user_id.as_str().as_bytes()) % u64::from(self.shards)) as u16)
    }

    /// Every partition.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.partitions).map(Partition)
    }

    /// Every shard.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        (0..self.shards).map(Shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Literals: what is stored outlives the build that stored it.
    #[test]
    fn the_hash_is_part_of_the_format() {
        let topology = Topology::default();
        let chat: ChatId = "018f4e2a-7c3b-7a10-8000-000000000001".parse().expect("a UUID");
        assert_eq!(topology.partition(chat), Partition(25));
        let shard = |id: &str| topology.shard(&UserId::new(id).expect("a user id")).0;
        assert_eq!(["alice", "bob", "auth0|5f7c"].map(shard), [48, 37, 8]);
    }
}
