//! PROXY protocol, version 2: by a header in front of each connection a load balancer says whose it is. Without it all
//! clients have the balancer's address, and share one client's limits.
//!
//! There is no "where it is there": whoever reaches the port could then say any address, or none.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// Signature, command, family, and the length of what follows.
const FIXED_BYTES: usize = 16;
/// Addresses take up to 216 bytes; behind them are what TLS said and names, a few hundred bytes at most.
const HEADER_BYTES_MAX: usize = 1024;
/// A balancer sends the header with the connection. Longer than a lost packet takes, which the protocol asks for.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two warnings: a balancer that is set up wrong sends thousands of connections.
const WARNING_INTERVAL_SECONDS: u64 = 60;

/// Whether connections begin with a header of PROXY protocol v2.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyProtocol {
    /// None does: a connection is its own address.
    Off,
    /// All do; one that does not is closed. Nobody but the load balancer may reach the port, since whoever does can
    /// say any address.
    Required,
}

/// Why a connection has no address.
#[derive(Debug, thiserror::Error)]
pub enum ProxyHeaderError {
    /// It was closed before it said anything, as by a check of whether the port listens.
    #[error("it was closed before its PROXY header")]
    Closed,
    /// The header did not come, or stopped in the middle.
    #[error("its PROXY header did not come within {} s", HEADER_TIMEOUT.as_secs())]
    Late,
    /// What came is something else.
    #[error("it does not begin with a header of PROXY protocol v2")]
    NotThere,
    /// There is more behind the addresses than is taken.
    #[error("its PROXY header has {0} bytes, more than {HEADER_BYTES_MAX}")]
    TooLong(usize),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ProxyProtocol {
    /// The address that limits and logs see, of a connection that comes from `peer`. Reads the header where there is
    /// one, and nothing behind it; takes [five seconds](HEADER_TIMEOUT) at most.
    ///
    /// A header that names nobody, which is what a balancer's own checks send, leaves the connection its own address.
    pub async fn client_address(
        self,
        stream: &mut (impl AsyncRead + Unpin),
        peer: SocketAddr,
    ) -> Result<SocketAddr, ProxyHeaderError> {
        let address = match self {
            Self::Off => peer,
            Self::Required => {
                let header = timeout(HEADER_TIMEOUT, read(stream));
                let named = header.await.map_err(|_| ProxyHeaderError::Late)??;
                named.unwrap_or(peer)
            }
        };
        // An IPv4 client is one address, whether the socket or the balancer speaks IPv6 or not.
        Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

impl ProxyHeaderError {
    /// Counts the connection that is closed for this, and now and then says so.
    pub fn report(&self, peer: SocketAddr) {
        static WARNED_AT: AtomicU64 = AtomicU64::new(0);
        if matches!(self, Self::Closed) {
            return;
        }
        metrics::counter!("tidings_proxy_headers_refused_total").increment(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let warned_at = WARNED_AT.load(Ordering::Relaxed);
        // Two at once may both warn.
        if now.as_secs().saturating_sub(warned_at) >= WARNING_INTERVAL_SECONDS {
            WARNED_AT.store(now.as_secs(), Ordering::Relaxed);
            tracing::warn!(%peer, error = %self, "a connection was closed; is the load balancer's PROXY protocol v2 on?");
        } else {
            tracing::debug!(%peer, error = %self, "a connection was closed");
        }
    }
}

/// Reads a header, and says whom it names.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let first = stream.read(&mut bytes[..FIXED_BYTES]).await?;
    if first == 0 {
        return Err(ProxyHeaderError::Closed);
    }
    stream
        .read_exact(&mut bytes[first..FIXED_BYTES])
        .await
        .map_err(not_there)?;
    let config = ParseConfig {
        include_tlvs: false,
        allow_v1: false,
        allow_v2: true,
    };
    // Before as much is awaited as the length of something else says. A whole header may end here.
    match ProxyHeader::parse(&bytes[..FIXED_BYTES], config) {
        Ok(_) | Err(proxy_header::Error::BufferTooShort) => {}
        Err(_) => return Err(ProxyHeaderError::NotThere),
    }
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > HEADER_BYTES_MAX {
        return Err(ProxyHeaderError::TooLong(length));
    }
    let rest = stream.read_exact(&mut bytes[FIXED_BYTES..length]).await;
    rest.map_err(not_there)?;
    let header = ProxyHeader::parse(&bytes[..length], config);
    let (header, _) = header.map_err(|_| ProxyHeaderError::NotThere)?;
    match header.proxied_address() {
        None => Ok(None),
        Some(proxied) if proxied.protocol == Protocol::Stream => Ok(Some(proxied.source)),
        Some(_) => Err(ProxyHeaderError::NotThere),
    }
}

fn not_there(error: io::Error) -> ProxyHeaderError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ProxyHeaderError::NotThere,
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use proxy_header::{ProxiedAddress, Tlv};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const CLIENT: &str = "203.0.113.7:40001";

    fn v2(header: &ProxyHeader<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.encode_v2(&mut bytes).expect("it fits");
        bytes
    }

    fn of(client: &str, destination: &str) -> ProxiedAddress {
        let address = |text: &str| text.parse().expect("an address");
        ProxiedAddress::stream(address(client), address(destination))
    }

    /// What a real socket that sends these bytes is taken for, and what is read behind.
    async fn sent(
        bytes: &[u8],
        then_close: bool,
    ) -> (Result<SocketAddr, ProxyHeaderError>, SocketAddr, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all(bytes).await.expect("it is written");
        let (mut stream, peer) = listener.accept().await.expect("there is one");
        let client = if then_close {
            drop(client);
            None
        } else {
            Some(client)
        };
        let named = ProxyProtocol::Required.client_address(&mut stream, peer).await;
        drop(client);
        let mut behind = Vec::new();
        // A socket that was closed with bytes unread may be reset; then there is nothing behind.
        let _ = stream.read_to_end(&mut behind).await;
        (named, peer, behind)
    }

    async fn error(bytes: &[u8]) -> String {
        sent(bytes, true)
            .await
            .0
            .expect_err("it is no header")
            .to_string()
    }

    #[tokio::test]
    async fn a_client_is_whom_the_header_names_and_what_follows_is_the_clients() {
        let header = v2(&ProxyHeader::with_address(of(CLIENT, "192.0.2.1:443")));
        let (named, _, behind) = sent(&[&header[..], b"GET / HTTP/1.1"].concat(), true).await;
        assert_eq!(named.expect("a header").to_string(), CLIENT);
        assert_eq!(behind, b"GET / HTTP/1.1");
    }

    #[tokio::test]
    async fn ipv6_is_taken_and_ipv4_in_it_is_ipv4() {
        for (given, taken) in [
            ("[2001:db8::7]:40001", "[2001:db8::7]:40001"),
            ("[::ffff:203.0.113.7]:40001", CLIENT),
        ] {
            let header = v2(&ProxyHeader::with_address(of(given, "[2001:db8::1]:443")));
            let named = sent(&header, false).await.0.expect("a header");
            assert_eq!(named.to_string(), taken);
        }
    }

    #[tokio::test]
    async fn what_a_balancer_adds_is_skipped() {
        let tlvs = [Tlv::Authority("chat.example.org".into()), Tlv::Noop(700)];
        let header = v2(&ProxyHeader::with_tlvs(Some(of(CLIENT, "192.0.2.1:443")), tlvs));
        let (named, _, behind) = sent(&[&header[..], b"x"].concat(), true).await;
        assert_eq!(named.expect("a header").to_string(), CLIENT);
        assert_eq!(behind, b"x");
    }

    #[tokio::test]
    async fn a_balancers_own_check_has_its_own_address() {
        let (named, peer, _) = sent(&v2(&ProxyHeader::with_local()), false).await;
        assert_eq!(named.expect("a header"), peer);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let header = v2(&ProxyHeader::with_address(of(CLIENT, "192.0.2.1:443")));
        let not_there = ProxyHeaderError::NotThere.to_string();
        assert_eq!(error(b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n").await, not_there);
        assert_eq!(
            error(b"PROXY TCP4 203.0.113.7 192.0.2.1 40001 443\r\n").await,
            not_there
        );
        assert_eq!(error(&header[..header.len() - 1]).await, not_there, "cut off");
        assert_eq!(error(&header[..7]).await, not_there, "cut off early");
        assert_eq!(error(b"").await, ProxyHeaderError::Closed.to_string());
        let mut unknown = header.clone();
        unknown[12] = 0x22;
        assert_eq!(error(&unknown).await, not_there, "an unknown command");
        let mut datagram = header.clone();
        datagram[13] = 0x12;
        assert_eq!(error(&datagram).await, not_there, "not of a stream");
        let mut short = header.clone();
        short[15] = 4;
        assert_eq!(error(&short).await, not_there, "no room for the addresses");
    }

    #[tokio::test]
    async fn a_length_is_not_believed_before_it_is_looked_at() {
        let mut header = v2(&ProxyHeader::with_address(of(CLIENT, "192.0.2.1:443")));
        header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let (refused, ..) = sent(&header, false).await;
        let refused = refused.expect_err("it is too long");
        assert!(matches!(refused, ProxyHeaderError::TooLong(65_551)), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_come_is_not_awaited() {
        let header = v2(&ProxyHeader::with_address(of(CLIENT, "192.0.2.1:443")));
        for part in [&header[..0], &header[..9], &header[..20]] {
            let (late, ..) = sent(part, false).await;
            assert!(matches!(late, Err(ProxyHeaderError::Late)), "{late:?}");
        }
    }

    #[tokio::test]
    async fn off_reads_nothing() {
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"GET").await.expect("there is room");
        let peer: SocketAddr = CLIENT.parse().expect("an address");
        let named = ProxyProtocol::Off.client_address(&mut server, peer).await;
        assert_eq!(named.expect("its own"), peer);
        let mut behind = [0; 3];
        server.read_exact(&mut behind).await.expect("it is all there");
        assert_eq!(&behind, b"GET");
    }
}
