//! The clients' connections. By hand rather than axum's, which has no time limits.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tidings_service::{BaseContext, ProxyProtocol, Switch};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use crate::config::MediaConfig;

/// Connections of one process. One is a file descriptor, and another for what it reads or writes; whoever comes beyond
/// waits to be accepted.
const CONNECTIONS_MAX: usize = 8_192;
/// For the head of a request, and between two requests.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes nothing of an answer for so long is cut.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// What is read at once, and what waits to be written; the larger, the fewer wake-ups an upload takes. An upload and a
/// download hold a few of these, which must stay below 4 MB.
const BUFFER_BYTES: usize = 512 * 1024;
/// What the kernel takes beyond what is on its way. With its own idea of it, megabytes, a slow client would seem to
/// stand still for as long as a third of that takes.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 256 * 1024;
/// After a connection that could not be accepted, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// What serves a connection.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    router: Router,
    proxy_protocol: ProxyProtocol,
    addresses: Arc<Addresses>,
}

/// How many connections there are from each address.
#[derive(Debug)]
struct Addresses {
    counts: Mutex<HashMap<IpAddr, usize>>,
    /// Absent: as many as the process takes.
    max: Option<usize>,
}

/// Counts a connection, until it is dropped.
#[derive(Debug)]
struct Counted {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Server {
    pub(crate) fn new(config: &MediaConfig, router: Router) -> Self {
        let on = config.rate_limits == Switch::On;
        Self {
            router,
            proxy_protocol: config.proxy_protocol,
            addresses: Arc::new(Addresses {
                counts: Mutex::default(),
                max: on.then_some(config.connections_per_address_max),
            }),
        }
    }

    /// Serves until the service is asked to stop; requests that are under way are answered.
    pub(crate) async fn serve(self, context: BaseContext, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let graceful = GracefulShutdown::new();
        let accept = async {
            loop {
                let place = places.clone().acquire_owned().await.expect("it is never closed");
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let stopping = context.stopping.clone();
                        let served = self
                            .clone()
                            .connection(stream, peer, stopping, graceful.watcher());
                        context.tasks.spawn(async move {
                            served.await;
                            drop(place);
                        });
                    }
                    Err(error) => not_accepted(&error).await,
                }
            }
        };
        context.stopping.run_until_cancelled(accept).await;
        drop(listener);
        graceful.shutdown().await;
    }

    async fn connection(
        self,
        mut stream: TcpStream,
        peer: SocketAddr,
        stopping: CancellationToken,
        watcher: Watcher,
    ) {
        let address = self.proxy_protocol.client_address(&mut stream, peer);
        let address = match stopping.run_until_cancelled(address).await {
            Some(Ok(address)) => address,
            Some(Err(error)) => return error.report(peer),
            None => return,
        };
        let Some(_counted) = self.addresses.count(address.ip()) else {
            metrics::counter!("tidings_media_connections_refused_total").increment(1);
            tracing::debug!(client.address = %address, "too many connections from this address");
            return;
        };
        // A socket that refuses an option works without it.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(STALL_TIMEOUT));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_TIMEOUT)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(
                TokioIo::new(Box::pin(stream)),
                TowerToHyperService::new(self.router),
            );
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(client.address = %address, %error, "a connection has ended");
        }
    }
}

impl Addresses {
    /// One more from this address. None if it has as many as it may.
    fn count(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        let mut counts = self.counts.lock();
        let count = counts.get(&address).copied().unwrap_or_default();
        if self.max.is_some_and(|max| count >= max) {
            return None;
        }
        counts.insert(address, count + 1);
        Some(Counted {
            addresses: self.clone(),
            address,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

async fn not_accepted(error: &io::Error) {
    // Of the client that has gone meanwhile, nothing more is to be said.
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    ) {
        tracing::error!(%error, "a connection cannot be accepted");
        tokio::time::sleep(ACCEPT_RETRY).await;
    }
}
