//! One WebSocket to a gateway: frames out, frames in. It does not reconnect, confirm or remember anything;
//! [`crate::Client`] does. Load generators and tests of servers use it as it is.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tidings_protocol::{
    ClientFrame, CloseCode, Codec, EncodedFrame, Error, ErrorCode, Hello, Reply, ServerFrame, Welcome,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use url::Url;

/// Where the socket is, when the URL names only the gateway.
const PATH: &str = "/v1/ws";
/// A page of `listChats` is the largest thing a server says: 100 chats of 100 participants with long ids.
const INCOMING_BYTES_MAX: usize = 16 << 20;
/// Small, since a load generator holds tens of thousands of connections; a frame may be larger than it.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// For how long [`Connection::close`] waits for the server's half of the handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A WebSocket to a gateway.
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
    /// What came while [`Self::request`] waited for its reply.
    earlier: VecDeque<Incoming>,
}

/// The half that writes.
pub struct Sender {
    sink: SplitSink<Socket, Message>,
    codec: Codec,
}

/// The half that reads.
pub struct Receiver {
    stream: SplitStream<Socket>,
    codec: Codec,
    heard: Instant,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every value is the large one")]
pub enum Incoming {
    /// A frame of this version.
    Frame(ServerFrame),
    /// A frame of a newer server, to be ignored, but confirmed if it has a `delivery`.
    Unknown {
        /// Its number, if it is a delivery.
        delivery: Option<u64>,
    },
}

/// The connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("closed with {code}{}{reason}", if reason.is_empty() { "" } else { ": " })]
pub struct Closed {
    /// The close code; 1006 where the connection broke without one, 1005 where the peer named none.
    pub code: u16,
    /// The server's words, or the system's about what broke.
    pub reason: String,
}

impl Closed {
    /// The connection broke without a word from the server.
    pub fn lost(reason: impl Into<String>) -> Self {
        Self {
            code: 1006,
            reason: reason.into(),
        }
    }

    /// The code, if it is one that Tidings sends.
    pub fn close_code(&self) -> Option<CloseCode> {
        CloseCode::from_number(self.code)
    }
}

impl From<tungstenite::Error> for Closed {
    fn from(error: tungstenite::Error) -> Self {
        Self::lost(error.to_string())
    }
}

/// No connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be used; trying again is no use.
    #[error("{url}: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token cannot stand in a header; trying again is no use.
    #[error("the token has characters that no HTTP header may have")]
    Token,
    /// A server answered, but not with a WebSocket.
    #[error("{url}: HTTP status {status} instead of a WebSocket")]
    Refused {
        /// Who.
        url: String,
        /// HTTP status.
        status: u16,
        /// `Retry-After`, where it was given in seconds.
        retry_after: Option<Duration>,
    },
    /// Nobody answered, or not in our protocol.
    #[error("{url}: {reason}")]
    Unreachable {
        /// Who.
        url: String,
        /// The system's words.
        reason: String,
    },
}

/// A [`Connection::request`] or [`Connection::hello`] that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RequestFailed {
    /// The server answered FAILURE.
    #[error(transparent)]
    Refused(#[from] Error),
    /// The connection is over.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl Connection {
    /// Opens a WebSocket. `url` is `ws://` or `wss://`; without a path it means `/v1/ws`. `bearer` is the
    /// token for the `Authorization` header; without it the token goes into [`Hello`].
    pub async fn connect(url: &str, codec: Codec, bearer: Option<&str>) -> Result<Self, ConnectError> {
        Self::connect_from(url, codec, bearer, None).await
    }

    /// The same, from one of this machine's addresses: a process has some 28,000 ports of each to connect from.
    pub async fn connect_from(
        url: &str,
        codec: Codec,
        bearer: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Self, ConnectError> {
        let request = upgrade_request(url, codec, bearer)?;
        if request.uri().scheme_str() == Some("wss") {
            use_ring();
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(INCOMING_BYTES_MAX))
            .max_frame_size(Some(INCOMING_BYTES_MAX));
        let connected = match source {
            None => tokio_tungstenite::connect_async_with_config(request, Some(config), true).await,
            Some(source) => {
                let stream = tcp_from(source, request.uri()).await;
                let stream = stream.map_err(|error| connect_error(url, error.into()))?;
                tokio_tungstenite::client_async_tls_with_config(request, stream, Some(config), None).await
            }
        };
        let (socket, _) = connected.map_err(|error| connect_error(url, error))?;
        let (sink, stream) = socket.split();
        Ok(Self {
            sender: Sender { sink, codec },
            receiver: Receiver {
                stream,
                codec,
                heard: Instant::now(),
            },
            earlier: VecDeque::new(),
        })
    }

    /// Says something.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<(), Closed> {
        self.sender.send(frame).await
    }

    /// Sends a payload that need not be a frame of the protocol.
    pub async fn send_raw(&mut self, frame: EncodedFrame) -> Result<(), Closed> {
        self.sender.send_raw(frame).await
    }

    /// Sends any WebSocket message.
    pub async fn send_message(&mut self, message: Message) -> Result<(), Closed> {
        self.sender.send_message(message).await
    }

    /// Sends a WebSocket ping, which any server answers.
    pub async fn ping(&mut self) -> Result<(), Closed> {
        self.sender.ping().await
    }

    /// The next frame. WebSocket pings are answered on the way. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Incoming, Closed> {
        match self.earlier.pop_front() {
            Some(incoming) => Ok(incoming),
            None => self.receiver.next().await,
        }
    }

    /// Sends a request and waits for its reply; what comes meanwhile is kept for [`Self::next`]. FAILURE is
    /// an error.
    pub async fn request(&mut self, frame: &ClientFrame) -> Result<Reply, RequestFailed> {
        self.send(frame).await?;
        loop {
            match self.receiver.next().await? {
                Incoming::Frame(ServerFrame::Reply(reply)) if reply.id == frame.id() => {
                    return match reply.error {
                        Some(error) => Err(error.into()),
                        None => Ok(reply),
                    };
                }
                other => self.earlier.push_back(other),
            }
        }
    }

    /// Says hello and waits for the welcome.
    pub async fn hello(&mut self, hello: Hello) -> Result<Welcome, RequestFailed> {
        let id = hello.id;
        self.send(&hello.into()).await?;
        loop {
            match self.receiver.next().await? {
                Incoming::Frame(ServerFrame::Welcome(welcome)) if welcome.id == id => return Ok(welcome),
                Incoming::Frame(ServerFrame::Reply(reply)) if reply.id == Some(id) => {
                    let unexplained = || Error::new(ErrorCode::Internal, "hello answered by a bare reply");
                    return Err(reply.error.unwrap_or_else(unexplained).into());
                }
                other => self.earlier.push_back(other),
            }
        }
    }

    /// When the server was last heard: any frame, ping or pong.
    pub fn heard(&self) -> Instant {
        self.receiver.heard
    }

    /// Closes with the handshake; what the server still says is thrown away. Waits at most 5 seconds.
    pub async fn close(mut self) {
        let handshake = async {
            self.sender.close().await.ok();
            while self.receiver.next().await.is_ok() {}
        };
        timeout(CLOSE_TIMEOUT, handshake).await.ok();
    }

    /// The two halves, for a task each. What [`Self::request`] kept is returned first.
    pub fn split(self) -> (Sender, Receiver, VecDeque<Incoming>) {
        (self.sender, self.receiver, self.earlier)
    }
}

impl Sender {
    /// Says something.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<(), Closed> {
        self.send_raw(self.codec.encode_client(frame)).await
    }

    /// Sends a payload that need not be a frame of the protocol.
    pub async fn send_raw(&mut self, frame: EncodedFrame) -> Result<(), Closed> {
        self.send_message(match frame {
            EncodedFrame::Text(text) => Message::text(text),
            EncodedFrame::Binary(bytes) => Message::binary(bytes),
        })
        .await
    }

    /// Sends a WebSocket ping, which any server answers.
    pub async fn ping(&mut self) -> Result<(), Closed> {
        self.send_message(Message::Ping(bytes::Bytes::new())).await
    }

    /// Sends any WebSocket message.
    pub async fn send_message(&mut self, message: Message) -> Result<(), Closed> {
        Ok(self.sink.send(message).await?)
    }

    /// Sends the close frame. The reader then ends with the server's.
    pub async fn close(&mut self) -> Result<(), Closed> {
        Ok(self.sink.close().await?)
    }
}

impl Receiver {
    /// The next frame. WebSocket pings are answered on the way. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Incoming, Closed> {
        loop {
            let message = match self.stream.next().await {
                Some(message) => message?,
                None => return Err(Closed::lost("the stream ended without a close frame")),
            };
            self.heard = Instant::now();
            match message {
                Message::Text(text) => return self.decode(text.as_bytes(), true),
                Message::Binary(bytes) => return self.decode(&bytes, false),
                Message::Close(frame) => {
                    // One more poll writes our half of the handshake, without waiting for the server to hang up.
                    let _ = futures::poll!(self.stream.next());
                    return Err(match frame {
                        Some(frame) => Closed {
                            code: frame.code.into(),
                            reason: frame.reason.to_string(),
                        },
                        None => Closed {
                            code: 1005,
                            reason: String::new(),
                        },
                    });
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// When the server was last heard: any frame, ping or pong.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    fn decode(&self, bytes: &[u8], text: bool) -> Result<Incoming, Closed> {
        if text != (self.codec == Codec::Json) {
            return Err(Closed::lost("the server's frame is of the other subprotocol"));
        }
        match self.codec.decode_server(bytes) {
            Ok(frame) => Ok(Incoming::Frame(frame)),
            Err(error) if error.error.code == ErrorCode::UnknownType => Ok(Incoming::Unknown {
                delivery: self.codec.delivery_of_unknown(bytes),
            }),
            Err(error) => Err(Closed::lost(format!(
                "the server's frame makes no sense: {error}"
            ))),
        }
    }
}

/// A TCP connection to whom a URI names, from this address.
async fn tcp_from(source: IpAddr, uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16();
    let port = port.unwrap_or(if uri.scheme_str() == Some("wss") { 443 } else { 80 });
    let mut last = io::Error::other(format!("{host} has no address that {source} can reach"));
    let addresses = tokio::net::lookup_host((host, port)).await?;
    for address in addresses.filter(|address| address.is_ipv4() == source.is_ipv4()) {
        let socket = match source {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.bind((source, 0).into())?;
        match socket.connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn upgrade_request(url: &str, codec: Codec, bearer: Option<&str>) -> Result<Request<()>, ConnectError> {
    let wrong = |reason: String| ConnectError::Url {
        url: url.to_owned(),
        reason,
    };
    let mut parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
    if !matches!(parsed.scheme(), "ws" | "wss") {
        return Err(wrong("a gateway's URL begins with ws:// or wss://".to_owned()));
    }
    if matches!(parsed.path(), "" | "/") {
        parsed.set_path(PATH);
    }
    let mut request = parsed
        .as_str()
        .into_client_request()
        .map_err(|error| wrong(error.to_string()))?;
    let headers = request.headers_mut();
    headers.insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(codec.subprotocol()),
    );
    if let Some(token) = bearer {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ConnectError::Token)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(request)
}

fn connect_error(url: &str, error: tungstenite::Error) -> ConnectError {
    let url = url.to_owned();
    match error {
        tungstenite::Error::Http(response) => ConnectError::Refused {
            url,
            status: response.status().as_u16(),
            retry_after: response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .map(Duration::from_secs),
        },
        tungstenite::Error::Url(error) => ConnectError::Url {
            url,
            reason: error.to_string(),
        },
        error => ConnectError::Unreachable {
            url,
            reason: error.to_string(),
        },
    }
}

/// An application that also links another rustls provider has chosen one itself; for all others it is ring.
pub(crate) fn use_ring() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Err means that another thread was faster, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_comes_from_the_address_that_was_asked_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("free port");
        let address = listener.local_addr().expect("bound");
        // All of 127.0.0.0/8 is this machine.
        let source: IpAddr = "127.0.0.7".parse().expect("an address");
        let uri: Uri = format!("ws://{address}/v1/ws").parse().expect("a URI");
        let (connected, accepted) = tokio::join!(tcp_from(source, &uri), listener.accept());
        connected.expect("it listens");
        assert_eq!(accepted.expect("somebody came").1.ip(), source);
        let other_family = tcp_from("::1".parse().expect("an address"), &uri).await;
        let reason = other_family.expect_err("IPv6 does not reach it").to_string();
        assert!(reason.contains("127.0.0.1 has no address"), "{reason}");
    }
}
