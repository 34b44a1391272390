//! The system as a whole: started from below to above, stopped from above to below.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{join_all, try_join_all};
use tidings_service::NatsSettings;
use tidings_stack::{
    Finder, NatsOptions, NatsProgram, NatsServer, Postgres, PostgresOptions, PostgresPrograms, Server,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::folder::Folder;
use super::logs;
use super::say::say;
use super::services::{self, Bases};
use super::state::State;
use super::supervisor::{Supervised, supervise};
use super::{Switch, UpArgs};
use crate::{UpFile, setup};

/// How long one process may take to answer at the first start. Postgres may have to replay much after a crash.
const READY_PATIENCE: Duration = Duration::from_mins(2);
/// Whoever waits longer than this is told for what.
const SLOW: Duration = Duration::from_secs(3);

/// Everything that runs, by layers: what is in a later one needs the earlier ones.
pub(crate) struct System {
    folder: Arc<Folder>,
    board: Board,
    layers: Vec<Vec<Supervised>>,
    abort: CancellationToken,
    trim: Option<JoinHandle<()>>,
}

/// The programs of servers, found.
struct Programs {
    nats: NatsProgram,
    postgres: PostgresPrograms,
}

/// A process to start, and where to ask how it is.
struct Candidate {
    server: Server,
    admin: Option<String>,
}

impl System {
    /// Takes the folder.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let folder = Arc::new(Folder::open(dir)?);
        Ok(Self {
            board: Board::new(Arc::clone(&folder)),
            folder,
            layers: Vec::new(),
            abort: CancellationToken::new(),
            trim: None,
        })
    }

    /// Starts everything, prints that it is ready, and returns. When this fails or is dropped,
    /// [`System::stop`] stops what has been started.
    pub(crate) async fn start(&mut self, args: &UpArgs) -> anyhow::Result<()> {
        let began = Instant::now();
        let dir = self.folder.path().to_owned();
        say(&format!("data and logs: {}", dir.display()));
        let folder = Arc::clone(&self.folder);
        tokio::task::spawn_blocking(move || folder.stop_leftovers()).await?;
        let mut state = State::open(&dir, args.nats)?;
        // A port that somebody asked for is looked at first: the answer may be no.
        services::check_ports(args, &mut state)?;
        let programs = find(&dir).await?;
        say(&format!(
            "nats-server {} ({}), PostgreSQL {} ({})",
            programs.nats.version,
            programs.nats.path.display(),
            programs.postgres.version,
            programs.postgres.folder.display()
        ));

        let (nats, nats_system, nats_servers) = self.prepare_nats(&programs.nats, &mut state)?;
        let (postgres, postgres_server) = self.prepare_postgres(programs.postgres, &mut state).await?;
        let bases = Bases {
            nats_url: &nats,
            postgres_url: &postgres,
        };
        let services = services::prepare(args, &self.folder, &mut state, &bases)?;
        state.save()?;

        let mut bases_layer = nats_servers;
        bases_layer.push(Candidate {
            server: postgres_server,
            admin: None,
        });
        self.run_layer(bases_layer).await?;
        let replicas = u8::try_from(state.nats_servers).expect("there are one or three");
        setup_with_progress(&nats, &postgres, replicas).await?;

        let ws: Vec<String> = services.iter().filter_map(|service| service.ws.clone()).collect();
        let (edge, inner): (Vec<_>, Vec<_>) = services.into_iter().partition(|service| service.edge);
        // Both layers start at the same time; they only stop one after the other.
        let candidates = |services: Vec<services::Service>| {
            services.into_iter().map(|service| Candidate {
                server: service.server,
                admin: Some(service.admin),
            })
        };
        let inner_count = inner.len();
        self.run_layer(candidates(inner).chain(candidates(edge)).collect())
            .await?;
        let last = self.layers.pop().expect("a layer was just added");
        let mut last = last.into_iter();
        self.layers.push(last.by_ref().take(inner_count).collect());
        self.layers.push(last.collect());

        self.board.publish(UpFile {
            ws: ws.clone(),
            media: None,
            nats,
            nats_system,
            postgres,
            jwt_secret: state.jwt_secret.clone(),
            processes: Vec::new(),
        });
        self.trim = Some(tokio::spawn(logs::trim(self.board.clone())));
        announce(&ws, args, began.elapsed());
        Ok(())
    }

    /// The nats-servers, not started, and the URLs of services and of the system account.
    fn prepare_nats(
        &self,
        program: &NatsProgram,
        state: &mut State,
    ) -> anyhow::Result<(String, String, Vec<Candidate>)> {
        let options = NatsOptions {
            dir: self.folder.path().join("nats"),
            logs: self.folder.path().join("logs"),
            ports: state.nats_ports()?,
            secrets: state.nats_secrets.clone(),
        };
        let servers = NatsServer::prepare(program, &options)?;
        let join = |url: fn(&NatsServer) -> String| servers.iter().map(url).collect::<Vec<_>>().join(",");
        let (url, system_url) = (join(NatsServer::url), join(NatsServer::system_url));
        let candidates = servers.into_iter().map(|server| Candidate {
            admin: Some(server.monitoring_url()),
            server: server.into_server(),
        });
        Ok((url, system_url, candidates.collect()))
    }

    /// The Postgres server, not started, and its URL.
    async fn prepare_postgres(
        &self,
        programs: PostgresPrograms,
        state: &mut State,
    ) -> anyhow::Result<(String, Server)> {
        let options = PostgresOptions {
            data: self.folder.path().join("postgres"),
            log: self.folder.log("postgres"),
            port: state.port("postgres")?,
            password: state.postgres_password.clone(),
            sync: true,
        };
        if !options.data.exists() {
            say("making the database (once)");
            // Its password must not be lost.
            state.save()?;
        }
        let prepare = tokio::task::spawn_blocking(move || Postgres::prepare(&programs, &options));
        let postgres = prepare.await??;
        Ok((postgres.url().to_owned(), postgres.into_server()))
    }

    /// Starts processes, takes them into care as a layer, and waits until all answer.
    async fn run_layer(&mut self, candidates: Vec<Candidate>) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut started = Vec::new();
        for Candidate { mut server, admin } in candidates {
            server.spawn()?;
            let spec = server.spec();
            let pid = server.pid().context("it was just started")?;
            self.board
                .started(&spec.name, pid, admin.as_deref(), spec.log.clone());
            started.push(Candidate { server, admin });
        }
        let ready = try_join_all(started.iter_mut().map(|candidate| ready(&mut candidate.server))).await;
        let names: Vec<String> = started
            .iter()
            .map(|candidate| candidate.server.spec().name.clone())
            .collect();
        let layer = started.into_iter().map(|Candidate { server, admin }| {
            supervise(server, admin, self.board.clone(), self.abort.clone())
        });
        self.layers.push(layer.collect());
        ready?;
        say(&format!(
            "{} answer ({:.1} s)",
            names.join(", "),
            began.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Stops everything in order, or at once as soon as `again` says so. Whether it did.
    pub(crate) async fn stop(mut self, again: impl Future<Output = ()>) -> bool {
        if let Some(trim) = self.trim.take() {
            trim.abort();
        }
        self.board.withdraw();
        let abort = self.abort.clone();
        let in_order = async {
            for layer in self.layers.drain(..).rev() {
                for process in &layer {
                    process.stop.cancel();
                }
                join_all(layer.into_iter().map(|process| process.task)).await;
            }
        };
        tokio::pin!(in_order);
        tokio::select! {
            () = &mut in_order => return false,
            () = again => abort.cancel(),
        }
        in_order.await;
        true
    }
}

/// Looks for the servers' programs.
async fn find(dir: &Path) -> anyhow::Result<Programs> {
    let major = Postgres::major_of(&dir.join("postgres"));
    let found = tokio::task::spawn_blocking(move || {
        let finder = Finder::from_env(&say)?;
        anyhow::Ok(Programs {
            nats: finder.nats()?,
            postgres: finder.postgres(major)?,
        })
    });
    found.await?
}

/// Waits until a process answers, and says so when that is slow.
async fn ready(server: &mut Server) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let left = READY_PATIENCE.saturating_sub(began.elapsed());
        if let Ok(ready) = timeout(SLOW, server.ready(left)).await {
            return ready;
        }
        say(&format!(
            "waiting for {}: {}",
            server.spec().name,
            server.unready()
        ));
    }
}

async fn setup_with_progress(nats: &str, postgres: &str, replicas: u8) -> anyhow::Result<()> {
    let began = Instant::now();
    let nats = NatsSettings::parse(nats)?;
    let work = setup::apply(&nats, postgres, Some(replicas), false);
    tokio::pin!(work);
    let changes = loop {
        if let Ok(changes) = timeout(SLOW, &mut work).await {
            break changes.context("setup failed")?;
        }
        say(&format!(
            "setting up streams and tables ({:.0} s)",
            began.elapsed().as_secs_f64()
        ));
    };
    match changes.len() {
        0 => {}
        count => say(&format!(
            "set up streams, consumers and tables: {count} changes ({:.1} s)",
            began.elapsed().as_secs_f64()
        )),
    }
    Ok(())
}

/// Says that it is ready, where people and where programs look, and what to try.
fn announce(ws: &[String], args: &UpArgs, took: Duration) {
    let program = std::env::args_os().next().unwrap_or_else(|| "tidings".into());
    let program = program.to_string_lossy();
    let dir = match args.dir.given() {
        Some(dir) => format!(" --dir {}", dir.display()),
        None => String::new(),
    };
    say(&format!(
        "everything runs after {:.1} s. In two other terminals, try:\n  \
         {program} chat{dir} --user alice --with bob\n  \
         {program} chat{dir} --user bob --with alice\n\
         A token for your own client: {program} token{dir} --user alice\n\
         Ctrl-C stops everything.",
        took.as_secs_f64()
    ));
    if args.rate_limits == Switch::Off {
        say("rate limits are off");
    }
    let url = ws.first().map_or("", String::as_str);
    // Whoever started us may have closed its end; that is no reason to stop.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ready {url}").and_then(|()| out.flush());
}
