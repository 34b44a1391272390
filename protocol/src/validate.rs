//! What can be checked of a request without asking anybody. The gateway checks, and so does the client
//! library, so that an application hears of its mistake before the network does.

use crate::client_frame::{
    ClientFrame, CreateAttachment, CreateChat, Hello, ListChats, Received, SendMessage,
};
use crate::error::{Error, ErrorCode};
use crate::limits::{ATTACHMENTS_MAX, CONTENT_TYPE_BYTES_MAX, MESSAGE_BYTES_MAX, NAME_CHARS_MAX};

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

/// Checks what somebody called a chat, a client or a file; the error names `field`.
pub fn check_name(field: &str, name: Option<&str>) -> Result<(), Error> {
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
    check_name("name", frame.name.as_deref())
}

fn create_chat(frame: &CreateChat) -> Result<(), Error> {
    check_name("name", frame.name.as_deref())
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
    // There are at most ten.
    let twice = (1..frame.attachments.len())
        .find(|index| frame.attachments[..*index].contains(&frame.attachments[*index]));
    if let Some(index) = twice {
        return Err(Error::bad_request(
            format!("attachments[{index}]"),
            "a message names an attachment once",
        ));
    }
    Ok(())
}

fn create_attachment(frame: &CreateAttachment) -> Result<(), Error> {
    if frame.hash.len() != 64 || !frame.hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::bad_request("hash", "the SHA-256 as 64 hexadecimal digits"));
    }
    check_content_type("contentType", &frame.content_type)?;
    check_name("name", frame.name.as_deref())
}

/// Checks that a text is a MIME type, with parameters or without; the error names `field`. It goes into a header of the
/// download as it is, so that nothing may be in it which a header cannot have.
pub fn check_content_type(field: &str, content_type: &str) -> Result<(), Error> {
    if content_type.len() > CONTENT_TYPE_BYTES_MAX {
        let message = format!(
            "a MIME type has at most {CONTENT_TYPE_BYTES_MAX} bytes, this one {}",
            content_type.len()
        );
        return Err(Error::bad_request(field, message));
    }
    if !is_mime_type(content_type) {
        return Err(Error::bad_request(field, "a MIME type such as image/png"));
    }
    Ok(())
}

/// `type/subtype`, then any number of `; name=value` or `; name="quoted value"` (RFC 9110 §8.3).
fn is_mime_type(text: &str) -> bool {
    let is_token = |text: &str| {
        let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(of_token)
    };
    let (essence, mut parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
    let Some((kind, subtype)) = essence.trim_end_matches([' ', '\t']).split_once('/') else {
        return false;
    };
    if !is_token(kind) || !is_token(subtype) {
        return false;
    }
    while let Some(parameter) = parameters.strip_prefix(';') {
        let Some((name, value)) = parameter.trim_start_matches([' ', '\t']).split_once('=') else {
            return false;
        };
        let rest = match value.strip_prefix('"') {
            Some(quoted) => after_quoted(quoted),
            None => value
                .find([';', ' ', '\t'])
                .map_or(Some(("", value)), |end| Some((&value[end..], &value[..end])))
                .filter(|(_, value)| is_token(value))
                .map(|(rest, _)| rest),
        };
        match rest {
            Some(rest) if is_token(name) => parameters = rest.trim_start_matches([' ', '\t']),
            _ => return false,
        }
    }
    parameters.is_empty()
}

/// What comes after a quoted text whose opening quote is read; None where it does not end or has what no header may.
fn after_quoted(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b' '..=b'~' | b'\t' if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(&text[index + 1..]),
            b' '..=b'~' | b'\t' => {}
            _ => return None,
        }
    }
    None
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
