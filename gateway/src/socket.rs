//! The clients' TCP sockets, which count the bytes that leave: whether a slow client gets on can be told only there.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tidings_service::ProxyProtocol;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What the kernel takes beyond what is on its way to the client. With its own idea of it, which may be megabytes, a
/// slow client would seem to stand still for as long as a third of that takes, and one who does not read would cost
/// as much. On the way may be as much as ever, so this slows nobody down.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 16 * 1024;

/// Connections whose PROXY header is awaited at once; whoever comes beyond waits to be accepted. The header comes with the
/// connection, so it is a moment for each.
const HEADERS_MAX: usize = 1024;

/// Who has connected.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// From where, as the load balancer says it if it does.
    pub(crate) address: SocketAddr,
}

impl Connected<IncomingStream<'_, Sockets>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Sockets>) -> Self {
        Self {
            address: *stream.remote_addr(),
        }
    }
}

/// Accepts them.
#[derive(Debug)]
pub(crate) struct Sockets {
    listener: TcpListener,
    proxy_protocol: ProxyProtocol,
    /// Connections whose header is awaited. Each by itself, so that none waits for another's.
    headers: JoinSet<Option<(TcpStream, SocketAddr)>>,
}

impl Sockets {
    /// Of this listener.
    pub(crate) fn new(listener: TcpListener, proxy_protocol: ProxyProtocol) -> Self {
        Self {
            listener,
            proxy_protocol,
            headers: JoinSet::new(),
        }
    }

    /// The next that is there, from whom it is said to come.
    async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            tokio::select! {
                Some(named) = self.headers.join_next() => {
                    if let Ok(Some(named)) = named {
                        return named;
                    }
                }
                accepted = Listener::accept(&mut self.listener), if self.headers.len() < HEADERS_MAX => {
                    match self.proxy_protocol {
                        ProxyProtocol::Off => return accepted,
                        ProxyProtocol::Required => drop(self.headers.spawn(named(accepted))),
                    }
                }
            }
        }
    }
}

/// A connection and the client that its header names. None closes it.
async fn named((mut stream, peer): (TcpStream, SocketAddr)) -> Option<(TcpStream, SocketAddr)> {
    match ProxyProtocol::Required.client_address(&mut stream, peer).await {
        Ok(address) => Some((stream, address)),
        Err(error) => {
            error.report(peer);
            None
        }
    }
}

impl Listener for Sockets {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Socket, SocketAddr) {
        let (stream, address) = self.next().await;
        // Frames are small and awaited; a socket that refuses an option works without it.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        (Socket { stream, sent: 0 }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    sent: u64,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Socket {
    /// How many bytes have left since it was accepted.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.sent += bytes as u64;
        }
        written
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// PROXY protocol v2 of a TCP connection from 203.0.113.7, port 40001.
    const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x9c\x41\x01\xbb";
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    /// A server that answers with the address that it sees.
    async fn serve(proxy_protocol: ProxyProtocol) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let seen = |ConnectInfo(peer): ConnectInfo<Peer>| async move { peer.address.to_string() };
        let router = Router::new().route("/", get(seen));
        let server = axum::serve(
            Sockets::new(listener, proxy_protocol),
            router.into_make_service_with_connect_info::<Peer>(),
        );
        tokio::spawn(async move { server.await });
        address
    }

    async fn open(server: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(server).await.expect("it listens");
        stream.write_all(bytes).await.expect("it is written");
        stream
    }

    /// What is answered until the end. Nothing if it was closed without a word.
    async fn answer(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        // With bytes that nobody has read, it is reset.
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8(text).expect("HTTP")
    }

    #[tokio::test]
    async fn limits_see_the_client_and_not_the_load_balancer() {
        let server = serve(ProxyProtocol::Required).await;
        let seen = answer(open(server, &[HEADER, REQUEST].concat()).await).await;
        assert!(seen.ends_with("\r\n\r\n203.0.113.7:40001"), "{seen}");
    }

    #[tokio::test]
    async fn whoever_passes_the_load_balancer_by_is_closed() {
        let server = serve(ProxyProtocol::Required).await;
        assert_eq!(answer(open(server, REQUEST).await).await, "");
    }

    #[tokio::test]
    async fn nobody_waits_for_the_header_of_another() {
        let server = serve(ProxyProtocol::Required).await;
        let mut waiting = Vec::new();
        for _ in 0..20 {
            waiting.push(open(server, &HEADER[..9]).await);
        }
        let seen = answer(open(server, &[HEADER, REQUEST].concat()).await).await;
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
        let mut first = waiting.swap_remove(0);
        let rest = [&HEADER[9..], REQUEST].concat();
        first.write_all(&rest).await.expect("it is still open");
        assert!(answer(first).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn off_takes_no_header() {
        let server = serve(ProxyProtocol::Off).await;
        let seen = answer(open(server, REQUEST).await).await;
        assert!(seen.contains("\r\n\r\n127.0.0.1:"), "{seen}");
        let refused = answer(open(server, &[HEADER, REQUEST].concat()).await).await;
        assert!(!refused.contains("203.0.113.7"), "{refused}");
    }
}
