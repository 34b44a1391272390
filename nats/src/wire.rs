//! Postcard behind a version byte. postcard writes no names: the order of fields is the format, and golden
//! bytes in the tests hold it, those of each type and the recorded sets (`nats/recorded/`).
//!
//! A format is changed in two versions, since two run beside each other during an upgrade: the first one reads the new
//! form, the next one writes it (`docs/adr/0023-two-versions-at-once.md`).

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format of this build. Version N reads what N-1 wrote, and writes what N-1 reads.
pub const FORMAT: u8 = 1;

/// A payload that cannot be read.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    /// Written by a newer build: wait for a newer worker.
    #[error("format {0} is newer than this build's {FORMAT}")]
    Newer(u8),
    /// Not a payload of any format. Will never be readable.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Writes a payload.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let out = postcard::to_extend(value, vec![FORMAT]).expect("bus types have known lengths and Vec grows");
    out.into()
}

/// The bytes after the version byte, if this build can read them.
pub(crate) fn body(payload: &[u8]) -> Result<&[u8], WireError> {
    match payload.split_first() {
        Some((&FORMAT, body)) => Ok(body),
        Some((&format, _)) if format > FORMAT => Err(WireError::Newer(format)),
        Some((&format, _)) => Err(WireError::Malformed(format!("unknown format {format}"))),
        None => Err(WireError::Malformed("empty".to_owned())),
    }
}

/// Reads a payload, all of it.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(body(payload)?) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(WireError::Malformed(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(WireError::Malformed(error.to_string())),
    }
}
