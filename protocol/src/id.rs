//! Ids that are UUIDs. A newtype each, so that a swapped pair does not compile.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not a UUID.
#[derive(Debug, Clone, thiserror::Error)]
#[error("not a UUID: {0}")]
pub struct InvalidId(#[from] uuid::Error);

macro_rules! uuid_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Self(text.parse()?))
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }
    };
}

uuid_id!(
    /// A chat of 2 to 100 participants. Made by the server.
    ChatId
);
uuid_id!(
    /// One device of a user; the `client` claim of its token.
    ClientId
);
uuid_id!(
    /// A message, chosen by the sending client; unique within (client, chat). Version 7 is advised.
    MessageId
);
uuid_id!(
    /// A `createChat` or `modifyChatParticipants`, chosen by the client and remembered for 24 hours.
    RequestId
);
uuid_id!(
    /// An attachment. Made by the server, random, since who knows it may ask for it.
    AttachmentId
);
