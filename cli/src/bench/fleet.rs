//! All clients of the load generator: connected side by side, then kept in hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tidings_client::Backoff;
use tidings_protocol::{ErrorCode, Reply};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::client::Client;
use super::connecting::connect;
use super::observed::{Observed, read};
use super::say;
use super::target::{Target, allow_sockets};

/// How often a request is tried that might succeed later.
const TRIES: u32 = 6;
/// Connections that are opened at the same time, where nothing else is asked for.
const CONNECTING: usize = 64;
/// For clients to be up to date: what an earlier run has left must be confirmed first.
const CATCH_UP_PATIENCE: Duration = Duration::from_mins(2);
/// For clients to leave.
const LEAVE_PATIENCE: Duration = Duration::from_mins(1);
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
    pub(crate) async fn grow(&mut self, target: &Arc<Target>, count: u32) -> anyhow::Result<()> {
        allow_sockets(count)?;
        let first = self.clients.len() as u32;
        let began = Instant::now();
        let mut reported = began;
        let mut connecting = stream::iter(first..count)
            .map(|index| connect(target, index))
            .buffered(target.connecting.unwrap_or(CONNECTING));
        while let Some((name, connection)) = connecting.try_next().await? {
            let index = self.clients.len() as u32;
            let (client, task) = Client::new(name, index, Arc::clone(target), Arc::clone(&self.observed));
            self.tasks.spawn(task.run(connection));
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

    /// Lets clients from this one on leave, and waits until they have.
    pub(crate) async fn leave(&self, first: u32) -> anyhow::Result<()> {
        let leaving = &self.clients[first as usize..];
        leaving.iter().for_each(Client::leave);
        self.wait_for("clients gone", LEAVE_PATIENCE, leaving.len() as u64, |observed| {
            read(&observed.left)
        })
        .await
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
