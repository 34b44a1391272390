//! The id of a person, as the login service names it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::USER_ID_BYTES_MAX;

/// A user: 1 to 128 printable ASCII characters, from the token's `sub`. Cheap to clone.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct UserId(Arc<str>);

/// A text that cannot be a user id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a user id is 1 to {USER_ID_BYTES_MAX} printable ASCII characters")]
pub struct InvalidUserId;

impl UserId {
    /// Checks length and characters.
    pub fn new(text: &str) -> Result<Self, InvalidUserId> {
        let printable = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
        if text.is_empty() || text.len() > USER_ID_BYTES_MAX || !printable {
            return Err(InvalidUserId);
        }
        Ok(Self(text.into()))
    }

    /// The id as it came.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for UserId {
    type Err = InvalidUserId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for UserId {
    fn schema_name() -> Cow<'static, str> {
        "UserId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": USER_ID_BYTES_MAX,
            "pattern": "^[ -~]+$",
            "description": "A user, as the token's `sub` names them: 1 to 128 printable ASCII characters."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_real_login_services_are_taken() {
        for id in [
            "alice",
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "bob@example.org",
            "a b",
            &"x".repeat(128),
        ] {
            assert_eq!(UserId::new(id).map(|id| id.to_string()), Ok(id.to_string()));
        }
    }

    #[test]
    fn what_is_empty_long_or_not_printable_is_refused() {
        for id in ["", &"x".repeat(129), "a\nb", "\u{7f}", "zoë"] {
            assert_eq!(UserId::new(id), Err(InvalidUserId), "{id:?}");
        }
    }
}
