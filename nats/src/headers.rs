//! Text headers beside the binary payload, so that the `nats` command shows what a message is.

use async_nats::HeaderMap;

use crate::event::Event;

/// `message` or `chatUpdate`.
pub const KIND: &str = "Tidings-Kind";
/// The chat.
pub const CHAT: &str = "Tidings-Chat";
/// The user who did it.
pub const FROM: &str = "Tidings-From";
/// The version of the chat whose participants may read what the message names, where it names any attachment.
pub const GRANTED: &str = "Tidings-Granted";
/// W3C trace context, of an event, an entry or a notice that is traced. Whoever does not know it takes no notice.
pub const TRACE: &str = "traceparent";
/// Why an event is a dead letter.
pub const REASON: &str = "Tidings-Reason";
/// How often it was tried before it became a dead letter.
pub const TRIES: &str = "Tidings-Tries";

/// The headers of an event, with its deduplication id.
pub fn event_headers(event: &Event, message_id: &str) -> HeaderMap {
    let mut headers = body_headers(event);
    headers.insert(async_nats::header::NATS_MESSAGE_ID, message_id);
    headers
}

/// The headers of a body: an event's, without an id. A stream remembers ids of what is deleted, and a body must be there.
pub fn body_headers(event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(KIND, event.kind());
    headers.insert(CHAT, event.chat_id().to_string());
    headers.insert(FROM, event.from().as_str());
    headers
}

/// What [`GRANTED`] says; nothing where it says nothing that can be read.
pub fn granted_version(headers: &HeaderMap) -> Option<u64> {
    headers.get(GRANTED)?.as_str().parse().ok()
}
