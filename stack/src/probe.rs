//! How one knows that a process answers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer on this machine takes microseconds; one that takes longer is none.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Reasons are sentences.
const BODY_BYTES_MAX: u64 = 16 * 1024;

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A GET over plain HTTP that must answer 200.
    Http {
        /// Where.
        address: SocketAddr,
        /// The path, with its query.
        path: String,
    },
    /// Postgres writes `ready` into its `postmaster.pid` once it takes connections.
    Postmaster {
        /// The folder of its data.
        data: PathBuf,
    },
}

impl Probe {
    /// Asks once. The error says in a few words what is amiss.
    pub async fn ask(&self, pid: u32) -> Result<(), String> {
        match self {
            Self::Http { address, path } => match timeout(TIMEOUT, get(*address, path)).await {
                Ok(Ok((200, _))) => Ok(()),
                Ok(Ok((status, body))) => Err(format!("{status} {}", body.trim())),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            },
            Self::Postmaster { data } => {
                let text = tokio::fs::read_to_string(data.join("postmaster.pid")).await;
                let text = text.map_err(|error| error.to_string())?;
                let mut lines = text.lines();
                if lines.next().map(str::trim) != Some(pid.to_string().as_str()) {
                    return Err("starting".to_owned());
                }
                match lines.nth(6).map(str::trim) {
                    Some("ready") => Ok(()),
                    state => Err(state.unwrap_or("starting").to_owned()),
                }
            }
        }
    }
}

/// Status and body of a GET.
async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    request("GET", address, path).await
}

/// Status and body of a request without one.
pub(crate) async fn request(method: &str, address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(BODY_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("not HTTP"))?;
    Ok((status, body.to_owned()))
}
