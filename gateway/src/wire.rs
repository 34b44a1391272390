//! A WebSocket that speaks a codec: frames in, frames out, closing with a reason.

use std::borrow::Cow;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::{SinkExt as _, StreamExt as _};
use tidings_protocol::{
    ClientFrame, CloseCode, Closing, Codec, EncodedFrame, ErrorCode, FrameError, ServerFrame,
};
use tokio_tungstenite::tungstenite;

/// A socket that takes nothing for so long is not read by anybody.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The closing handshake is a courtesy.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What comes in.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A frame of ours.
    Frame(ClientFrame),
    /// Something in its place that gets an answer.
    Bad(FrameError),
    /// A ping or a pong: somebody is there.
    SignOfLife,
    /// Not ours at all, or too large: the connection is to be closed with this code.
    Unacceptable(CloseCode),
    /// The socket is gone.
    Gone,
}

/// The socket takes no more.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// It is gone.
    Gone,
    /// Nobody reads it.
    Stalled,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: WebSocket,
    codec: Codec,
}

impl Wire {
    pub(crate) fn new(socket: WebSocket, codec: Codec) -> Self {
        Self { socket, codec }
    }

    /// The next thing that comes in. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Incoming {
        let message = match self.socket.next().await {
            None => return Incoming::Gone,
            Some(Ok(message)) => message,
            Some(Err(error)) => return unacceptable(error),
        };
        match (message, self.codec) {
            (Message::Text(text), Codec::Json) => self.frame(text.as_bytes()),
            (Message::Binary(bytes), Codec::Postcard) => self.frame(&bytes),
            (Message::Text(_) | Message::Binary(_), _) => Incoming::Unacceptable(CloseCode::NotTidings),
            (Message::Ping(_) | Message::Pong(_), _) => Incoming::SignOfLife,
            (Message::Close(_), _) => Incoming::Gone,
        }
    }

    fn frame(&self, bytes: &[u8]) -> Incoming {
        match self.codec.decode_client(bytes) {
            Ok(frame) => Incoming::Frame(frame),
            Err(error) => Incoming::Bad(error),
        }
    }

    /// Writes a frame; [`Self::flush`] sends what was written.
    pub(crate) async fn write(&mut self, frame: &ServerFrame) -> Result<(), WriteError> {
        let message = match self.codec.encode_server(frame) {
            EncodedFrame::Text(text) => Message::Text(text.into()),
            EncodedFrame::Binary(bytes) => Message::Binary(bytes.into()),
        };
        in_time(self.socket.feed(message)).await
    }

    /// Sends what was written.
    pub(crate) async fn flush(&mut self) -> Result<(), WriteError> {
        in_time(self.socket.flush()).await
    }

    /// Asks for a sign of life.
    pub(crate) async fn ping(&mut self) -> Result<(), WriteError> {
        in_time(self.socket.send(Message::Ping(axum::body::Bytes::new()))).await
    }

    /// Says why, then closes. What was written before is sent first.
    pub(crate) async fn close(mut self, code: CloseCode, reason: ErrorCode, retry_after_ms: Option<u64>) {
        let closing = Closing {
            code: reason,
            reconnect: code.reconnect(),
            retry_after_ms,
        };
        let handshake = async {
            let reason = closing.code.as_str().to_owned();
            self.write(&closing.into()).await.ok()?;
            let frame = CloseFrame {
                code: code.number(),
                reason: Cow::<str>::Owned(reason).into_owned().into(),
            };
            self.socket.send(Message::Close(Some(frame))).await.ok()?;
            // The other side's close frame; without it the kernel may throw away what was sent.
            while let Some(Ok(_)) = self.socket.next().await {}
            Some(())
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, handshake).await;
    }
}

async fn in_time(write: impl Future<Output = Result<(), axum::Error>>) -> Result<(), WriteError> {
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(WriteError::Gone),
        Err(_) => Err(WriteError::Stalled),
    }
}

/// What the WebSocket library refused, as a close code.
fn unacceptable(error: axum::Error) -> Incoming {
    let inner = error.into_inner();
    match inner.downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => Incoming::Unacceptable(CloseCode::FrameTooLarge),
        Some(tungstenite::Error::Utf8(_)) => Incoming::Unacceptable(CloseCode::NotTidings),
        Some(tungstenite::Error::Protocol(error))
            if !matches!(
                error,
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake
            ) =>
        {
            Incoming::Unacceptable(CloseCode::NotTidings)
        }
        _ => Incoming::Gone,
    }
}
