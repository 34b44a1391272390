//! What can be checked of a request without asking anybody. The gateway checks, and so does the client
//! library, so that an application hears of its mistake before the network does.

use crate::client_frame::{
    ClientFrame, CreateAttachment, CreateChat, Hello, ListChats, Received, SendMessage,
};
use crate::error::{Error, ErrorCode};
use crate::limits::{ATTACHMENTS_MAX, MESSAGE_BYTES_MAX, NAME_CHARS_MAX};

/// Chats of one page of `listChats`.
const PAGE_MAX: u32 = 100;

impl ClientFrame {
    /// The first thing wrong with the request, if any.
    pub fn validate(&self) -> Result<(), Error> {
        match self {
            Self::Hello(frame) => hello(frame),
            Self::CreateChat(frame) => create_chat(frame),
            Self::SendMessage(frame) => send_message(frame),
            Self::CreateAttachment(frame) => create_attachment(frame),
            Self::ListChats(frame) => list_chats(frame),
            Self::Received(frame) => received(frame),
            Self::ModifyChatParticipants(_)
            | Self::GetChat(_)
            | Self::ListClients(_)
            | Self::RemoveClient(_)
            | Self::RenewToken(_)
            | Self::Ping(_) => Ok(()),
        }
    }
}

fn name(field: &str, name: Option<&str>) -> Result<(), Error> {
    match name.map(|name| (name, name.chars().count())) {
        Some((_, 0)) => Err(Error::bad_request(field, "a name has at least one character")),
        Some((_, count)) if count > NAME_CHARS_MAX => Err(Error::bad_request(
            field,
            format!("a name has at most {NAME_CHARS_MAX} characters, this one {count}"),
        )),
        Some((name, _)) if name.chars().any(char::is_control) => {
            Err(Error::bad_request(field, "a name has no control characters"))
        }
        _ => Ok(()),
    }
}

fn hello(frame: &Hello) -> Result<(), Error> {
    name("name", frame.name.as_deref())
}

fn create_chat(frame: &CreateChat) -> Result<(), Error> {
    name("name", frame.name.as_deref())
}

fn send_message(frame: &SendMessage) -> Result<(), Error> {
    let bytes = frame.message.len();
    if bytes > MESSAGE_BYTES_MAX {
        let message = format!("a message has at most {MESSAGE_BYTES_MAX} bytes, this one {bytes}");
        return Err(Error::new(ErrorCode::MessageTooLarge, message).at("message"));
    }
    if frame.attachments.len() > ATTACHMENTS_MAX {
        let message = format!(
            "a message has at most {ATTACHMENTS_MAX} attachments, this one {}",
            frame.attachments.len()
        );
        return Err(Error::new(ErrorCode::TooManyAttachments, message).at("attachments"));
    }
    if bytes == 0 && frame.attachments.is_empty() {
        return Err(Error::bad_request(
            "message",
            "a message may be empty only with an attachment",
        ));
    }
    Ok(())
}

fn create_attachment(frame: &CreateAttachment) -> Result<(), Error> {
    if frame.hash.len() != 64 || !frame.hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::bad_request("hash", "the SHA-256 as 64 hexadecimal digits"));
    }
    name("name", frame.name.as_deref())
}

fn list_chats(frame: &ListChats) -> Result<(), Error> {
    match frame.limit {
        Some(limit) if !(1..=PAGE_MAX).contains(&limit) => Err(Error::bad_request(
            "limit",
            format!("a page has 1 to {PAGE_MAX} chats"),
        )),
        _ => Ok(()),
    }
}

fn received(frame: &Received) -> Result<(), Error> {
    match (frame.delivery, frame.through) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        _ => Err(Error::bad_request(
            "delivery",
            "exactly one of delivery and through",
        )),
    }
}
