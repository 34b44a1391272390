//! A system whose processes and connections are in the runner's hand.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures::future::try_join_all;
use tidings_blobs::BlobStoreConfig;
use tidings_nats::NatsUser;
use tidings_service::{EXIT_WITH_STDIN, NatsConnection, NatsSettings, Secret};
use tidings_stack::{
    Finder, NatsOptions, NatsPorts, NatsSecrets, NatsServer, Orphaned, Postgres, PostgresOptions, Probe,
    Server, Spec, free_ports, let_postgres_through, new_secret,
};
use tokio::sync::Mutex;
use url::Url;

use super::disk::Disk;
use super::link::Link;
use super::other_version::OtherVersion;
use super::process::Process;
use super::store::Store;
use crate::history::Recorder;
use crate::workload::Targets;

/// What a system is started with.
#[derive(Clone, Debug)]
pub struct RigOptions {
    /// Data, configurations and logs go here.
    pub dir: PathBuf,
    /// The `tidings` command: services are its subcommands.
    pub program: PathBuf,
    /// What some run instead, or begin with: another version.
    pub other: OtherVersion,
    /// One or three.
    pub nats: usize,
    /// Gateways, media services, fan-out workers and inbox workers: so many of each.
    pub each: usize,
    /// The data of each NATS server has a disk of its own, of so many MiB, which can be full. Only root can have that.
    pub disk_mib: Option<u32>,
}

/// See the module. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Rig {
    pub(super) recorder: Recorder,
    nats: Vec<Process>,
    postgres: Process,
    services: Vec<Process>,
    links: BTreeMap<String, Link>,
    targets: Targets,
    base: Base,
    store: Store,
    /// Where attachments' bytes lie.
    attachments: PathBuf,
    /// With no proxy before it.
    postgres_url: String,
    /// By the name of the NATS server; gone after the processes.
    disks: BTreeMap<String, Disk>,
    /// What ended without having been told to.
    surprises: Mutex<Vec<String>>,
}

/// Where everything is before any proxy.
struct Base {
    nats: Vec<NatsPorts>,
    /// Where the seeds of NATS users are.
    nats_users: PathBuf,
    /// Of the one user that versions before 0.2 know, where one of them takes part: then everybody is that.
    nats_password: Option<String>,
    postgres: u16,
    postgres_password: String,
    jwt_secret: String,
}

impl Rig {
    /// Starts everything and waits until it answers.
    pub async fn start(options: &RigOptions, recorder: Recorder) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&options.dir)?;
        let dir = options.dir.canonicalize()?;
        let logs = dir.join("logs");
        std::fs::create_dir_all(&logs)?;
        let_postgres_through(&dir)?;
        let nats_users = dir.join("nats/users");
        make_users(options, &nats_users).await?;
        let base = Base {
            nats: NatsPorts::free(options.nats)?,
            nats_users,
            nats_password: options.other.is_some().then(new_secret),
            postgres: free_ports(1)?[0],
            postgres_password: new_secret(),
            jwt_secret: new_secret(),
        };
        let mut disks = BTreeMap::new();
        if let Some(mib) = options.disk_mib {
            for number in 1..=options.nats {
                let name = format!("nats-{number}");
                let disk = Disk::mount(&dir.join("nats").join(&name), mib)?;
                disks.insert(name, disk);
            }
        }
        let (nats, postgres) = prepare(&dir, &logs, &base, &recorder).await?;
        let starts = nats.iter().chain([&postgres]).map(Process::up);
        try_join_all(starts).await?;
        set_up(options.other.of_setup(&options.program), options.nats, &base).await?;

        let mut rig = Self {
            store: Store::new(connect(&base).await?),
            attachments: dir.join("attachments"),
            postgres_url: base.postgres_url(local(base.postgres)),
            disks,
            recorder,
            nats,
            postgres,
            services: Vec::new(),
            links: BTreeMap::new(),
            targets: Targets {
                urls: Vec::new(),
                media: Vec::new(),
                secret: base.jwt_secret.clone(),
            },
            surprises: Mutex::default(),
            base,
        };
        for number in 1..=options.each {
            for kind in ["fanout-worker", "inbox-worker", "media", "gateway"] {
                rig.add_service(options, &dir, kind, number).await?;
            }
        }
        try_join_all(rig.services.iter().map(Process::up)).await?;
        Ok(rig)
    }

    /// Where people connect: through the proxies.
    pub fn targets(&self) -> Targets {
        self.targets.clone()
    }

    /// Streams, consumers and tables as this version wants them, while everything runs.
    pub(super) async fn set_up_again(&self, program: &Path) -> anyhow::Result<()> {
        set_up(program, self.nats.len(), &self.base).await
    }

    /// What the inboxes hold.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where attachments' bytes lie.
    pub fn blob_store(&self) -> BlobStoreConfig {
        BlobStoreConfig::folder(&self.attachments).expect("the folder of a run is an absolute path")
    }

    /// The database, with no proxy before it. The URL has the password.
    pub fn postgres_url(&self) -> &str {
        &self.postgres_url
    }

    /// What ended without having been told to, for people.
    pub async fn surprises(&self) -> Vec<String> {
        self.surprises.lock().await.clone()
    }

    /// Starts again whatever ends by itself, and remembers it, for ever.
    pub async fn supervise(&self) {
        let mut interval = tokio::time::interval(Duration::from_millis(200));
        loop {
            interval.tick().await;
            for process in self.processes() {
                if let Some(surprise) = process.ended_by_itself() {
                    self.recorder
                        .happened(crate::history::Happening::note(surprise.clone()));
                    self.surprises.lock().await.push(surprise);
                    if let Err(error) = process.up().await {
                        self.surprises.lock().await.push(format!("{error:#}"));
                    }
                }
            }
        }
    }

    /// Stops everything in order, services first.
    pub async fn stop(&self) {
        for service in &self.services {
            service.stop().await;
        }
        self.postgres.stop().await;
        for node in &self.nats {
            node.stop().await;
        }
    }

    /// The names of all processes.
    pub fn process_names(&self) -> Vec<String> {
        self.processes().map(|process| process.name.to_string()).collect()
    }

    /// The names of all links.
    pub fn link_names(&self) -> Vec<String> {
        self.links.keys().cloned().collect()
    }

    pub(super) fn nats(&self) -> &[Process] {
        &self.nats
    }

    pub(super) fn services(&self) -> &[Process] {
        &self.services
    }

    pub(super) fn process(&self, name: &str) -> &Process {
        self.processes()
            .find(|process| &*process.name == name)
            .expect("schedules name processes that there are")
    }

    pub(super) fn disk(&self, name: &str) -> &Disk {
        self.disks
            .get(name)
            .expect("disks are full where there are disks")
    }

    pub(super) fn link(&self, name: &str) -> &Link {
        self.links.get(name).expect("schedules name links that there are")
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.nats.iter().chain([&self.postgres]).chain(&self.services)
    }

    /// Prepares a service, with a link of its own to everything that it speaks to.
    async fn add_service(
        &mut self,
        options: &RigOptions,
        dir: &Path,
        kind: &str,
        number: usize,
    ) -> anyhow::Result<()> {
        let name = format!("{kind}-{number}");
        let base = &self.base;
        let nats: Vec<SocketAddr> = base.nats.iter().map(|ports| local(ports.client)).collect();
        let nats = Link::start(format!("{name}>nats"), &nats).await?;
        let postgres = Link::start(format!("{name}>postgres"), &[local(base.postgres)]).await?;
        let ports = free_ports(2)?;
        let (listen, admin) = (local(ports[0]), local(ports[1]));
        let probe = Probe::Http {
            address: admin,
            path: "/readyz".to_owned(),
        };
        let log = dir.join("logs").join(format!("{name}.log"));
        let program = options.other.of(kind, &options.program);
        let mut spec = Spec::new(&name, program, log, probe);
        spec.args = vec![kind.into()];
        spec.orphaned = Orphaned::ReadsEndOfInput;
        let mut set = |name: &str, value: String| spec.env.push((name.into(), value.into()));
        set(EXIT_WITH_STDIN, "1".to_owned());
        for (name, value) in base.nats_environment(kind, nats.addresses()) {
            set(name, value);
        }
        let database = postgres.addresses().next().expect("there is one Postgres");
        set("TIDINGS_POSTGRES_URL", base.postgres_url(database));
        set("TIDINGS_ADMIN_LISTEN", admin.to_string());
        set("TIDINGS_LOG_FORMAT", "human".to_owned());
        set("TIDINGS_DRAIN_TIMEOUT", "5".to_owned());
        set(
            "TIDINGS_LOG",
            "info,tidings_gateway=debug,tidings_gateway::confirm=trace,tidings_fanout_worker=debug,\
             tidings_fanout_worker::fan_out=trace,async_nats=warn,sqlx=warn"
                .to_owned(),
        );
        let store = Url::from_directory_path(dir.join("attachments"))
            .map_err(|()| anyhow!("{} is no absolute path", dir.display()))?;
        set("TIDINGS_BLOB_STORE", store.into());
        if matches!(kind, "gateway" | "media") {
            set("TIDINGS_LISTEN", listen.to_string());
            set("TIDINGS_JWT_SECRET", base.jwt_secret.clone());
            set("TIDINGS_RATE_LIMITS", "off".to_owned());
            let people = Link::start(format!("people>{name}"), &[listen]).await?;
            let address = people.addresses().next().expect("there is one listener");
            if kind == "gateway" {
                // Each sends its clients to a media service of its own, all of which have the same store.
                let media = self.targets.media.last().context("it was added before")?;
                set("TIDINGS_MEDIA_URL", media.clone());
                self.targets.urls.push(format!("ws://{address}/v1/ws"));
            } else {
                self.targets.media.push(format!("http://{address}"));
            }
            self.links.insert(people.name.clone(), people);
        }
        self.services
            .push(Process::new(Server::new(spec), self.recorder.clone()));
        for link in [nats, postgres] {
            self.links.insert(link.name.clone(), link);
        }
        Ok(())
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base").finish_non_exhaustive()
    }
}

impl Base {
    fn seed_file(&self, user: NatsUser) -> String {
        format!("{}/{}.nk", self.nats_users.display(), user.name())
    }

    /// Settings by which a service, or `setup`, reaches NATS.
    fn nats_environment(
        &self,
        name: &str,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Vec<(&'static str, String)> {
        match (&self.nats_password, NatsUser::of_name(name)) {
            (Some(password), _) => {
                let url = nats_url(&format!("tidings:{password}@"), addresses);
                vec![("TIDINGS_NATS_URL", url)]
            }
            (None, Some(user)) => vec![
                ("TIDINGS_NATS_URL", nats_url("", addresses)),
                ("TIDINGS_NATS_SEED_FILE", self.seed_file(user)),
            ],
            // Media does not use the bus.
            (None, None) => Vec::new(),
        }
    }

    fn nats_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.nats.iter().map(|ports| local(ports.client))
    }

    /// What nats-servers know of users.
    fn users_conf(&self) -> anyhow::Result<String> {
        let users = std::fs::read_to_string(self.nats_users.join("users.conf"))?;
        Ok(match &self.nats_password {
            None => users,
            Some(password) => {
                let one = format!("users: [\n  {{ user: tidings, password: {password} }}\n");
                users.replacen("users: [\n", &one, 1)
            }
        })
    }

    fn postgres_url(&self, address: SocketAddr) -> String {
        format!("postgres://tidings:{}@{address}/tidings", self.postgres_password)
    }
}

fn nats_url(login: &str, addresses: impl Iterator<Item = SocketAddr>) -> String {
    let urls: Vec<String> = addresses
        .map(|address| format!("nats://{login}{address}"))
        .collect();
    urls.join(",")
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The databases' processes, not started yet.
async fn prepare(
    dir: &Path,
    logs: &Path,
    base: &Base,
    recorder: &Recorder,
) -> anyhow::Result<(Vec<Process>, Process)> {
    let nats_options = NatsOptions {
        dir: dir.join("nats"),
        logs: logs.to_owned(),
        ports: base.nats.clone(),
        secrets: NatsSecrets::random(),
        users: Some(base.users_conf()?),
    };
    let postgres_options = PostgresOptions {
        data: dir.join("postgres"),
        log: logs.join("postgres.log"),
        port: base.postgres,
        password: base.postgres_password.clone(),
        // The machine does not lose its power here; its processes die, and what they wrote stays.
        sync: false,
    };
    let made = tokio::task::spawn_blocking(move || {
        let say = |line: &str| eprintln!("{line}");
        let finder = Finder::from_env(&say)?;
        let nats = NatsServer::prepare(&finder.nats()?, &nats_options)?;
        for number in 1..=nats.len() {
            advertise_nothing(&nats_options.dir.join(format!("nats-{number}/nats-server.conf")))?;
        }
        let postgres = Postgres::prepare(&finder.postgres(None)?, &postgres_options)?;
        anyhow::Ok((nats, postgres))
    });
    let (nats, postgres) = made.await??;
    let process = |server| Process::new(server, recorder.clone());
    let nats = nats.into_iter().map(|node| process(node.into_server())).collect();
    Ok((nats, process(postgres.into_server())))
}

/// Servers of a cluster tell clients of each other; a client that follows goes round the proxies.
fn advertise_nothing(config: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(config)?;
    let text = text.replace("\ncluster {\n", "\ncluster {\n  no_advertise: true\n");
    std::fs::write(config, text).with_context(|| format!("cannot write {}", config.display()))
}

/// NATS users: as an operator would.
async fn make_users(options: &RigOptions, folder: &Path) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new(&options.program);
    command.arg("nats-users").arg(folder);
    succeed(command).await
}

/// Streams, consumers, tables: as an operator would.
async fn set_up(program: &Path, replicas: usize, base: &Base) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new(program);
    command
        .arg("setup")
        .args(["--replicas", &replicas.to_string()])
        .envs(base.nats_environment("setup", base.nats_addresses()))
        .env("TIDINGS_POSTGRES_URL", base.postgres_url(local(base.postgres)));
    succeed(command).await
}

async fn succeed(mut command: tokio::process::Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().await?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The runner's own eye, which no proxy disturbs.
async fn connect(base: &Base) -> anyhow::Result<NatsConnection> {
    let seed = Secret::read(Path::new(&base.seed_file(NatsUser::Admin)))?;
    let settings = NatsSettings::parse(&nats_url("", base.nats_addresses()))?.with_seed(seed)?;
    NatsConnection::connect(&settings, "fault-runner").await
}
