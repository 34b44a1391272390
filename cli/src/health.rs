//! `tidings health`: what a probe asks, where there is no curl, as in the image.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// For connecting, and for each part of the answer. A service that takes longer to say how it is, is not well.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a service says of itself is a few hundred bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Asks a service on this machine whether it is ready, prints its answer, and fails if it is not.
///
/// For health checks of containers: the image has nothing else that could ask.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    /// The service's admin port, as it was told. Where that is all addresses of a machine, this machine's own is asked.
    #[arg(long, env = "TIDINGS_ADMIN_LISTEN", value_name = "ADDRESS")]
    admin_listen: SocketAddr,

    /// Asks only whether the process turns, whatever becomes of NATS and Postgres.
    #[arg(long)]
    alive: bool,
}

pub(crate) fn main(args: &HealthArgs) -> ExitCode {
    let path = if args.alive { "/healthz" } else { "/readyz" };
    match ask(reachable(args.admin_listen), path) {
        Ok((status, body)) => {
            println!("{}", body.trim_end());
            ExitCode::from(u8::from(status != 200))
        }
        Err(error) => {
            eprintln!("tidings: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where a server that listens there can be asked from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

/// The status and the body of the answer. HTTP 1.0: the end of the answer is the end of the connection.
fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    ensure!(address.port() != 0, "--admin-listen: port 0 is no port to ask");
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().with_context(|| format!("http://{address}{path}"))?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("http://{address}{path}: the answer is not HTTP");
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("http://{address}{path}: the answer has no status"))?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn asked(answer: &'static str) -> anyhow::Result<(u16, String)> {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        std::thread::scope(|scope| {
            let asked = scope.spawn(move || ask(reachable(address), "/readyz"));
            let (mut stream, _) = listener.accept().expect("it asks");
            let mut request = [0; 256];
            let read = stream.read(&mut request).expect("a request");
            assert!(request[..read].starts_with(b"GET /readyz HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).expect("it reads");
            drop(stream);
            asked.join().expect("it does not panic")
        })
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let ready = asked("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("HTTP");
        assert_eq!(ready, (200, "ok".to_owned()));
        let not_ready = asked("HTTP/1.1 503 Service Unavailable\r\n\r\n{}").expect("HTTP");
        assert_eq!(not_ready, (503, "{}".to_owned()));
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for answer in ["", "SSH-2.0\r\n", "HTTP/1.1\r\n\r\n"] {
            assert!(asked(answer).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn who_does_not_listen_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        assert!(ask(address, "/readyz").is_err());
        assert!(ask(SocketAddr::from(([127, 0, 0, 1], 0)), "/readyz").is_err());
    }
}
