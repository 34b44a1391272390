//! Private nats-servers: one, or a cluster.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::cores::half_of_the_cores;
use crate::find::{Finder, NatsProgram};
use crate::port::free_ports;
use crate::probe::Probe;
use crate::secret::{new_secret, write_private};
use crate::server::{Orphaned, Server, Spec};
use crate::timer_slack;

/// A server answers within a second; a cluster elects leaders in up to nine.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// A stop in order writes what is in memory to the disk.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// How often a temporary server is started on other ports when somebody else took the ones it was to have.
const TEMP_TRIES: usize = 3;
/// How many threads of a Go program run at a time.
const GOMAXPROCS: &str = "GOMAXPROCS";

/// Passwords of nats-servers. Hidden from `Debug`.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NatsSecrets {
    /// Of the user `tidings`, who may do everything, where there are no others.
    pub password: String,
    /// Of the user `system`, in the system account.
    pub system_password: String,
    /// Of servers among themselves.
    pub cluster_password: String,
}

/// Where one nats-server listens, on 127.0.0.1.
#[derive(Copy, Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NatsPorts {
    /// For clients.
    pub client: u16,
    /// For monitoring, over HTTP.
    pub monitoring: u16,
    /// For the other servers of a cluster.
    pub cluster: u16,
}

/// What a group of nats-servers is started with.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Configuration and data of server N go to `nats-N` in here.
    pub dir: PathBuf,
    /// The log of server N is `nats-N.log` in here.
    pub logs: PathBuf,
    /// One entry a server: one server, or a cluster of three.
    pub ports: Vec<NatsPorts>,
    /// Passwords.
    pub secrets: NatsSecrets,
    /// Who may log in to the account that has the streams, as a server's configuration has it: `users: […]`. None: the
    /// user `tidings`.
    pub users: Option<String>,
}

/// One nats-server. Dropping it ends it.
#[derive(Debug)]
pub struct NatsServer {
    server: Server,
    ports: NatsPorts,
    secrets: NatsSecrets,
    /// Whether there is the user `tidings`.
    by_password: bool,
    log: PathBuf,
    _temp: Option<TempDir>,
}

/// Nats-servers that form a cluster.
#[derive(Debug)]
pub struct NatsCluster {
    /// The servers, `nats-1` first.
    pub nodes: Vec<NatsServer>,
    _temp: TempDir,
}

impl NatsSecrets {
    /// New passwords.
    pub fn random() -> Self {
        Self {
            password: new_secret(),
            system_password: new_secret(),
            cluster_password: new_secret(),
        }
    }
}

impl std::fmt::Debug for NatsSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl NatsPorts {
    /// Ports for `count` servers that nobody listens on now.
    pub fn free(count: usize) -> anyhow::Result<Vec<Self>> {
        let ports = free_ports(count * 3).context("no free ports")?;
        Ok(ports
            .chunks_exact(3)
            .map(|ports| Self {
                client: ports[0],
                monitoring: ports[1],
                cluster: ports[2],
            })
            .collect())
    }

    /// All of them.
    pub fn all(self) -> [u16; 3] {
        [self.client, self.monitoring, self.cluster]
    }
}

impl NatsServer {
    /// Writes configurations and makes a server for each entry of `options.ports`. None is started: those of a
    /// cluster answer only together.
    pub fn prepare(program: &NatsProgram, options: &NatsOptions) -> anyhow::Result<Vec<Self>> {
        let servers = (0..options.ports.len()).map(|index| Self::prepare_one(program, options, index));
        servers.collect()
    }

    fn prepare_one(program: &NatsProgram, options: &NatsOptions, index: usize) -> anyhow::Result<Self> {
        let name = format!("nats-{}", index + 1);
        let dir = options.dir.join(&name);
        let ports = options.ports[index];
        fs::create_dir_all(&dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let config = dir.join("nats-server.conf");
        write_private(&config, configuration(&name, &dir, options, ports)?.as_bytes())
            .with_context(|| format!("cannot write {}", config.display()))?;
        let users = dir.join("users.conf");
        write_private(&users, users_configuration(options).as_bytes())
            .with_context(|| format!("cannot write {}", users.display()))?;
        let probe = Probe::Http {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, ports.monitoring)),
            path: "/healthz?js-meta-only=true".to_owned(),
        };
        let log = options.logs.join(format!("{name}.log"));
        let mut spec = Spec::new(name.clone(), &program.path, log.clone(), probe);
        spec.args = vec!["--config".into(), config.into_os_string()];
        spec.orphaned = Orphaned::Signal(Signal::SIGTERM);
        spec.env.extend(half_of_the_cores(GOMAXPROCS));
        spec.timer_slack = timer_slack::OF_SERVERS;
        Ok(Self {
            server: Server::new(spec),
            ports,
            secrets: options.secrets.clone(),
            by_password: options.users.is_none(),
            log,
            _temp: None,
        })
    }

    /// One server with a folder, ports and passwords of its own, for tests. Everything goes when it is dropped.
    pub async fn start_temp() -> anyhow::Result<Self> {
        Self::start_temp_with(None).await
    }

    /// The same, with further users beside `tidings`, as a server's configuration has them: `users: […]`.
    pub async fn start_temp_with(users: Option<&str>) -> anyhow::Result<Self> {
        let (mut nodes, temp) = start_temp(1, users).await?;
        let node = nodes.remove(0);
        Ok(Self {
            _temp: Some(temp),
            ..node
        })
    }

    /// The URL for the account that has the streams: with the password of the user `tidings`, or without a login where
    /// there are others.
    pub fn url(&self) -> String {
        let port = self.ports.client;
        if self.by_password {
            format!("nats://tidings:{}@127.0.0.1:{port}", self.secrets.password)
        } else {
            self.address()
        }
    }

    /// The URL without a login.
    pub fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.ports.client)
    }

    /// For the end of a test: panics where the server has forbidden somebody something since it was made, unless the
    /// test has failed already. What is forbidden a service it does without, or does not do at all.
    pub fn assert_nothing_was_forbidden(&self) {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let violations: Vec<_> = log
            .lines()
            .filter(|line| line.contains(" Violation - "))
            .collect();
        assert!(
            std::thread::panicking() || violations.is_empty(),
            "{violations:#?}"
        );
    }

    /// The URL for operators who look at servers, with the password of the system account.
    pub fn system_url(&self) -> String {
        format!(
            "nats://system:{}@127.0.0.1:{}",
            self.secrets.system_password, self.ports.client
        )
    }

    /// The URL of the monitoring port.
    pub fn monitoring_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitoring)
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Its process alone, for a supervisor.
    pub fn into_server(self) -> Server {
        self.server
    }

    /// Starts it, with the data it had, on the same ports, and waits until it answers. In a cluster that is when
    /// two are up.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.server.start(START_PATIENCE).await
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        self.server.stop(STOP_PATIENCE).await;
    }

    /// Kills it, as a crash would. Data stays.
    pub async fn kill(&mut self) {
        self.server.kill().await;
    }

    /// Stops it in order and starts it again.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await;
        self.start().await
    }

    /// Waits until it ends.
    pub async fn exited(&mut self) -> ExitStatus {
        self.server.exited().await
    }
}

impl NatsCluster {
    /// Three servers with a folder, ports and passwords of their own, for tests. Everything goes when it is
    /// dropped.
    pub async fn start_temp() -> anyhow::Result<Self> {
        Self::start_temp_with(None).await
    }

    /// The same, with further users beside `tidings`; see [`NatsServer::start_temp_with`].
    pub async fn start_temp_with(users: Option<&str>) -> anyhow::Result<Self> {
        let (nodes, temp) = start_temp(3, users).await?;
        Ok(Self { nodes, _temp: temp })
    }

    /// The URLs of all servers, separated by commas.
    pub fn url(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(NatsServer::url).collect();
        urls.join(",")
    }

    /// Stops all in order.
    pub async fn stop(&mut self) {
        futures::future::join_all(self.nodes.iter_mut().map(NatsServer::stop)).await;
    }
}

async fn start_temp(count: usize, users: Option<&str>) -> anyhow::Result<(Vec<NatsServer>, TempDir)> {
    let program =
        tokio::task::spawn_blocking(|| Finder::from_env(&|line| eprintln!("{line}"))?.nats()).await??;
    let mut tries = 0;
    loop {
        tries += 1;
        let temp = tempfile::Builder::new().prefix("tidings-nats-").tempdir()?;
        let secrets = NatsSecrets::random();
        let options = NatsOptions {
            dir: temp.path().to_owned(),
            logs: temp.path().to_owned(),
            ports: NatsPorts::free(count)?,
            users: users.map(|users| users.replacen("[\n", &format!("[\n{}\n", by_password(&secrets)), 1)),
            secrets,
        };
        let mut nodes = NatsServer::prepare(&program, &options)?;
        for node in &mut nodes {
            node.by_password = true;
        }
        match try_join_all(nodes.iter_mut().map(NatsServer::start)).await {
            Ok(_) => return Ok((nodes, temp)),
            Err(_) if tries < TEMP_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// Who may log in.
fn users_configuration(options: &NatsOptions) -> String {
    let one = || format!("users: [{}]\n", by_password(&options.secrets));
    options.users.clone().unwrap_or_else(one)
}

/// The user who may do everything.
fn by_password(secrets: &NatsSecrets) -> String {
    format!("{{ user: tidings, password: \"{}\" }}", secrets.password)
}

/// A configuration that needs no environment: what its template asks for, and the template.
fn configuration(name: &str, dir: &Path, options: &NatsOptions, ports: NatsPorts) -> anyhow::Result<String> {
    let secrets = &options.secrets;
    let store = dir
        .to_str()
        .with_context(|| format!("{} is not UTF-8", dir.display()))?;
    let mut text = "# Written by `tidings up` at each start. The template is in nats/server.\n".to_owned();
    let mut define = |key: &str, value: String| {
        writeln!(text, "TIDINGS_NATS_{key} = {value}").expect("a string takes everything");
    };
    let quoted = |value: &str| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    define("NAME", quoted(name));
    define("HOST", quoted("127.0.0.1"));
    define("PORT", ports.client.to_string());
    define("MONITORING", quoted(&format!("127.0.0.1:{}", ports.monitoring)));
    define("SYSTEM_PASSWORD", quoted(&secrets.system_password));
    define("STORE", quoted(store));
    if options.ports.len() == 1 {
        text.push_str(include_str!("../../nats/server/one-node.conf"));
        return Ok(text);
    }
    define("CLUSTER", quoted("tidings"));
    define("CLUSTER_PORT", ports.cluster.to_string());
    define("CLUSTER_PASSWORD", quoted(&secrets.cluster_password));
    for (index, ports) in options.ports.iter().enumerate() {
        let route = format!(
            "nats-route://route:{}@127.0.0.1:{}",
            secrets.cluster_password, ports.cluster
        );
        define(&format!("ROUTE_{}", index + 1), quoted(&route));
    }
    text.push_str(include_str!("../../nats/server/cluster-node.conf"));
    Ok(text)
}
