//! The opening handshake of a WebSocket (RFC 6455 §4.2), refused as HTTP says (RFC 9110). By hand, since axum's keeps the socket to itself, and with it
//! buffers that a connection at rest does without (adr/0025).

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tidings_protocol::Codec;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::socket::Socket;
use crate::web_socket::WebSocket;

/// The version of the WebSocket protocol, the only one there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// A request that asks for a WebSocket as it should.
#[derive(Debug)]
pub(crate) struct Handshake {
    upgrade: OnUpgrade,
    accept: String,
    codec: Option<Codec>,
}

/// A request that does not.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoHandshake {
    Method,
    Host,
    Connection,
    Upgrade,
    Version,
    VersionRepeated,
    Key,
    KeyRepeated,
    /// What speaks HTTP here cannot change to another protocol.
    Fixed,
}

impl NoHandshake {
    const fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "a WebSocket is asked for with GET\n",
            ),
            Self::Host => (
                StatusCode::BAD_REQUEST,
                "a request in HTTP/1.1 has one header Host\n",
            ),
            Self::Connection => (
                StatusCode::BAD_REQUEST,
                "a WebSocket is asked for with Connection: Upgrade\n",
            ),
            Self::Upgrade => (
                StatusCode::BAD_REQUEST,
                "a WebSocket is asked for with Upgrade: websocket\n",
            ),
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                "a WebSocket is asked for with Sec-WebSocket-Version: 13\n",
            ),
            Self::VersionRepeated => (
                StatusCode::BAD_REQUEST,
                "a request has Sec-WebSocket-Version only once\n",
            ),
            Self::KeyRepeated => (
                StatusCode::BAD_REQUEST,
                "a request has Sec-WebSocket-Key only once\n",
            ),
            Self::Key => (
                StatusCode::BAD_REQUEST,
                "Sec-WebSocket-Key is 16 bytes in base64\n",
            ),
            Self::Fixed => (
                StatusCode::UPGRADE_REQUIRED,
                "a WebSocket is asked for with HTTP/1.1\n",
            ),
        }
    }
}

impl IntoResponse for NoHandshake {
    fn into_response(self) -> Response {
        let mut response = self.answer().into_response();
        let status = response.status();
        let headers = response.headers_mut();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            // To what, which concerns only whoever is at the other end of this connection (RFC 9110 §15.5.22, §7.8).
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        if self == Self::Version {
            headers.insert(header::SEC_WEBSOCKET_VERSION, VERSION);
        }
        response
    }
}

impl<S: Sync> FromRequestParts<S> for Handshake {
    type Rejection = NoHandshake;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoHandshake> {
        if parts.method != Method::GET {
            return Err(NoHandshake::Method);
        }
        if parts.version < Version::HTTP_11 {
            return Err(NoHandshake::Fixed);
        }
        let headers = &parts.headers;
        // RFC 9112 §3.2. Later versions of HTTP say it elsewhere.
        if parts.version == Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 {
            return Err(NoHandshake::Host);
        }
        if !names(headers, header::CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade")) {
            return Err(NoHandshake::Connection);
        }
        if !names(headers, header::UPGRADE).any(|name| name.eq_ignore_ascii_case(b"websocket")) {
            return Err(NoHandshake::Upgrade);
        }
        // RFC 6455 §11.3: whoever is in between may look at another one than we do.
        if is_repeated(headers, header::SEC_WEBSOCKET_VERSION) {
            return Err(NoHandshake::VersionRepeated);
        }
        if is_repeated(headers, header::SEC_WEBSOCKET_KEY) {
            return Err(NoHandshake::KeyRepeated);
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
            return Err(NoHandshake::Version);
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
        let key = key.filter(|key| is_key(key)).ok_or(NoHandshake::Key)?;
        let accept = derive_accept_key(key);
        let asks_for = |codec: &Codec| {
            let subprotocol = codec.subprotocol().as_bytes();
            names(headers, header::SEC_WEBSOCKET_PROTOCOL).any(|name| name == subprotocol)
        };
        let codec = Codec::ALL.into_iter().find(asks_for);
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        Ok(Self {
            upgrade: upgrade.ok_or(NoHandshake::Fixed)?,
            accept,
            codec,
        })
    }
}

impl Handshake {
    /// What is spoken: what the client names, the first of ours if several, or JSON if none.
    pub(crate) fn codec(&self) -> Codec {
        self.codec.unwrap_or_default()
    }

    /// The answer, behind which comes the WebSocket. That is there once the answer was written, unless the connection is gone.
    pub(crate) fn accept(self) -> (Response, impl Future<Output = Option<WebSocket>> + Send + 'static) {
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let accept = HeaderValue::try_from(self.accept).expect("base64 is good in a header");
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(codec) = self.codec {
            let subprotocol = HeaderValue::from_static(codec.subprotocol());
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        (response, web_socket(self.upgrade))
    }
}

async fn web_socket(upgrade: OnUpgrade) -> Option<WebSocket> {
    let upgraded = upgrade.await.ok()?;
    let parts = downcast::<TokioIo<Socket>>(upgraded).expect("the listener accepts such sockets");
    // Not kept where it is empty: it would hold the whole buffer that the request was read into.
    Some(WebSocket::new(parts.io.into_inner(), &parts.read_buf))
}

/// The comma-separated names in all headers of a name.
fn names(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
    })
}

fn is_repeated(headers: &HeaderMap, name: HeaderName) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

/// Whether it is base64 of 16 bytes. What the bits say that nobody reads does not matter.
fn is_key(key: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(digit)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::any;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use tidings_service::ProxyProtocol;

    use super::*;
    use crate::socket::{Peer, Sockets};

    /// The request of RFC 6455 §1.3, whose answer stands there too.
    const GOOD: &str = "GET / HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    /// A server that says once what it hears, in a WebSocket. Sends it a request, and what comes behind it at once.
    async fn ask(request: &str, behind: &[u8]) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let echo = async |handshake: Handshake| {
            let (response, socket) = handshake.accept();
            tokio::spawn(async move {
                let mut socket = socket.await.expect("the connection is there");
                let heard = std::future::poll_fn(|context| socket.poll_next(context)).await;
                let heard = heard.expect("it is open").expect("the bytes are good");
                std::future::poll_fn(|context| {
                    std::task::Poll::Ready(socket.start_send(context, heard.clone()))
                })
                .await
                .expect("it is open");
                let _ = std::future::poll_fn(|context| socket.poll_flush(context)).await;
            });
            response
        };
        let router = Router::new().route("/", any(echo));
        let server = axum::serve(
            Sockets::new(listener, ProxyProtocol::Off),
            router.into_make_service_with_connect_info::<Peer>(),
        );
        tokio::spawn(async move { server.await });
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let bytes = [request.as_bytes(), behind].concat();
        stream.write_all(&bytes).await.expect("it is written");
        stream
    }

    /// The head of the answer, in lower case.
    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer has an end"));
        }
        String::from_utf8(head).expect("HTTP").to_lowercase()
    }

    #[tokio::test]
    async fn the_example_of_the_rfc_is_accepted() {
        for request in [
            GOOD.to_owned(),
            GOOD.replace("Connection: Upgrade", "connection: keep-alive, upgrade"),
            GOOD.replace("Upgrade: websocket", "Upgrade: WebSocket"),
        ] {
            let head = head(&mut ask(&request, &[]).await).await;
            assert!(head.starts_with("http/1.1 101 "), "{head}");
            for line in [
                "upgrade: websocket",
                "connection: upgrade",
                "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
            ] {
                assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
            }
            assert!(!head.contains("sec-websocket-protocol"), "{head}");
        }
    }

    #[tokio::test]
    async fn the_first_of_our_subprotocols_that_is_named_is_spoken() {
        for (named, spoken) in [
            ("tidings.v1.postcard", Some("tidings.v1.postcard")),
            (
                "soap,tidings.v1.postcard , tidings.v1.json",
                Some("tidings.v1.json"),
            ),
            (
                "soap\r\nSec-WebSocket-Protocol: tidings.v1.postcard",
                Some("tidings.v1.postcard"),
            ),
            ("soap", None),
        ] {
            let header = format!("\r\nSec-WebSocket-Protocol: {named}\r\n\r\n");
            let head = head(&mut ask(&GOOD.replace("\r\n\r\n", &header), &[]).await).await;
            let said = head.split_once("sec-websocket-protocol: ");
            let said = said.and_then(|(_, rest)| rest.split("\r\n").next());
            assert_eq!(said, spoken, "{head}");
        }
    }

    #[tokio::test]
    async fn what_is_no_handshake_is_refused() {
        for (is, instead, status) in [
            ("GET", "POST", 405),
            ("GET", "HEAD", 405),
            ("HTTP/1.1", "HTTP/1.0", 426),
            ("Connection: Upgrade", "Connection: close", 400),
            ("Upgrade: websocket", "Upgrade: h2c", 400),
            ("Upgrade: websocket\r\n", "", 400),
            ("Version: 13", "Version: 8", 426),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!!==", 400),
            ("Sec-WebSocket-Key", "Sec-WebSocket-Kex", 400),
        ] {
            let request = GOOD.replacen(is, instead, 1);
            let head = head(&mut ask(&request, &[]).await).await;
            assert!(head.contains(&format!(" {status} ")), "{request}{head}");
            let says = |line: &str| head.contains(&format!("\r\n{line}\r\n"));
            assert_eq!(
                says("sec-websocket-version: 13"),
                request.contains("Version: 8"),
                "{head}"
            );
            assert_eq!(says("allow: get"), status == 405, "{head}");
            assert_eq!(says("upgrade: websocket"), status == 426, "{head}");
            assert_eq!(says("connection: upgrade"), status == 426, "{head}");
        }
    }

    #[tokio::test]
    async fn a_header_that_is_there_once_is_missed_and_is_named_when_it_is_there_twice() {
        for (is, instead, named) in [
            ("Host: server.example.com\r\n", "", "Host"),
            ("Host: ", "Host: elsewhere\r\nHost: ", "Host"),
            (
                "Sec-WebSocket-Key: ",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: ",
                "Sec-WebSocket-Key",
            ),
            (
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8",
                "Sec-WebSocket-Version",
            ),
        ] {
            let request = GOOD
                .replacen(is, instead, 1)
                .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            let mut stream = ask(&request, &[]).await;
            let head = head(&mut stream).await;
            assert!(head.starts_with("http/1.1 400 "), "{request}{head}");
            let mut body = String::new();
            stream.read_to_string(&mut body).await.expect("a sentence");
            assert!(body.contains(named), "{request}{body}");
        }
    }

    #[tokio::test]
    async fn what_comes_with_the_request_is_heard() {
        // "hi", masked with nothing.
        let behind = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
        let mut stream = ask(GOOD, &behind).await;
        head(&mut stream).await;
        let mut frame = [0; 4];
        stream.read_exact(&mut frame).await.expect("it is said once");
        assert_eq!(frame, [0x81, 2, b'h', b'i']);
    }
}
