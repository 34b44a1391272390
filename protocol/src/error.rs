//! Why a request failed: codes for programs, sentences for people.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::absent;
use crate::server_frame::ClientInfo;

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, retryable $retryable:literal, fixed by $fixer:literal;)*) => {
        /// What went wrong, for programs. Written as its text in both codecs, so that a client meets a newer
        /// server's code as [`ErrorCode::Unknown`] instead of an error.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $name,)*
            /// A code of a newer server.
            Unknown(String),
        }

        impl ErrorCode {
            /// Every code of this version, in the order of the table in `docs/PROTOCOL.md`.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Unknown(text) => text,
                }
            }

            /// Whether the same request may succeed later, unchanged.
            pub const fn retryable(&self) -> bool {
                match self {
                    $(Self::$name => $retryable,)*
                    Self::Unknown(_) => false,
                }
            }

            /// What it means, in a sentence or two.
            pub fn meaning(&self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim(),)*
                    Self::Unknown(_) => "A code of a newer server.",
                }
            }

            /// Who can do something about it.
            pub const fn fixed_by(&self) -> &'static str {
                match self {
                    $(Self::$name => $fixer,)*
                    Self::Unknown(_) => "a newer client",
                }
            }

            /// The code with this text.
            pub fn from_text(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    _ => Self::Unknown(text.to_owned()),
                }
            }
        }
    };
}

error_codes! {
    /// Not a frame: not JSON, not an object, no `type`.
    BadFrame = "bad_frame", retryable false, fixed by "the client program";
    /// A `type` that this server does not know.
    UnknownType = "unknown_type", retryable false, fixed by "the client program";
    /// A field is missing, has the wrong type or a value out of bounds; `field` says which.
    BadRequest = "bad_request", retryable false, fixed by "the client program";
    /// The first frame was not `hello`, or a second `hello` came.
    NotHello = "not_hello", retryable false, fixed by "the client program";
    /// The token is missing or forged, or belongs to somebody else.
    Unauthorized = "unauthorized", retryable false, fixed by "the login service: a new token";
    /// The token has expired.
    TokenExpired = "token_expired", retryable false, fixed by "the login service: a new token";
    /// This client was removed; its id is refused for ever.
    ClientRemoved = "client_removed", retryable false, fixed by "the user: a new client id";
    /// This client connected elsewhere; said in `closing`.
    Replaced = "replaced", retryable false, fixed by "the user: this client is in use elsewhere";
    /// The user has three active clients; say which to `replace`.
    TooManyClients = "too_many_clients", retryable false, fixed by "the user: replace one";
    /// No such chat or client, as far as this user may know.
    NotFound = "not_found", retryable false, fixed by "the user";
    /// The user is not in the chat.
    NotAParticipant = "not_a_participant", retryable false, fixed by "an admin of the chat";
    /// Only admins add and remove others.
    NotAdmin = "not_admin", retryable false, fixed by "an admin of the chat";
    /// The chat would have more than 100 participants.
    ChatFull = "chat_full", retryable false, fixed by "the user: a smaller chat";
    /// A direct chat's participants cannot be changed.
    DirectChat = "direct_chat", retryable false, fixed by "the user: a group chat";
    /// Everybody has left the chat.
    ChatClosed = "chat_closed", retryable false, fixed by "the user: a new chat";
    /// `message` is over `messageBytes`.
    MessageTooLarge = "message_too_large", retryable false, fixed by "the user: a shorter message or an attachment";
    /// More than `attachments` attachments.
    TooManyAttachments = "too_many_attachments", retryable false, fixed by "the user: several messages";
    /// The attachment's bytes are not uploaded yet.
    AttachmentNotReady = "attachment_not_ready", retryable true, fixed by "the client program: upload first";
    /// The attachment has expired.
    AttachmentGone = "attachment_gone", retryable false, fixed by "the user: upload again";
    /// No such attachment, as far as this user may know.
    AttachmentForbidden = "attachment_forbidden", retryable false, fixed by "the user: upload it";
    /// The bytes do not have the size or hash that was announced.
    HashMismatch = "hash_mismatch", retryable true, fixed by "the client program: upload again";
    /// Too many of these; `retryAfterMs` says when the next one fits.
    RateLimited = "rate_limited", retryable true, fixed by "waiting `retryAfterMs`";
    /// The chat has too many messages that are not fanned out yet.
    ChatBusy = "chat_busy", retryable true, fixed by "waiting `retryAfterMs`";
    /// The user is suspended.
    Suspended = "suspended", retryable false, fixed by "the operator";
    /// Not known whether it was done: retry with the same `messageId` or `requestId`.
    Unavailable = "unavailable", retryable true, fixed by "retrying with the same id; the operator";
    /// A defect of the server.
    Internal = "internal", retryable true, fixed by "the developers of Tidings";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_text(&Cow::<str>::deserialize(deserializer)?))
    }
}

impl JsonSchema for ErrorCode {
    fn schema_name() -> Cow<'static, str> {
        "ErrorCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes: Vec<&str> = Self::ALL.iter().map(Self::as_str).collect();
        json_schema!({
            "type": "string",
            "examples": codes,
            "description": "What went wrong, for programs; a newer server may say others."
        })
    }
}

/// The `error` of a FAILURE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Error {
    /// For programs.
    pub code: ErrorCode,
    /// For people; may change at any time.
    pub message: String,
    /// The field that is at fault, as a path such as `participants[3]`.
    #[serde(skip_serializing_if = "absent::none")]
    pub field: Option<String>,
    /// Whether the same request may succeed later, unchanged.
    pub retryable: bool,
    /// When to try again, in milliseconds from now.
    #[serde(skip_serializing_if = "absent::none")]
    pub retry_after_ms: Option<u64>,
    /// With `too_many_clients`: the clients, one of which can be replaced.
    #[serde(skip_serializing_if = "absent::none")]
    pub clients: Option<Vec<ClientInfo>>,
}

impl Error {
    /// An error with the code's own retryability and nothing optional.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            retryable: code.retryable(),
            code,
            message: message.into(),
            field: None,
            retry_after_ms: None,
            clients: None,
        }
    }

    /// `bad_request` about one field.
    pub fn bad_request(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message).at(field)
    }

    /// The same about a field.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same with the time to wait.
    #[must_use]
    pub fn retry_after_ms(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some(field) = &self.field {
            write!(f, " (field {field})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// A frame that could not be read. Answered, not punished: `id` is what could be read of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct FrameError {
    /// The request's number, where one could be read.
    pub id: Option<u64>,
    /// What to answer.
    pub error: Error,
}
