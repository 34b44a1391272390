//! A WebSocket that speaks a codec: frames in, frames out, closing with a reason.
//!
//! Writing never waits: what the client does not take yet waits in [`Outgoing`] and leaves while the next frame is
//! awaited ([`Wire::next`]), so that whoever takes long to read is heard all the same.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tidings_protocol::{
    ClientFrame, CloseCode, Closing, Codec, EncodedFrame, ErrorCode, FrameError, ServerFrame, UserId,
};
use tidings_service::Span;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::delivery::Body;
use crate::metrics::CONFIRM_SECONDS;
use crate::outgoing::{Next, Outgoing};
use crate::web_socket::WebSocket;

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

/// The socket takes nothing at the moment.
#[derive(Debug)]
struct Blocked {
    /// Since when; bytes that leave begin it anew.
    since: Instant,
    /// What had left by then.
    sent: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: WebSocket,
    codec: Codec,
    /// What came before anybody wanted it.
    early: Option<Box<Incoming>>,
    outgoing: Outgoing,
    /// The socket holds what it has not passed on.
    unflushed: bool,
    blocked: Option<Blocked>,
    /// When bytes last left that the socket had not taken at first.
    progressed_at: Option<Instant>,
    stall_timeout: Duration,
}

impl Wire {
    /// Around a socket. One that takes nothing for `stall_timeout` is read by nobody.
    pub(crate) fn new(socket: WebSocket, codec: Codec, stall_timeout: Duration) -> Self {
        Self {
            socket,
            codec,
            early: None,
            outgoing: Outgoing::default(),
            unflushed: false,
            blocked: None,
            progressed_at: None,
            stall_timeout,
        }
    }

    /// Sends what was written, and waits for the next thing that comes in, if it `may_read`: not while too many answers
    /// wait. Cancel-safe.
    pub(crate) async fn next(&mut self, may_read: bool) -> Incoming {
        if let Some(early) = self.early.take_if(|_| may_read) {
            return *early;
        }
        let message = std::future::poll_fn(|context| {
            if let Poll::Ready(Err(gone)) = self.poll_write(context) {
                return Poll::Ready(Err(gone));
            }
            if !may_read || self.outgoing.is_choked() {
                return Poll::Pending;
            }
            let message = self.socket.poll_next(context);
            if let Poll::Ready(Some(Ok(Message::Close(_)))) = &message {
                // The library has written a close frame in answer (RFC 6455 §5.5.1). It leaves now or never: nobody waits
                // for a client that closes and does not read.
                let _ = self.socket.poll_flush(context);
            }
            message.map(Ok)
        });
        let message = match message.await {
            Err(_) | Ok(None) => return Incoming::Gone,
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return unacceptable(&error),
        };
        match (message, self.codec) {
            (Message::Text(text), Codec::Json) => self.frame(text.as_bytes()),
            (Message::Binary(bytes), Codec::Postcard) => self.frame(&bytes),
            (Message::Text(_) | Message::Binary(_), _) => Incoming::Unacceptable(CloseCode::NotTidings),
            (Message::Ping(_), _) => {
                // The library has written a pong.
                self.unflushed = true;
                Incoming::SignOfLife
            }
            (Message::Pong(_), _) => Incoming::SignOfLife,
            (Message::Close(_) | Message::Frame(_), _) => Incoming::Gone,
        }
    }

    /// Ends when the socket is gone, as far as that shows: the first frame that comes is kept for [`Self::next`], and
    /// nothing is read behind it. Cancel-safe.
    pub(crate) async fn gone(&mut self) {
        while self.early.is_none() {
            match self.next(true).await {
                Incoming::Gone => return,
                Incoming::SignOfLife => {}
                early => self.early = Some(Box::new(early)),
            }
        }
        std::future::pending::<()>().await;
    }

    fn frame(&self, bytes: &[u8]) -> Incoming {
        match self.codec.decode_client(bytes) {
            Ok(frame) => Incoming::Frame(frame),
            Err(error) => Incoming::Bad(error),
        }
    }

    /// Writes a frame that is no delivery.
    pub(crate) fn write(&mut self, frame: &ServerFrame) {
        let message = message(self.codec.encode_server(frame));
        self.outgoing.answer(message);
    }

    /// Writes a delivery, with the span of one that is traced.
    pub(crate) fn deliver(&mut self, number: u64, body: Body, reader: UserId, span: Option<Span>) {
        self.outgoing.deliver(number, body, reader, span);
    }

    /// Writes, after the deliveries before it, that there are no more.
    pub(crate) fn caught_up(&mut self) {
        self.outgoing.caught_up();
    }

    /// Asks for a sign of life.
    pub(crate) fn ping(&mut self) {
        self.outgoing.answer(Message::Ping(tungstenite::Bytes::new()));
    }

    /// The number of the last delivery that the client can have got; 0 before the first.
    pub(crate) fn delivered(&self) -> u64 {
        self.outgoing.delivered()
    }

    /// The client has confirmed a delivery, or everything up to it.
    pub(crate) fn confirmed(&mut self, delivery: u64, and_before: bool) {
        if let Some(after) = self.outgoing.confirmed(delivery, and_before) {
            CONFIRM_SECONDS.record(after);
        }
    }

    /// When the socket will have taken nothing for too long, unless it takes something.
    pub(crate) fn stalls_at(&self) -> Option<Instant> {
        let blocked = self.blocked.as_ref()?;
        Some(blocked.since + self.stall_timeout)
    }

    /// When bytes last left that the client had not taken at first, told once: somebody reads them.
    pub(crate) fn take_progress(&mut self) -> Option<Instant> {
        self.progressed_at.take()
    }

    /// Sends of what was written as much as the socket takes now.
    pub(crate) async fn send(&mut self) -> Result<(), WriteError> {
        std::future::poll_fn(|context| match self.poll_write(context) {
            Poll::Ready(sent) => Poll::Ready(sent),
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await?;
        // What has left until this moment counts, also where the clock went on without us.
        match self.stalls_at() {
            Some(at) if at <= Instant::now() => Err(WriteError::Stalled),
            _ => Ok(()),
        }
    }

    /// Sends what was written, and waits until all of it has left.
    pub(crate) async fn flush(&mut self) -> Result<(), WriteError> {
        loop {
            self.send().await?;
            let deadline = self.stalls_at().unwrap_or_else(Instant::now);
            let all = std::future::poll_fn(|context| self.poll_write(context));
            if let Ok(sent) = tokio::time::timeout_at(deadline, all).await {
                return sent;
            }
        }
    }

    /// Ready when everything has left.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        loop {
            let takes = if self.blocked.is_some() || self.outgoing.is_empty() {
                if !self.unflushed {
                    return Poll::Ready(Ok(()));
                }
                self.socket.poll_flush(context)
            } else {
                self.socket.poll_ready(context)
            };
            if takes.is_pending() {
                self.note_blocked();
            }
            ready!(takes).map_err(|_| WriteError::Gone)?;
            if self.blocked.take().is_some() {
                self.progressed_at = Some(Instant::now());
            }
            let Some(next) = self.outgoing.next() else {
                self.unflushed = false;
                return Poll::Ready(Ok(()));
            };
            let message = match next {
                Next::Answer(message) => message,
                Next::FromInbox(next) => message(next.encode(self.codec)),
            };
            self.unflushed = true;
            self.socket
                .start_send(context, message)
                .map_err(|_| WriteError::Gone)?;
        }
    }

    fn note_blocked(&mut self) {
        let sent = self.socket.get_ref().sent();
        let before = self.blocked.as_ref().map(|blocked| blocked.sent);
        if before == Some(sent) {
            return;
        }
        let since = Instant::now();
        self.blocked = Some(Blocked { since, sent });
        if before.is_some() {
            self.progressed_at = Some(since);
        }
    }

    /// Says why, then closes. What was answered before is sent first, as far as two seconds suffice; deliveries that
    /// have not left will come again.
    pub(crate) async fn close(mut self, code: CloseCode, reason: ErrorCode, retry_after_ms: Option<u64>) {
        metrics::counter!("tidings_closes_total", "code" => code.number().to_string()).increment(1);
        let closing = Closing {
            code: reason,
            reconnect: code.reconnect(),
            retry_after_ms,
        };
        let handshake = async {
            let reason = closing.code.as_str().to_owned();
            self.outgoing.forget_deliveries();
            self.write(&closing.into());
            std::future::poll_fn(|context| self.poll_write(context))
                .await
                .ok()?;
            let frame = CloseFrame {
                code: code.number().into(),
                reason: reason.into(),
            };
            self.outgoing.answer(Message::Close(Some(frame)));
            std::future::poll_fn(|context| self.poll_write(context))
                .await
                .ok()?;
            // The other side's close frame; without it the kernel may throw away what was sent.
            while let Some(Ok(_)) = std::future::poll_fn(|context| self.socket.poll_next(context)).await {}
            Some(())
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, handshake).await;
    }
}

fn message(frame: EncodedFrame) -> Message {
    match frame {
        EncodedFrame::Text(text) => Message::Text(text.into()),
        EncodedFrame::Binary(bytes) => Message::Binary(bytes.into()),
    }
}

/// What the WebSocket library refused, as a close code.
fn unacceptable(error: &tungstenite::Error) -> Incoming {
    match error {
        tungstenite::Error::Capacity(_) => Incoming::Unacceptable(CloseCode::FrameTooLarge),
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Incoming::Gone,
        tungstenite::Error::Utf8(_) | tungstenite::Error::Protocol(_) => {
            Incoming::Unacceptable(CloseCode::NotTidings)
        }
        _ => Incoming::Gone,
    }
}

#[cfg(test)]
mod tests {
    use axum::serve::Listener as _;
    use tidings_service::ProxyProtocol;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::socket::Sockets;

    async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let client = TcpStream::connect(address).await.expect("it listens");
        let (socket, _) = Sockets::new(listener, ProxyProtocol::Off).accept().await;
        let socket = WebSocket::new(socket, &[]);
        (Wire::new(socket, Codec::Json, Duration::from_secs(10)), client)
    }

    #[tokio::test]
    async fn a_close_is_answered_with_a_close_before_the_socket_is() {
        // 1000, and nothing, masked with nothing.
        for (close, answer) in [
            (
                &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8][..],
                &[0x88, 2, 0x03, 0xe8][..],
            ),
            (&[0x88, 0x80, 0, 0, 0, 0], &[0x88, 0]),
        ] {
            let (mut wire, mut client) = pair().await;
            client.write_all(close).await.expect("it is open");
            assert!(matches!(wire.next(true).await, Incoming::Gone));
            drop(wire);
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.expect("it is not reset");
            assert_eq!(heard, answer);
        }
    }

    #[tokio::test]
    async fn what_was_written_before_a_close_comes_before_its_answer() {
        let (mut wire, mut client) = pair().await;
        wire.ping();
        client
            .write_all(&[0x88, 0x80, 0, 0, 0, 0])
            .await
            .expect("it is open");
        assert!(matches!(wire.next(true).await, Incoming::Gone));
        drop(wire);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("it is not reset");
        assert_eq!(heard, [0x89, 0, 0x88, 0]);
    }
}
