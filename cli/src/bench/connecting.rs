//! How a client of the load generator comes in: the first time, and again after it was away or cut off. Whoever is sent
//! away comes again when PROTOCOL.md says.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use tidings_client::Backoff;
use tidings_client::connection::{ConnectError, Connection, RequestFailed};
use tidings_protocol::{ErrorCode, Hello};
use tokio::time::timeout;

use super::event::Event;
use super::observed::Observed;
use super::target::{Login, Target};

/// How often is tried that somebody comes in the first time.
const TRIES: u32 = 6;
/// For how long somebody who was in before tries to come back.
const COME_BACK_PATIENCE: Duration = Duration::from_mins(3);
/// For one try to connect and to be welcomed.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// After the time that the server names, at most, so that not all come at that moment.
const JITTER: Duration = Duration::from_millis(500);

/// A try that failed.
struct Refusal {
    error: anyhow::Error,
    /// Whether another one may help.
    again: bool,
    /// Nobody listens: nothing runs there, or it is starting again.
    unreachable: bool,
    /// When the server says that it will have room.
    retry_after: Option<Duration>,
}

/// Connects a client and says hello. Tries again while that may help.
pub(crate) async fn connect(target: &Target, index: u32) -> anyhow::Result<(String, Connection)> {
    let login = target.login(index)?;
    for failures in 0.. {
        match try_connect(target, &login).await {
            Ok(connection) => return Ok((login.user.to_string(), connection)),
            Err(refusal) if !refusal.again || refusal.unreachable || failures + 1 == TRIES => {
                return Err(refusal.error.context(format!("{} cannot connect", login.user)));
            }
            Err(refusal) => tokio::time::sleep(refusal.wait(failures)).await,
        }
    }
    unreachable!("the last try ends the loop")
}

/// The same for a client that was in before, with more patience. Tries that fail are counted.
pub(crate) async fn come_back(
    target: &Target,
    observed: &Observed,
    index: u32,
    mut failures: u32,
) -> anyhow::Result<Connection> {
    let (login, began) = (target.login(index)?, Instant::now());
    loop {
        match try_connect(target, &login).await {
            Ok(connection) => return Ok(connection),
            Err(refusal) if !refusal.again || began.elapsed() > COME_BACK_PATIENCE => {
                return Err(refusal.error.context("cannot come back"));
            }
            Err(refusal) => {
                observed.note(Event::SentAway);
                tokio::time::sleep(refusal.wait(failures)).await;
                failures += 1;
            }
        }
    }
}

impl Refusal {
    /// Until the next try.
    fn wait(&self, failures: u32) -> Duration {
        match self.retry_after {
            Some(time) => time + JITTER.mul_f64(rand::random()),
            None => Backoff::CONNECT.delay(failures, rand::random()),
        }
    }
}

async fn try_connect(target: &Target, login: &Login) -> Result<Connection, Refusal> {
    match timeout(CONNECT_PATIENCE, try_once(target, login)).await {
        Ok(result) => result,
        Err(_) => Err(Refusal {
            error: anyhow!("not welcomed within {} s", CONNECT_PATIENCE.as_secs()),
            again: true,
            unreachable: false,
            retry_after: None,
        }),
    }
}

async fn try_once(target: &Target, login: &Login) -> Result<Connection, Refusal> {
    let connecting = Connection::connect_from(&login.url, target.codec, Some(&login.token), login.source);
    let mut connection = connecting.await.map_err(|error| {
        let (again, unreachable, retry_after) = match &error {
            ConnectError::Refused {
                status: 429 | 503,
                retry_after,
                ..
            } => (true, false, *retry_after),
            ConnectError::Unreachable { .. } => (true, true, None),
            _ => (false, false, None),
        };
        Refusal {
            error: error.into(),
            again,
            unreachable,
            retry_after,
        }
    })?;
    let hello = Hello {
        id: 0,
        token: None,
        name: None,
        replace: None,
    };
    match connection.hello(hello).await {
        Ok(_) => Ok(connection),
        Err(RequestFailed::Refused(error)) => {
            let advice = match error.code {
                ErrorCode::TooManyClients => "; another --prefix makes other users",
                ErrorCode::RateLimited => "; start the system with `tidings up --rate-limits off`",
                _ => "",
            };
            Err(Refusal {
                again: error.retryable,
                unreachable: false,
                retry_after: error.retry_after_ms.map(Duration::from_millis),
                error: anyhow!("{error}{advice}"),
            })
        }
        Err(RequestFailed::Closed(closed)) => Err(Refusal {
            error: closed.into(),
            again: true,
            unreachable: false,
            retry_after: None,
        }),
    }
}
