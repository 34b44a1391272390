//! The two subprotocols: JSON in text frames, postcard in binary frames. The same types, the same meaning.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::absent;
use crate::client_frame::ClientFrame;
use crate::error::{Error, ErrorCode, FrameError};
use crate::limits::NUMBER_MAX;
use crate::server_frame::ServerFrame;

/// Characters of an error's sentence about a frame that cannot be read.
const SENTENCE_CHARS_MAX: usize = 200;

/// A subprotocol.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// `tidings.v1.json`, and what is spoken when none is named.
    #[default]
    Json,
    /// `tidings.v1.postcard`.
    Postcard,
}

/// A frame, ready for a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodedFrame {
    /// For a text frame.
    Text(String),
    /// For a binary frame.
    Binary(Vec<u8>),
}

impl EncodedFrame {
    /// Bytes on the wire, without the WebSocket's own header.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Never, but clippy asks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Codec {
    /// Both, the preferred one last.
    pub const ALL: [Self; 2] = [Self::Json, Self::Postcard];

    /// The subprotocol's name in `Sec-WebSocket-Protocol`.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "tidings.v1.json",
            Self::Postcard => "tidings.v1.postcard",
        }
    }

    /// The codec of a subprotocol's name.
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.subprotocol() == name)
    }

    /// Writes what a server says.
    pub fn encode_server(self, frame: &ServerFrame) -> EncodedFrame {
        self.encode(frame)
    }

    /// Writes what a client says.
    pub fn encode_client(self, frame: &ClientFrame) -> EncodedFrame {
        self.encode(frame)
    }

    /// Reads what a client says. `bytes` is the payload of a text frame (already known to be UTF-8) or of a
    /// binary frame.
    pub fn decode_client(self, bytes: &[u8]) -> Result<ClientFrame, FrameError> {
        let frame: ClientFrame = self.decode(bytes).map_err(|failed| match self {
            Self::Json => failed,
            Self::Postcard => FrameError {
                id: id_from_postcard(bytes),
                ..failed
            },
        })?;
        match number_over_max(&frame) {
            Some(field) => Err(FrameError {
                id: frame.id().filter(|id| *id <= NUMBER_MAX),
                error: Error::bad_request(field, format!("numbers are at most {NUMBER_MAX}")),
            }),
            None => Ok(frame),
        }
    }

    /// Reads what a server says. An unknown `type` is an error with the code `unknown_type`; use
    /// [`Self::delivery_of_unknown`] to confirm it all the same.
    pub fn decode_server(self, bytes: &[u8]) -> Result<ServerFrame, FrameError> {
        self.decode(bytes)
    }

    /// The `delivery` of a frame whose `type` is not known: a client confirms it and goes on. Only JSON can
    /// tell; a postcard client asks for a version it knows.
    pub fn delivery_of_unknown(self, bytes: &[u8]) -> Option<u64> {
        #[derive(Deserialize)]
        struct Delivery {
            delivery: u64,
        }
        match self {
            Self::Json => serde_json::from_slice::<Delivery>(bytes)
                .ok()
                .map(|frame| frame.delivery),
            Self::Postcard => None,
        }
    }

    fn encode<F: Frame>(self, frame: &F) -> EncodedFrame {
        match self {
            Self::Json => EncodedFrame::Text(absent::leaving_out(|| {
                serde_json::to_string(frame).expect("frames have string keys and no failing Serialize")
            })),
            Self::Postcard => EncodedFrame::Binary(
                frame
                    .to_postcard(Vec::with_capacity(128))
                    .expect("frames have known lengths and Vec grows"),
            ),
        }
    }

    fn decode<F: Frame>(self, bytes: &[u8]) -> Result<F, FrameError> {
        match self {
            Self::Json => decode_json(bytes),
            Self::Postcard => decode_postcard(bytes),
        }
    }
}

/// What [`crate::frames::frames`] makes for each direction.
pub(crate) trait Frame: Sized + serde::Serialize {
    /// None where the `type` is unknown.
    fn from_json(kind: &str, text: &str) -> Option<Result<Self, FieldError>>;
    /// None where the number is unknown.
    fn from_postcard(number: u32, bytes: &[u8]) -> Option<Result<Self, postcard::Error>>;
    /// Appends number and payload.
    fn to_postcard(&self, out: Vec<u8>) -> Result<Vec<u8>, postcard::Error>;
}

/// A payload that could not be read, and where.
pub(crate) struct FieldError {
    field: Option<String>,
    message: String,
}

/// Reads a payload; only a failed one is read again, for the path of the field at fault.
pub(crate) fn payload_from_json<T: DeserializeOwned>(text: &str) -> Result<T, FieldError> {
    if let Ok(payload) = serde_json::from_str(text) {
        return Ok(payload);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(payload) => Ok(payload),
        Err(error) => {
            let path = Some(error.path().to_string()).filter(|path| path != ".");
            let message = error.into_inner().to_string();
            let field = match (path, field_of_sentence(&message)) {
                (Some(path), Some(name)) => Some(format!("{path}.{name}")),
                (path, name) => path.or(name.map(str::to_owned)),
            };
            let message = without_value(message);
            Err(FieldError { field, message })
        }
    }
}

/// serde names a missing or repeated field only in its sentence.
fn field_of_sentence(message: &str) -> Option<&str> {
    let rest = ["missing field `", "duplicate field `"]
        .into_iter()
        .find_map(|start| message.strip_prefix(start))?;
    Some(rest.split_once('`')?.0)
}

/// serde quotes the text that it did not expect. That may be a token or somebody's message, and the
/// sentence may end in a log.
fn without_value(mut message: String) -> String {
    if let (Some(start), Some(end)) = (message.find("string \""), message.rfind(", expected"))
        && start < end
    {
        message.replace_range(start + "string".len()..end, "");
    }
    match message.char_indices().nth(SENTENCE_CHARS_MAX) {
        Some((end, _)) => message[..end].to_owned() + "…",
        None => message,
    }
}

/// The field that holds a number which JavaScript cannot read.
fn number_over_max(frame: &ClientFrame) -> Option<&'static str> {
    let over = |number: u64| number > NUMBER_MAX;
    match frame {
        _ if frame.id().is_some_and(over) => Some("id"),
        ClientFrame::CreateAttachment(frame) if over(frame.size) => Some("size"),
        ClientFrame::Received(frame) if frame.delivery.is_some_and(over) => Some("delivery"),
        ClientFrame::Received(frame) if frame.through.is_some_and(over) => Some("through"),
        _ => None,
    }
}

fn decode_json<F: Frame>(bytes: &[u8]) -> Result<F, FrameError> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<&'a RawValue>,
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    let bad = |id, error| FrameError { id, error };
    let text =
        std::str::from_utf8(bytes).map_err(|_| bad(None, Error::new(ErrorCode::BadFrame, "not UTF-8")))?;
    let not_an_object = |why: String| {
        let message = format!("not a JSON object: {}", without_value(why));
        bad(None, Error::new(ErrorCode::BadFrame, message))
    };
    // serde would read a struct from an array as well, by position, which no frame is.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(not_an_object("it does not begin with {".to_owned()));
    }
    let envelope: Envelope = serde_json::from_str(text).map_err(|error| not_an_object(error.to_string()))?;
    let id = envelope
        .id
        .and_then(|raw| raw.get().parse::<u64>().ok())
        .filter(|id| *id <= NUMBER_MAX);
    let Some(kind) = envelope
        .kind
        .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
    else {
        return Err(bad(id, Error::new(ErrorCode::BadFrame, "no type").at("type")));
    };
    match F::from_json(&kind, text) {
        Some(Ok(frame)) => Ok(frame),
        Some(Err(FieldError { field, message })) => {
            let mut error = Error::new(ErrorCode::BadRequest, message);
            error.field = field;
            Err(bad(id, error))
        }
        None => {
            let shown: String = kind.chars().take(40).collect();
            Err(bad(
                id,
                Error::new(ErrorCode::UnknownType, format!("unknown type {shown:?}")).at("type"),
            ))
        }
    }
}

/// The request's number when the rest of the frame cannot be read. Every frame of a client begins with its
/// `id`, except `received`, which has none.
fn id_from_postcard(bytes: &[u8]) -> Option<u64> {
    let (number, rest) = postcard::take_from_bytes::<u32>(bytes).ok()?;
    if ClientFrame::KINDS.get(number as usize) == Some(&"received") {
        return None;
    }
    let (id, _) = postcard::take_from_bytes::<u64>(rest).ok()?;
    Some(id).filter(|id| *id <= NUMBER_MAX)
}

/// Bytes after the last known field are ignored, like unknown fields in JSON: a later version may append
/// some.
fn decode_postcard<F: Frame>(bytes: &[u8]) -> Result<F, FrameError> {
    let bad = |code, message: String| FrameError {
        id: None,
        error: Error::new(code, message),
    };
    let (number, rest) = postcard::take_from_bytes::<u32>(bytes)
        .map_err(|error| bad(ErrorCode::BadFrame, format!("no frame number: {error}")))?;
    match F::from_postcard(number, rest) {
        Some(Ok(frame)) => Ok(frame),
        Some(Err(error)) => Err(bad(ErrorCode::BadRequest, format!("frame {number}: {error}"))),
        None => Err(bad(
            ErrorCode::UnknownType,
            format!("unknown frame number {number}"),
        )),
    }
}
