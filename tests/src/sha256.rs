//! The hash that attachments are announced with.

use ring::digest::{SHA256, digest};
use tidings_protocol::ContentHash;

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> ContentHash {
    let hash = digest(&SHA256, bytes);
    ContentHash(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}
