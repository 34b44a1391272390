//! The SHA-256 of an attachment's bytes. Frames carry it as text; whoever works with it works with this.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of a SHA-256.
const BYTES: usize = 32;

/// The SHA-256 of some bytes. As text 64 hexadecimal digits: read in any case, written in lower case.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct ContentHash(pub [u8; BYTES]);

/// A text that is not a SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a hash is the SHA-256 as 64 hexadecimal digits")]
pub struct InvalidContentHash;

impl FromStr for ContentHash {
    type Err = InvalidContentHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(InvalidContentHash);
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != BYTES || !rest.is_empty() {
            return Err(InvalidContentHash);
        }
        let mut hash = [0; BYTES];
        for (byte, &[high, low]) in hash.iter_mut().zip(pairs) {
            *byte = (digit(high)? << 4 | digit(low)?) as u8;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of nothing.
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn any_case_is_read_and_lower_case_written() {
        for text in [EMPTY, &EMPTY.to_uppercase()] {
            let hash: ContentHash = text.parse().expect("64 hexadecimal digits");
            assert_eq!(hash.0[..3], [0xe3, 0xb0, 0xc4]);
            assert_eq!(hash.to_string(), EMPTY);
            assert_eq!(format!("{hash:?}"), EMPTY);
        }
    }

    #[test]
    fn json_has_the_text() {
        let hash: ContentHash = serde_json::from_value(EMPTY.into()).expect("64 hexadecimal digits");
        assert_eq!(serde_json::to_value(hash).expect("plain data"), EMPTY);
        serde_json::from_value::<ContentHash>("e3".into()).expect_err("too short");
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let long = format!("{EMPTY}00");
        let sign = format!("+{}", &EMPTY[1..]);
        let other = format!("é{}", &EMPTY[2..]);
        for text in [
            "",
            &EMPTY[1..],
            &EMPTY[2..],
            &long,
            &sign,
            &other,
            &EMPTY.replace('e', "g"),
        ] {
            assert_eq!(text.parse::<ContentHash>(), Err(InvalidContentHash), "{text:?}");
        }
    }
}
