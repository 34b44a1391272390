//! All clients of the load generator: connected side by side, then kept in hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tidings_client::Backoff;
use tidings_client::connection::{ConnectError, Connection, RequestFailed};
use tidings_protocol::{ErrorCode, Hello, Reply};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::client::Client;
use super::observed::{Observed, read};
use super::say;
use super::target::{Login, Target, allow_sockets};

/// How often a connection or a request is tried that might succeed later.
const TRIES: u32 = 6;
/// For one try to connect and to be welcomed.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// For clients to be up to date: what an earlier run has left must be confirmed first.
const CATCH_UP_PATIENCE: Duration = Duration::from_mins(2);
/// For all connections to be closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at a number that others change.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Between two reports to whoever waits.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Fleet {
    pub(crate) clients: Vec<Client>,
    pub(crate) observed: Arc<Observed>,
    tasks: TaskTracker,
}

impl Fleet {
    /// With nobody connected.
    pub(crate) fn new() -> Self {
        Self {
            clients: Vec::new(),
            observed: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Connects more, until there are `count`, and waits until all of them are up to date.
    pub(crate) async fn grow(&mut self, target: &Target, count: u32) -> anyhow::Result<()> {
        allow_sockets(count)?;
        let first = self.clients.len() as u32;
        let began = Instant::now();
        let mut reported = began;
        let mut connecting = stream::iter(first..count)
            .map(|index| connect(target, index))
            .buffered(target.connecting);
        while let Some((name, connection)) = connecting.try_next().await? {
            let index = self.clients.len() as u32;
            let (client, task) = Client::new(name, index, connection, Arc::clone(&self.observed));
            self.tasks.spawn(task.run());
            self.clients.push(client);
            if reported.elapsed() > REPORT_INTERVAL {
                reported = Instant::now();
                say(&format!("connected {} of {count}", self.clients.len()));
            }
        }
        drop(connecting);
        let all = u64::from(count);
        self.wait_for("clients up to date", CATCH_UP_PATIENCE, all, |observed| {
            read(&observed.caught_up)
        })
        .await?;
        let seconds = began.elapsed().as_secs_f64();
        say(&format!(
            "{count} clients connected and up to date ({seconds:.1} s)"
        ));
        Ok(())
    }

    /// Waits until a number has reached `all`, and reports meanwhile. Fails when patience ends or a connection is
    /// lost.
    pub(crate) async fn wait_for(
        &self,
        what: &str,
        patience: Duration,
        all: u64,
        number: impl Fn(&Observed) -> u64,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut reported = began;
        loop {
            let now = number(&self.observed);
            if now >= all {
                return Ok(());
            }
            let losses = self.observed.losses();
            if losses > 0 {
                bail!("{losses} clients have lost their connections before the load began");
            }
            if began.elapsed() > patience {
                let seconds = patience.as_secs();
                bail!("{what}: still {now} of {all} after {seconds} s");
            }
            if reported.elapsed() > REPORT_INTERVAL {
                reported = Instant::now();
                say(&format!("{what}: {now} of {all}"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Confirms what is left and closes all connections.
    pub(crate) async fn close(self) {
        for client in &self.clients {
            client.close();
        }
        self.tasks.close();
        if timeout(CLOSE_PATIENCE, self.tasks.wait()).await.is_err() {
            say("some connections did not close in time");
        }
    }
}

/// Sends a request until it succeeds; what cannot succeed, or does not for long, is an error that says what to do.
/// The request is made by `frame`, from its number.
pub(crate) async fn request(
    client: &Client,
    mut frame: impl FnMut() -> tidings_protocol::ClientFrame,
) -> anyhow::Result<Reply> {
    for failures in 0.. {
        let frame = frame();
        let kind = frame.kind();
        let reply = client.request(frame).await.context("the connection is lost")?;
        let Some(error) = reply.error else {
            return Ok(reply);
        };
        if error.code == ErrorCode::RateLimited {
            bail!("{kind}: {error}; for this, start the system with `tidings up --rate-limits off`");
        }
        if !error.retryable || failures + 1 == TRIES {
            bail!("{kind}: {error}");
        }
        tokio::time::sleep(Backoff::REQUEST.delay(failures, rand::random())).await;
    }
    unreachable!("the last try ends the loop")
}

/// Connects a client and says hello. Tries again while that may help.
async fn connect(target: &Target, index: u32) -> anyhow::Result<(String, Connection)> {
    let login = target.login(index)?;
    for failures in 0.. {
        let (error, may_help) = match timeout(CONNECT_PATIENCE, try_connect(target, &login)).await {
            Ok(Ok(connection)) => return Ok((login.user.to_string(), connection)),
            Ok(Err(error)) => error,
            Err(_) => {
                let seconds = CONNECT_PATIENCE.as_secs();
                (anyhow::anyhow!("not welcomed within {seconds} s"), true)
            }
        };
        if !may_help || failures + 1 == TRIES {
            return Err(error.context(format!("{} cannot connect", login.user)));
        }
        tokio::time::sleep(Backoff::REQUEST.delay(failures, rand::random())).await;
    }
    unreachable!("the last try ends the loop")
}

/// An error says whether another try may help.
async fn try_connect(target: &Target, login: &Login) -> Result<Connection, (anyhow::Error, bool)> {
    let mut connection = Connection::connect(&login.url, target.codec, Some(&login.token))
        .await
        .map_err(|error| {
            let may_help = matches!(
                error,
                ConnectError::Refused {
                    status: 429 | 503,
                    ..
                }
            );
            (error.into(), may_help)
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
            let may_help = error.retryable;
            let advice = match error.code {
                ErrorCode::TooManyClients => "; another --prefix makes other users",
                ErrorCode::RateLimited => "; start the system with `tidings up --rate-limits off`",
                _ => "",
            };
            Err((anyhow::anyhow!("{error}{advice}"), may_help))
        }
        Err(RequestFailed::Closed(closed)) => Err((closed.into(), true)),
    }
}
