//! The clients' connections. By hand rather than axum's, which has no time limits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tidings_service::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

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

/// Serves until the service is asked to stop; requests that are under way are answered.
pub(crate) async fn serve(context: Context, listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let accept = async {
        loop {
            let place = places.clone().acquire_owned().await.expect("it is never closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = connection(stream, router.clone(), &graceful);
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

fn connection(
    stream: TcpStream,
    router: Router,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + use<> {
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
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    let connection = graceful.watch(connection);
    async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection has ended");
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
