//! The SHA-256 of what has come so far, which can be written down and gone on with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::digest::common::hazmat::SerializableState as _;
use sha2::{Digest as _, Sha256};
use tidings_protocol::ContentHash;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    /// Adds bytes. Long ones keep a processor busy: not for a task of the runtime.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything that was added.
    pub(crate) fn hash(&self) -> ContentHash {
        ContentHash(self.0.clone().finalize().into())
    }

    /// What [`Hasher::restore`] needs to go on.
    pub(crate) fn save(&self) -> String {
        STANDARD.encode(self.0.serialize())
    }

    /// `None` where it was not written by this version of the hash: its format is not promised to stay.
    pub(crate) fn restore(saved: &str) -> Option<Self> {
        let state = STANDARD.decode(saved).ok()?;
        let state = state.as_slice().try_into().ok()?;
        Sha256::deserialize(&state).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 71 times "a", and "bc": what builds before this one have written down.
    const SAVED: &str = "HLhb3yYGHuiUqEX7MQ/UTxZoXrLBmdTWKUmQq2ZeYwABAAAAAAAAAAlhYWFhYWFhYmMAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    #[test]
    fn what_was_saved_is_gone_on_with() {
        let mut hasher = Hasher::default();
        hasher.update(&[b'a'; 71]);
        hasher.update(b"bc");
        let mut other = Hasher::restore(&hasher.save()).expect("it was just saved");
        hasher.update(b"def");
        other.update(b"def");
        assert_eq!(hasher.hash(), other.hash());
    }

    #[test]
    fn the_format_stays() {
        let mut hasher = Hasher::default();
        hasher.update(&[b'a'; 71]);
        hasher.update(b"bc");
        assert_eq!(hasher.save(), SAVED);
    }

    #[test]
    fn what_was_not_saved_by_us_is_refused() {
        for saved in ["", "AAAA", "no base64"] {
            assert!(Hasher::restore(saved).is_none(), "{saved:?}");
        }
    }
}
