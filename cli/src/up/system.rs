//! The system as a whole: started from below to above, stopped from above to below.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use futures::future::{join_all, try_join_all};
use tidings_nats::NatsUser;
use tidings_service::{NatsSettings, Secret};
use tidings_stack::{
    Finder, NatsOptions, NatsProgram, NatsServer, Postgres, PostgresOptions, PostgresPrograms, Server,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::UpArgs;
use super::announce::announce;
use super::board::Board;
use super::folder::Folder;
use super::logs;
use super::progress::{ready, with_progress};
use super::say::say;
use super::services::{self, Bases, Service};
use super::state::State;
use super::supervisor::{STOP_PATIENCE, Supervised, supervise};
use crate::nats_users::{UsersFolder, seed_file};
use crate::{UpFile, setup};

/// Everything that runs, by layers: what is in a later one needs the earlier ones.
pub(crate) struct System {
    folder: Arc<Folder>,
    board: Board,
    layers: Vec<Layer>,
    abort: CancellationToken,
    trim: Option<JoinHandle<()>>,
}

/// Processes that stop side by side.
type Layer = Vec<Supervised>;

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

        let nats_users = dir.join("nats/users");
        let users = UsersFolder::open(&nats_users)?;
        users.complete()?;
        let nats_options = NatsOptions {
            dir: dir.join("nats"),
            logs: dir.join("logs"),
            ports: state.nats_ports()?,
            secrets: state.nats_secrets.clone(),
            users: Some(users.configuration()?),
        };
        let nats_servers = NatsServer::prepare(&programs.nats, &nats_options)?;
        let nats = urls(&nats_servers, NatsServer::url);
        let nats_system = urls(&nats_servers, NatsServer::system_url);
        let postgres_options = PostgresOptions {
            data: dir.join("postgres"),
            log: self.folder.log("postgres"),
            port: state.port("postgres")?,
            password: state.postgres_password.clone(),
            sync: true,
        };
        let postgres = postgres_options.url();
        let attachments = dir.join("attachments");
        let blob_store = Url::from_directory_path(&attachments)
            .map_err(|()| anyhow!("{} is no absolute path", attachments.display()))?;
        let bases = Bases {
            nats_url: &nats,
            nats_users: &nats_users,
            postgres_url: &postgres,
            blob_store: &blob_store,
        };
        let services = services::prepare(args, &self.folder, &mut state, &bases)?;
        // Before anything is started: the password of data must not be lost.
        state.save()?;

        let replicas = u8::try_from(state.nats_servers).expect("there are one or three");
        let (remembered, to_remember) = oneshot::channel();
        let settings = NatsSettings::parse(&nats)?
            .of_user(NatsUser::Setup)
            .with_seed(Secret::read(&seed_file(&nats_users, NatsUser::Setup))?)?;
        let bus = self.start_nats(nats_servers, &settings, replicas, to_remember);
        let tables = self.start_postgres(programs.postgres, postgres_options, remembered);
        // Both to their ends: what has been started is then either in care or stopped.
        let (bus, tables) = tokio::join!(bus, tables);
        self.add_layers([bus, tables])?;

        let ws: Vec<String> = services.iter().filter_map(|service| service.ws.clone()).collect();
        let media = services.iter().find_map(|service| service.media.clone());
        let (edge, inner): (Vec<_>, Vec<_>) = services.into_iter().partition(|service| service.edge);
        let (inner, edge) = tokio::join!(self.launch(candidates(inner)), self.launch(candidates(edge)));
        let layers = [inner, edge].map(|launched| launched.map(|candidates| self.take_into_care(candidates)));
        self.add_layers(layers)?;

        self.board.publish(UpFile {
            ws: ws.clone(),
            media,
            nats,
            nats_users: Some(nats_users),
            nats_system,
            postgres,
            jwt_secret: state.jwt_secret.clone(),
            processes: Vec::new(),
        });
        self.trim = Some(tokio::spawn(logs::trim(self.board.clone())));
        announce(&ws, args, began.elapsed());
        Ok(())
    }

    /// Adds what was started. The first thing that was not is the error, after all others were added.
    fn add_layers(&mut self, layers: impl IntoIterator<Item = anyhow::Result<Layer>>) -> anyhow::Result<()> {
        let mut result = Ok(());
        for layer in layers {
            match layer {
                Ok(layer) => self.layers.push(layer),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Starts the nats-servers and sets up streams.
    async fn start_nats(
        &self,
        servers: Vec<NatsServer>,
        settings: &NatsSettings,
        replicas: u8,
        remembered: oneshot::Receiver<u64>,
    ) -> anyhow::Result<Layer> {
        let candidates = servers.into_iter().map(|server| Candidate {
            admin: Some(server.monitoring_url()),
            server: server.into_server(),
        });
        let layer = self.take_into_care(self.launch(candidates.collect()).await?);
        let remembered = async {
            let remembered = remembered.await;
            remembered.context("Postgres has to say where they begin")
        };
        let work = Box::pin(setup::apply_streams(settings, Some(replicas), remembered, false));
        let set_up = with_progress("setting up streams and consumers", work, |changes| changes)
            .await
            .map(drop);
        self.or_stop(layer, set_up.context("cannot set up streams")).await
    }

    /// Makes the database if there is none, starts Postgres and sets up tables.
    async fn start_postgres(
        &self,
        programs: PostgresPrograms,
        options: PostgresOptions,
        remembered: oneshot::Sender<u64>,
    ) -> anyhow::Result<Layer> {
        if !options.data.exists() {
            say("making the database (once)");
        }
        let postgres = tokio::task::spawn_blocking(move || Postgres::prepare(&programs, &options)).await??;
        let url = postgres.url().to_owned();
        let server = postgres.into_server();
        let layer = self.take_into_care(self.launch(vec![Candidate { server, admin: None }]).await?);
        let set_up = with_progress("setting up tables", setup::apply_tables(&url, false), |tables| {
            &tables.changes
        })
        .await;
        let set_up = set_up.map(|tables| {
            // Nobody asks where all streams exist.
            let _ = remembered.send(tables.remembered);
        });
        self.or_stop(layer, set_up.context("cannot set up tables")).await
    }

    /// Starts processes and waits until all answer. When one does not, those that do are stopped.
    async fn launch(&self, mut candidates: Vec<Candidate>) -> anyhow::Result<Vec<Candidate>> {
        let began = Instant::now();
        for Candidate { server, admin } in &mut candidates {
            server.spawn()?;
            let pid = server.pid().context("it was just started")?;
            let spec = server.spec();
            self.board
                .started(&spec.name, pid, admin.as_deref(), spec.log.clone());
        }
        let all_ready = try_join_all(
            candidates
                .iter_mut()
                .map(|candidate| ready(&mut candidate.server)),
        )
        .await;
        if let Err(error) = all_ready {
            join_all(
                candidates
                    .iter_mut()
                    .map(|candidate| candidate.server.stop(STOP_PATIENCE)),
            )
            .await;
            return Err(error);
        }
        let names: Vec<&str> = candidates
            .iter()
            .map(|candidate| candidate.server.spec().name.as_str())
            .collect();
        if !names.is_empty() {
            say(&format!(
                "{} up after {:.1} s",
                names.join(", "),
                began.elapsed().as_secs_f64()
            ));
        }
        Ok(candidates)
    }

    fn take_into_care(&self, candidates: Vec<Candidate>) -> Layer {
        let supervised = candidates.into_iter().map(|Candidate { server, admin }| {
            supervise(server, admin, self.board.clone(), self.abort.clone())
        });
        supervised.collect()
    }

    /// The layer, unless what followed failed.
    async fn or_stop(&self, layer: Layer, result: anyhow::Result<()>) -> anyhow::Result<Layer> {
        match result {
            Ok(()) => Ok(layer),
            Err(error) => {
                stop_layer(layer).await;
                Err(error)
            }
        }
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
                stop_layer(layer).await;
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

/// Stops the processes of a layer in order, side by side.
async fn stop_layer(layer: Layer) {
    for process in &layer {
        process.stop.cancel();
    }
    join_all(layer.into_iter().map(|process| process.task)).await;
}

/// Service processes as candidates.
fn candidates(services: Vec<Service>) -> Vec<Candidate> {
    let candidates = services.into_iter().map(|service| Candidate {
        server: service.server,
        admin: Some(service.admin),
    });
    candidates.collect()
}

/// URLs of all servers, separated by commas.
fn urls(servers: &[NatsServer], of: fn(&NatsServer) -> String) -> String {
    servers.iter().map(of).collect::<Vec<_>>().join(",")
}
