//! The two subprotocols: JSON in text frames, postcard in binary frames. The same types, the same meaning.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::absent;
use crate::client_frame::ClientFrame;
use crate::error::{Error, ErrorCode, FrameError};
use crate::limits::NUMBER_MAX;
use crate::server_frame::ServerFrame;

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
        let frame: ClientFrame = self.decode(bytes)?;
        match frame.id() {
            Some(id) if id > NUMBER_MAX => Err(FrameError {
                id: None,
                error: Error::bad_request("id", format!("numbers are at most {NUMBER_MAX}")),
            }),
            _ => Ok(frame),
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
            let path = error.path().to_string();
            let message = error.into_inner().to_string();
            let field = if path == "." {
                missing_field(&message)
            } else {
                Some(path)
            };
            Err(FieldError { field, message })
        }
    }
}

/// serde names a missing field only in its sentence.
fn missing_field(message: &str) -> Option<String> {
    let rest = message.split_once("missing field `")?.1;
    Some(rest.split_once('`')?.0.to_owned())
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
    let envelope: Envelope = serde_json::from_str(text).map_err(|error| {
        bad(
            None,
            Error::new(ErrorCode::BadFrame, format!("not a JSON object: {error}")),
        )
    })?;
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
