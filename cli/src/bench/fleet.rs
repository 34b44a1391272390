//! All clients of the load generator: connected side by side, then kept in hand. They are in this process, or shared
//! among several.

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
use super::observed::{Observed, Traffic, read};
use super::say;
use super::share::{Part, Process};
use super::target::{Target, allow_sockets};

/// How often a request is tried that might succeed later.
const TRIES: u32 = 6;
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
    /// In a process that has a part of them, those of that part.
    pub(crate) clients: Vec<Client>,
    pub(crate) observed: Arc<Observed>,
    tasks: TaskTracker,
    part: Option<Part>,
    /// The processes that share them, where there are several.
    processes: Vec<Process>,
}

impl Fleet {
    /// With nobody connected.
    pub(crate) fn new() -> Self {
        Self {
            clients: Vec::new(),
            observed: Arc::default(),
            tasks: TaskTracker::new(),
            part: None,
            processes: Vec::new(),
        }
    }

    /// A part of another process's.
    pub(crate) fn of_part(part: Part, observed: Arc<Observed>) -> Self {
        Self {
            part: Some(part),
            observed,
            ..Self::new()
        }
    }

    /// Connects more, until there are `count`, and waits until all of them are up to date.
    pub(crate) async fn grow(&mut self, target: &Arc<Target>, count: u32) -> anyhow::Result<()> {
        let (first, began) = (self.clients.len() as u32, Instant::now());
        if target.processes_of_load > 1 {
            self.share_out(target.processes_of_load, first, count)?;
        } else {
            self.connect(target, first, count).await?;
        }
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

    /// Lets other processes connect them.
    fn share_out(&mut self, processes: u32, first: u32, count: u32) -> anyhow::Result<()> {
        for index in self.processes.len() as u32..processes {
            let part = Part { index, of: processes };
            self.processes.push(Process::start(part, &self.observed)?);
        }
        for process in &self.processes {
            process.share.connect(first, count);
        }
        self.clients.extend((first..count).map(|index| Client::There {
            index,
            share: Arc::clone(&self.processes[(index % processes) as usize].share),
        }));
        Ok(())
    }

    /// Connects those from the one to the other that are of this part.
    pub(crate) async fn connect(
        &mut self,
        target: &Arc<Target>,
        first: u32,
        count: u32,
    ) -> anyhow::Result<()> {
        let part = self.part.unwrap_or(Part { index: 0, of: 1 });
        allow_sockets(count.div_ceil(part.of))?;
        let mut reported = Instant::now();
        let of_part = (first..count).filter(|index| index % part.of == part.index);
        let mut connecting = stream::iter(of_part)
            .map(async |index| Ok::<_, anyhow::Error>((index, connect(target, index).await?)))
            .buffered(target.connecting);
        while let Some((index, (name, connection))) = connecting.try_next().await? {
            let (client, task) = Client::new(name, index, Arc::clone(target), Arc::clone(&self.observed));
            self.tasks.spawn(task.run(connection));
            self.clients.push(client);
            if self.part.is_none() && reported.elapsed() > REPORT_INTERVAL {
                reported = Instant::now();
                say(&format!("connected {} of {count}", self.clients.len()));
            }
        }
        Ok(())
    }

    /// Chats with this name are of this run. Said once, before the first of them is made.
    pub(crate) fn name_run(&self, name: &str) {
        self.observed.name_run(name.to_owned());
        for process in &self.processes {
            process.share.name_run(name);
        }
    }

    /// From now on messages look like this. Once.
    pub(crate) fn expect(&self, traffic: Traffic) {
        for process in &self.processes {
            process.share.expect(traffic.clone());
        }
        self.observed.expect(traffic);
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

    /// Waits until a number has reached `all`, and reports meanwhile. Fails when it does not grow for as long as
    /// patience lasts, or a connection is lost.
    pub(crate) async fn wait_for(
        &self,
        what: &str,
        patience: Duration,
        all: u64,
        number: impl Fn(&Observed) -> u64,
    ) -> anyhow::Result<()> {
        let (mut last, mut moved) = (0, Instant::now());
        let mut reported = moved;
        loop {
            let now = number(&self.observed);
            if now >= all {
                return Ok(());
            }
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            let losses = self.observed.losses();
            if losses > 0 {
                bail!("{losses} clients have lost their connections before the load began");
            }
            if moved.elapsed() > patience {
                let seconds = patience.as_secs();
                bail!("{what}: {now} of {all}, and no more for {seconds} s");
            }
            if reported.elapsed() > REPORT_INTERVAL {
                reported = Instant::now();
                say(&format!("{what}: {now} of {all}"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Confirms what is left and closes all connections.
    pub(crate) async fn close(mut self) {
        for client in &self.clients {
            client.close();
        }
        self.tasks.close();
        if timeout(CLOSE_PATIENCE, self.tasks.wait()).await.is_err() {
            say("some connections did not close in time");
        }
        for process in &self.processes {
            process.share.end();
        }
        let began = Instant::now();
        // Each has the same patience, and what is left then is stopped.
        while began.elapsed() < CLOSE_PATIENCE * 2 && !self.processes.iter_mut().all(Process::has_ended) {
            tokio::time::sleep(LOOK_INTERVAL).await;
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
