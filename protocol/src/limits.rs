//! The bounds of the protocol. `welcome` tells them to the client, so that client programs need not know them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of a message, unescaped UTF-8. Longer texts are attachments.
pub const MESSAGE_BYTES_MAX: usize = 65_536;
/// Bytes of a frame: a message whose every second character is escaped, with room for its ids.
pub const FRAME_BYTES_MAX: usize = 131_072;
/// Attachments of one message.
pub const ATTACHMENTS_MAX: usize = 10;
/// Participants of a chat, the creator included. Fan-out is per client: 100 users are up to 299 entries.
pub const PARTICIPANTS_MAX: usize = 100;
/// Active clients of a user.
pub const CLIENTS_MAX: usize = 3;
/// Unconfirmed deliveries a connection.
pub const WINDOW_MAX: usize = 256;
/// Bytes of unconfirmed deliveries a connection.
pub const WINDOW_BYTES_MAX: usize = 262_144;
/// For how long the server itself recognises a repeated `messageId`.
pub const RETRY_WINDOW_SECONDS: u64 = 600;
/// Silence after which either side pings; twice as much is death.
pub const PING_SECONDS: u64 = 30;
/// For how long an inbox keeps what its client has not confirmed.
pub const RETENTION_DAYS: u32 = 30;
/// Characters of a chat's or a client's name.
pub const NAME_CHARS_MAX: usize = 100;
/// Bytes of an attachment's MIME type with its parameters. The registry's longest have 127.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Bytes of a user id.
pub const USER_ID_BYTES_MAX: usize = 128;
/// Entries of an inbox; what does not fit is refused and told with `inboxTrimmed`.
pub const INBOX_ENTRIES_MAX: i64 = 20_000;
/// The largest number in a frame, so that JavaScript reads it exactly: 2^53 - 1.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What this server allows, as `welcome` and `GET /v1` tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes of `message`, unescaped UTF-8.
    pub message_bytes: u64,
    /// Bytes of a frame.
    pub frame_bytes: u64,
    /// Attachments of one message.
    pub attachments: u64,
    /// Bytes of one attachment.
    pub attachment_bytes: u64,
    /// Participants of a chat, the creator included.
    pub participants: u64,
    /// Active clients of a user.
    pub clients: u64,
    /// Unconfirmed deliveries a connection.
    pub window: u64,
    /// Bytes of unconfirmed deliveries a connection.
    pub window_bytes: u64,
    /// Seconds in which a repeated `messageId` is answered with the same `seq`.
    pub retry_window_seconds: u64,
    /// Seconds of silence after which to ping.
    pub ping_seconds: u64,
    /// Days an inbox keeps what is not confirmed.
    pub retention_days: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: MESSAGE_BYTES_MAX as u64,
            frame_bytes: FRAME_BYTES_MAX as u64,
            attachments: ATTACHMENTS_MAX as u64,
            attachment_bytes: 1 << 30,
            participants: PARTICIPANTS_MAX as u64,
            clients: CLIENTS_MAX as u64,
            window: WINDOW_MAX as u64,
            window_bytes: WINDOW_BYTES_MAX as u64,
            retry_window_seconds: RETRY_WINDOW_SECONDS,
            ping_seconds: PING_SECONDS,
            retention_days: RETENTION_DAYS,
        }
    }
}
