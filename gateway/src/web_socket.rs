//! A WebSocket that holds no buffers at rest.
//!
//! The library speaks the protocol, but never gives a buffer back, and most connections rest at any moment. So its
//! codec is here only while it holds something: a part of a frame or of a message, what has not left, or the state of
//! closing. Otherwise it is dropped, and made anew for the next bytes that come or go. (adr/0025)

use std::io::{self, Read, Write};
use std::mem::{MaybeUninit, take};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tidings_protocol::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::frame_bounds::FrameBounds;
use crate::socket::Socket;

/// What is read at once. Chat frames are smaller.
const READ_BUFFER_BYTES: usize = 1024;
/// From so many bytes on, written frames go out by themselves.
const WRITE_BUFFER_BYTES: usize = 4096;
/// For what the socket does not take: a frame with every character escaped, and pongs. The next frame is made when
/// the one before has left.
const WRITE_BUFFER_BYTES_MAX: usize = 512 * 1024;

/// A server's end.
#[derive(Debug)]
pub(crate) struct WebSocket<S = Socket> {
    socket: S,
    /// None at rest. Boxed, so that resting takes a word.
    codec: Option<Box<Codec>>,
    /// Nothing comes any more.
    ended: bool,
}

#[derive(Debug)]
struct Codec {
    context: WebSocketContext,
    /// Of what it has taken in.
    taken: FrameBounds,
    /// What it is to take in before it reads the socket.
    early: Vec<u8>,
    /// It may hold a frame that it has not given out, or a part of one.
    unread: bool,
    /// It may hold what has not left.
    unsent: bool,
    /// The socket has not taken what was written.
    blocked: bool,
    /// One side has said that it closes.
    closing: bool,
}

impl Codec {
    fn new() -> Box<Self> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        Box::new(Self {
            context: WebSocketContext::new(Role::Server, Some(config)),
            taken: FrameBounds::new(),
            early: Vec::new(),
            unread: false,
            unsent: false,
            blocked: false,
            closing: false,
        })
    }

    fn is_at_rest(&self) -> bool {
        !(self.unread || self.unsent || self.closing)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Around a socket whose handshake is done, and what was read of it behind that.
    pub(crate) fn new(socket: S, early: &[u8]) -> Self {
        let codec = (!early.is_empty()).then(|| {
            let mut codec = Codec::new();
            codec.early = early.to_vec();
            codec.unread = true;
            codec
        });
        Self {
            socket,
            codec,
            ended: false,
        }
    }

    /// The socket.
    pub(crate) const fn get_ref(&self) -> &S {
        &self.socket
    }

    /// The next message; None when nothing comes any more. The library answers pings: a pong leaves with the next flush.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let message = if let Some(codec) = &mut self.codec {
            let early = take(&mut codec.early);
            codec.read(&mut self.socket, context, &early)
        } else {
            // Not in the library's buffer, so that there is none until something has come.
            let mut bytes = [const { MaybeUninit::uninit() }; READ_BUFFER_BYTES];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => Err(Error::ConnectionClosed),
                Ok(()) => {
                    let codec = self.codec.insert(Codec::new());
                    codec.read(&mut self.socket, context, buffer.filled())
                }
                Err(error) => Err(Error::Io(error)),
            }
        };
        let message = match message {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.rest();
                return Poll::Pending;
            }
            message => message,
        };
        self.ended = message.is_err();
        Poll::Ready(match message {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            message => Some(message),
        })
    }

    /// Ready when a message may be written: when no other waits for the socket.
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &self.codec {
            Some(codec) if codec.blocked => self.poll_flush(context),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Writes a message, which has left when it is flushed. After [`Self::poll_ready`].
    pub(crate) fn start_send(&mut self, context: &mut Context<'_>, message: Message) -> Result<(), Error> {
        let codec = self.codec.get_or_insert_with(Codec::new);
        codec.unsent = true;
        codec.closing |= message.is_close();
        match codec.on(&mut self.socket, context, &[], |library, stream| {
            library.write(stream, message)
        }) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                // It is taken, and waits for the socket.
                codec.blocked = true;
                Ok(())
            }
            written => written,
        }
    }

    /// Ready when everything has left.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(codec) = &mut self.codec else {
            return Poll::Ready(Ok(()));
        };
        match codec.on(&mut self.socket, context, &[], |library, stream| {
            library.flush(stream)
        }) {
            Ok(()) => {
                codec.blocked = false;
                codec.unsent = false;
                self.rest();
                Poll::Ready(Ok(()))
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            // It has left, and so has the other side.
            Err(Error::ConnectionClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn rest(&mut self) {
        self.codec.take_if(|codec| codec.is_at_rest());
    }
}

impl Codec {
    /// The next message, from `early` bytes and the socket's. That the socket has no more is `WouldBlock`.
    fn read<S>(&mut self, socket: &mut S, context: &mut Context<'_>, early: &[u8]) -> Result<Message, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let message = self.on(socket, context, early, |library, stream| library.read(stream));
        match &message {
            // A pong is to be written, or an answer to the close.
            Ok(Message::Ping(_)) => self.unsent = true,
            Ok(Message::Close(_)) => self.closing = true,
            _ => {}
        }
        // It asks for more only when it has given out all that is whole.
        self.unread = message.is_ok() || !self.taken.is_between_messages();
        message
    }

    /// Has the library work on the socket. What it does not take of the `early` bytes is kept for the next time.
    fn on<S, T>(
        &mut self,
        socket: &mut S,
        context: &mut Context<'_>,
        early: &[u8],
        work: impl FnOnce(&mut WebSocketContext, &mut Blocking<'_, '_, S>) -> T,
    ) -> T {
        let mut stream = Blocking {
            socket,
            context,
            early,
            taken: &mut self.taken,
        };
        let done = work(&mut self.context, &mut stream);
        if !stream.early.is_empty() {
            self.early = stream.early.to_vec();
        }
        done
    }
}

/// A socket as the library wants it: what would have to wait is `WouldBlock`, and the task is woken when it need not.
struct Blocking<'a, 'b, S> {
    socket: &'a mut S,
    context: &'a mut Context<'b>,
    early: &'a [u8],
    taken: &'a mut FrameBounds,
}

impl<S: AsyncRead + Unpin> Read for Blocking<'_, '_, S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = if self.early.is_empty() {
            let mut buffer = ReadBuf::new(bytes);
            ready_or_block(Pin::new(&mut *self.socket).poll_read(self.context, &mut buffer))?;
            buffer.filled().len()
        } else {
            self.early.read(bytes)?
        };
        self.taken.pass(&bytes[..count]);
        Ok(count)
    }
}

impl<S: AsyncWrite + Unpin> Write for Blocking<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        ready_or_block(Pin::new(&mut *self.socket).poll_write(self.context, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        ready_or_block(Pin::new(&mut *self.socket).poll_flush(self.context))
    }
}

fn ready_or_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};

    use futures::future::poll_immediate;
    use futures::{SinkExt as _, StreamExt as _};
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
    use tokio_tungstenite::tungstenite::{self, Bytes};

    use super::*;

    type Server = WebSocket<DuplexStream>;
    type Client = WebSocketStream<DuplexStream>;

    /// What the network between the two ends holds of each direction.
    const LINK_BYTES: usize = 1 << 20;

    async fn pair(link_bytes: usize) -> (Server, Client) {
        let (server, client) = duplex(link_bytes);
        let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        (WebSocket::new(server, &[]), client)
    }

    /// What comes, until nothing more is there.
    async fn taken(server: &mut Server) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = poll_immediate(next(server)).await {
            messages.push(message.expect("it is open").expect("the bytes are good"));
        }
        messages
    }

    /// Unconstrained, since tokio would have whoever does much without a wait wait for nothing.
    async fn next(server: &mut Server) -> Option<Result<Message, Error>> {
        tokio::task::unconstrained(std::future::poll_fn(|context| server.poll_next(context))).await
    }

    async fn flush(server: &mut Server) {
        let flushed = std::future::poll_fn(|context| server.poll_flush(context));
        tokio::task::unconstrained(flushed)
            .await
            .expect("the client is there");
    }

    async fn send(server: &mut Server, message: Message) {
        let sent = std::future::poll_fn(|context| {
            ready!(server.poll_ready(context))?;
            Poll::Ready(server.start_send(context, message.clone()))
        });
        let sent = tokio::task::unconstrained(sent).await;
        sent.expect("the client is there");
    }

    fn bytes_of(frame: Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.format(&mut bytes).expect("a vector takes everything");
        bytes
    }

    fn masked(mut frame: Frame) -> Vec<u8> {
        frame.header_mut().mask = Some([0xa5, 0x00, 0x3c, 0xff]);
        bytes_of(frame)
    }

    fn data(payload: &[u8], data: Data, last: bool) -> Vec<u8> {
        masked(Frame::message(payload.to_vec(), OpCode::Data(data), last))
    }

    /// Bytes of a client with whole, fragmented and control frames, the messages that they are, and after how many of the
    /// bytes no message has begun that has not ended.
    fn stream(rng: &mut StdRng) -> (Vec<u8>, Vec<Message>, Vec<usize>) {
        let (mut bytes, mut messages, mut ends) = (Vec::new(), Vec::new(), vec![0]);
        for _ in 0..rng.random_range(1..10) {
            let lengths = [0, 1, 125, 126, 900, 1_010, 1_018, 1_024, 1_025, 4_096, 70_000];
            let length = lengths[rng.random_range(0..lengths.len())];
            let payload: String = (0..length).map(|_| rng.random_range('a'..='z')).collect();
            let fragments = rng.random_range(1..=3);
            let cuts = [0, length / 3, length / 2, length];
            for fragment in 1..=fragments {
                let from = cuts[fragment - 1];
                let last = fragment == fragments;
                let to = if last { length } else { cuts[fragment] };
                let kind = if fragment == 1 { Data::Text } else { Data::Continue };
                bytes.extend(data(&payload.as_bytes()[from..to], kind, last));
                if last {
                    messages.push(Message::text(payload.clone()));
                    ends.push(bytes.len());
                }
                if rng.random_bool(0.3) {
                    let said = Bytes::from_static(b"hm");
                    if rng.random_bool(0.5) {
                        bytes.extend(masked(Frame::ping(said.clone())));
                        messages.push(Message::Ping(said));
                    } else {
                        bytes.extend(masked(Frame::pong(said.clone())));
                        messages.push(Message::Pong(said));
                    }
                    if last {
                        ends.push(bytes.len());
                    }
                }
            }
        }
        (bytes, messages, ends)
    }

    #[tokio::test]
    async fn whatever_the_splits_it_hears_the_same_and_rests_between_messages_alone() {
        let base: u64 = rand::random();
        for seed in (0..200).map(|round| base.wrapping_add(round)) {
            let mut rng = StdRng::seed_from_u64(seed);
            let (bytes, messages, ends) = stream(&mut rng);
            let (server, mut client) = duplex(LINK_BYTES);
            // What came behind the request is in no socket any more.
            let early = *[0, 1, 7, bytes.len()]
                .get(rng.random_range(0..4))
                .expect("of four");
            let mut passed = early.min(bytes.len());
            let mut server = WebSocket::new(server, &bytes[..passed]);
            let mut heard = Vec::new();
            loop {
                heard.extend(taken(&mut server).await);
                flush(&mut server).await;
                heard.extend(taken(&mut server).await);
                assert_eq!(
                    server.codec.is_none(),
                    ends.contains(&passed),
                    "seed {seed}: after {passed} bytes, where messages end at {ends:?}"
                );
                if rng.random_bool(0.2) {
                    send(&mut server, Message::text("x")).await;
                    flush(&mut server).await;
                }
                if passed == bytes.len() {
                    break;
                }
                let most = if rng.random_bool(0.3) { 5 } else { 3_000 };
                let piece = rng.random_range(1..=most.min(bytes.len() - passed));
                client
                    .write_all(&bytes[passed..passed + piece])
                    .await
                    .expect("it has room");
                passed += piece;
            }
            assert!(heard == messages, "seed {seed}");
        }
    }

    #[tokio::test]
    async fn both_ends_hear_each_other_and_the_server_rests_in_between() {
        let base: u64 = rand::random();
        for seed in (0..100).map(|round| base.wrapping_add(round)) {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut server, mut client) = pair(LINK_BYTES).await;
            for _ in 0..20 {
                let length = rng.random_range(0..6_000);
                let message = Message::binary(vec![7; length]);
                if rng.random_bool(0.5) {
                    client.send(message.clone()).await.expect("it has room");
                    assert!(taken(&mut server).await == [message], "seed {seed}");
                } else {
                    send(&mut server, message.clone()).await;
                    assert!(server.codec.is_some(), "seed {seed}: it has not left");
                    flush(&mut server).await;
                    let heard = client
                        .next()
                        .await
                        .expect("it is open")
                        .expect("the bytes are good");
                    assert!(heard == message, "seed {seed}");
                }
                assert!(server.codec.is_none(), "seed {seed}");
            }
        }
    }

    #[tokio::test]
    async fn a_ping_is_answered_before_it_rests() {
        let (mut server, mut client) = pair(LINK_BYTES).await;
        let ping = Message::Ping(Bytes::from_static(b"there?"));
        client.send(ping.clone()).await.expect("it has room");
        assert_eq!(taken(&mut server).await, [ping]);
        flush(&mut server).await;
        assert!(server.codec.is_none());
        let pong = Message::Pong(Bytes::from_static(b"there?"));
        assert_eq!(client.next().await.expect("it is open").expect("good"), pong);
    }

    #[tokio::test]
    async fn a_pong_that_the_socket_does_not_take_is_kept_until_it_does() {
        let (mut server, mut client) = pair(1_000).await;
        // With its header it fills the link.
        let filling = Message::binary(vec![0; 996]);
        send(&mut server, filling.clone()).await;
        flush(&mut server).await;
        assert!(server.codec.is_none());
        let ping = Message::Ping(Bytes::from_static(b"there?"));
        client.send(ping.clone()).await.expect("it has room");
        assert_eq!(taken(&mut server).await, [ping]);
        assert!(server.codec.is_some(), "the pong has not left");
        assert!(client.next().await.expect("it is open").expect("good") == filling);
        flush(&mut server).await;
        let pong = Message::Pong(Bytes::from_static(b"there?"));
        assert_eq!(client.next().await.expect("it is open").expect("good"), pong);
        assert!(server.codec.is_none());
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_is_kept_until_it_does() {
        let (mut server, mut client) = pair(1_000).await;
        let large = Message::text("y".repeat(20_000));
        send(&mut server, large.clone()).await;
        let ready = std::future::poll_fn(|context| server.poll_ready(context));
        assert!(poll_immediate(ready).await.is_none(), "nobody reads");
        assert!(taken(&mut server).await.is_empty());
        assert!(server.codec.is_some(), "most of it has not left");
        let reading = async { client.next().await.expect("it is open").expect("good") };
        let ((), heard) = tokio::join!(flush(&mut server), reading);
        assert_eq!(heard, large);
        assert!(server.codec.is_none());
    }

    #[tokio::test]
    async fn closing_is_not_forgotten() {
        let (mut server, mut client) = pair(LINK_BYTES).await;
        let close = CloseFrame {
            code: 4400.into(),
            reason: "bad_frame".into(),
        };
        send(&mut server, Message::Close(Some(close.clone()))).await;
        flush(&mut server).await;
        client.send(Message::text("too late")).await.expect("it has room");
        assert_eq!(taken(&mut server).await, [Message::text("too late")]);
        let refused =
            std::future::poll_fn(|context| Poll::Ready(server.start_send(context, Message::text("no"))));
        assert!(
            matches!(refused.await, Err(Error::Protocol(_))),
            "it has said that it closes"
        );
        let heard = client.next().await.expect("it is open").expect("good");
        assert_eq!(heard, Message::Close(Some(close)));
        // The client answers with its own.
        let _ = client.flush().await;
        assert!(matches!(next(&mut server).await, Some(Ok(Message::Close(_)))));
        assert!(next(&mut server).await.is_none());
    }

    #[tokio::test]
    async fn what_is_not_allowed_is_refused_and_can_still_be_answered() {
        let unmasked = bytes_of(Frame::message("x", OpCode::Data(Data::Text), true));
        let too_large = data(&vec![b'x'; FRAME_BYTES_MAX + 1], Data::Text, true);
        let half = vec![b'x'; FRAME_BYTES_MAX / 2 + 1];
        let too_large_together = [data(&half, Data::Text, false), data(&half, Data::Continue, true)].concat();
        let not_utf8 = data(b"\xff", Data::Text, true);
        let no_beginning = data(b"x", Data::Continue, true);
        let two_beginnings = [data(b"x", Data::Text, false), data(b"x", Data::Text, true)].concat();
        let reserved = [vec![0xf1], vec![0x80, 0, 0, 0, 0]].concat();
        for (bytes, capacity) in [
            (unmasked, false),
            (too_large, true),
            (too_large_together, true),
            (not_utf8, false),
            (no_beginning, false),
            (two_beginnings, false),
            (reserved, false),
        ] {
            let (server, mut client) = duplex(LINK_BYTES);
            let mut server = WebSocket::new(server, &[]);
            client.write_all(&bytes).await.expect("it has room");
            let error = next(&mut server)
                .await
                .expect("it is open")
                .expect_err("it is not allowed");
            assert_eq!(matches!(error, Error::Capacity(_)), capacity, "{error}");
            assert!(next(&mut server).await.is_none(), "nothing is read behind it");
            send(&mut server, Message::text("why")).await;
            flush(&mut server).await;
            let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
            let heard = client.next().await.expect("it is open").expect("good");
            assert_eq!(heard, Message::text("why"));
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_gone_is_the_end_at_rest_and_in_a_frame() {
        for bytes in [&b""[..], b"\x81"] {
            let (server, mut client) = duplex(LINK_BYTES);
            let mut server = WebSocket::new(server, &[]);
            client.write_all(bytes).await.expect("it has room");
            let waits = Waits::for_the_next(&mut server);
            drop(client);
            assert!(waits.are_over(), "{bytes:?}");
            let end = taken_one(&mut server);
            assert!(matches!(
                end,
                Poll::Ready(None | Some(Err(tungstenite::Error::Protocol(_))))
            ));
            assert!(next(&mut server).await.is_none());
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_a_message_is_woken_by_every_part_of_it() {
        let whole = data(b"hello", Data::Text, true);
        for cut in 0..whole.len() {
            let (server, mut client) = duplex(LINK_BYTES);
            let mut server = WebSocket::new(server, &[]);
            client.write_all(&whole[..cut]).await.expect("it has room");
            let waits = Waits::for_the_next(&mut server);
            client.write_all(&whole[cut..]).await.expect("it has room");
            assert!(waits.are_over(), "after {cut} bytes");
            let heard = taken_one(&mut server);
            let Poll::Ready(Some(Ok(heard))) = heard else {
                panic!("after {cut} bytes: {heard:?}")
            };
            assert_eq!(heard, Message::text("hello"));
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_room_is_woken_by_it() {
        for flushing in [false, true] {
            let (mut server, mut client) = pair(1_000).await;
            send(&mut server, Message::text("y".repeat(20_000))).await;
            let waits = Waits::new(|context| {
                let waits = if flushing {
                    server.poll_flush(context)
                } else {
                    server.poll_ready(context)
                };
                waits.is_pending()
            });
            let mut some = [0; 1_000];
            client
                .get_mut()
                .read_exact(&mut some)
                .await
                .expect("so much has left");
            assert!(waits.are_over(), "flushing: {flushing}");
        }
    }

    /// A task that waits, and whether it was woken since. Nothing but a wake-up tells: a test that asks again itself
    /// would hear the answer without.
    struct Waits(Arc<Woken>);

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    impl Waits {
        /// Asks, with something that has to wait.
        fn new(waits: impl FnOnce(&mut Context<'_>) -> bool) -> Self {
            let woken = Arc::new(Woken(AtomicBool::new(false)));
            let waker = Waker::from(woken.clone());
            assert!(
                waits(&mut Context::from_waker(&waker)),
                "there is nothing to wait for"
            );
            assert!(!woken.0.load(Ordering::SeqCst), "nothing has happened");
            Self(woken)
        }

        fn for_the_next(server: &mut Server) -> Self {
            Self::new(|context| server.poll_next(context).is_pending())
        }

        fn are_over(&self) -> bool {
            self.0.0.load(Ordering::SeqCst)
        }
    }

    /// What is there without a wait.
    fn taken_one(server: &mut Server) -> Poll<Option<Result<Message, Error>>> {
        server.poll_next(&mut Context::from_waker(Waker::noop()))
    }
}
