//! A message on its way to many: encoded once, and for each of them only the number of the delivery is put in.

use std::fmt::Write as _;

use crate::codec::{Codec, EncodedFrame};
use crate::server_frame::{NewMessage, ServerFrame};

/// How a message begins in JSON; the number of the delivery follows, as the first field of the payload.
const JSON_HEAD: &str = r#"{"type":"newMessage","delivery":"#;
/// Digits of the longest number of a delivery.
const NUMBER_DIGITS_MAX: usize = 20;

/// See the module. One for each codec that somebody speaks.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedMessage(Tail);

/// What comes behind the number.
#[derive(Clone, PartialEq, Eq)]
enum Tail {
    Json(Box<str>),
    /// The frame's number comes before that of the delivery; it has one byte.
    Postcard(u8, Box<[u8]>),
}

impl SharedMessage {
    /// Encodes all but `delivery`, whatever it is in this message.
    pub fn new(codec: Codec, message: NewMessage) -> Self {
        // A number that has one digit, and one byte.
        let frame = ServerFrame::from(NewMessage {
            delivery: 0,
            ..message
        });
        Self(match codec.encode_server(&frame) {
            EncodedFrame::Text(text) => Tail::Json(
                text.strip_prefix(JSON_HEAD)
                    .and_then(|rest| rest.strip_prefix('0'))
                    .expect("a message begins with its type and the delivery")
                    .into(),
            ),
            EncodedFrame::Binary(bytes) => match &*bytes {
                [number, 0, tail @ ..] if *number < 0x80 => Tail::Postcard(*number, tail.into()),
                _ => unreachable!("a message begins with its number and the delivery"),
            },
        })
    }

    /// The frame of one delivery: the same as [`Codec::encode_server`] of the message with this number.
    pub fn frame(&self, delivery: u64) -> EncodedFrame {
        match &self.0 {
            Tail::Json(tail) => {
                let mut text = String::with_capacity(JSON_HEAD.len() + NUMBER_DIGITS_MAX + tail.len());
                text.push_str(JSON_HEAD);
                write!(text, "{delivery}").expect("String grows");
                text.push_str(tail);
                EncodedFrame::Text(text)
            }
            Tail::Postcard(number, tail) => {
                let mut bytes = Vec::with_capacity(1 + NUMBER_DIGITS_MAX + tail.len());
                bytes.push(*number);
                let mut bytes = postcard::to_extend(&delivery, bytes).expect("Vec grows");
                bytes.extend_from_slice(tail);
                EncodedFrame::Binary(bytes)
            }
        }
    }
}

/// Without the message, which is the users'.
impl std::fmt::Debug for SharedMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (codec, bytes) = match &self.0 {
            Tail::Json(tail) => (Codec::Json, tail.len()),
            Tail::Postcard(_, tail) => (Codec::Postcard, tail.len()),
        };
        f.debug_struct("SharedMessage")
            .field("codec", &codec)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}
