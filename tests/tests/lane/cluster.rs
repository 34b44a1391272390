//! Three NATS nodes whose routes can be cut, and services that are connected to a node of choice.

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tidings_nats::setup::{self, SetupOptions};
use tidings_nats::{Bus, Topology};
use tidings_protocol::Codec;
use tidings_service::{NatsConnection, NatsSettings};
use tidings_stack::{Finder, NatsOptions, NatsPorts, NatsSecrets, NatsServer, Postgres, free_ports};
use tidings_tests::{Device, Identity, System, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const SECRET: &str = "a secret of thirty-two bytes or more";

/// See the module. Everything ends when it is dropped.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<NatsServer>,
    pub(crate) topology: Topology,
    /// Whether the way between two nodes is cut, in one direction; counted from 0.
    ways: HashMap<(usize, usize), watch::Sender<bool>>,
    postgres: Postgres,
    dir: TempDir,
}

/// A service's process. Ends when dropped.
pub(crate) struct Process {
    child: Child,
    /// `host:port` of its metrics and probes.
    admin: String,
    /// Where clients connect, if it is a gateway.
    pub(crate) ws: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// With streams of three copies and tables; few parts, which are made faster than many.
    pub(crate) async fn start() -> Self {
        let dir = TempDir::with_prefix("tidings-lane-").expect("a folder for the test");
        let program = tokio::task::spawn_blocking(|| Finder::from_env(&|line| eprintln!("{line}"))?.nats());
        let program = program.await.expect("no panic").expect("nats-server is found");
        let options = NatsOptions {
            dir: dir.path().to_owned(),
            logs: dir.path().to_owned(),
            ports: NatsPorts::free(3).expect("free ports"),
            secrets: NatsSecrets::random(),
            users: None,
        };
        let mut nodes = NatsServer::prepare(&program, &options).expect("configurations are written");
        let mut ways = HashMap::new();
        for from in 0..3 {
            let path = dir.path().join(format!("nats-{}/nats-server.conf", from + 1));
            let mut text = fs::read_to_string(&path).expect("it was written");
            for to in (0..3).filter(|to| *to != from) {
                let port = options.ports[to].cluster;
                let (proxy, cut) = way(port).await;
                text = text.replace(&format!("127.0.0.1:{port}\""), &format!("127.0.0.1:{proxy}\""));
                ways.insert((from, to), cut);
            }
            // What nodes tell each other of the others leads nowhere, so no way goes around ours.
            let port = "port: $TIDINGS_NATS_CLUSTER_PORT";
            assert!(text.contains(port));
            text = text.replace(port, &format!("{port}\n  advertise: \"127.0.0.1:9\""));
            fs::write(&path, text).expect("it can be written");
        }
        futures::future::try_join_all(nodes.iter_mut().map(NatsServer::start))
            .await
            .expect("the cluster forms");
        let postgres = Postgres::start_temp().await.expect("Postgres starts");
        tidings_service::start::install_crypto_provider();
        let topology = Topology {
            partitions: 4,
            shards: 4,
        };
        let cluster = Self {
            nodes,
            topology,
            ways,
            postgres,
            dir,
        };
        let options = SetupOptions {
            topology,
            replicas: 3,
            ..SetupOptions::default()
        };
        setup::apply(&cluster.bus(0).await, &options, false)
            .await
            .expect("streams are made");
        let metadata = tidings_metadata::Metadata::connect(cluster.postgres.url(), 2).expect("a good URL");
        metadata.migrate().await.expect("tables are made");
        metadata.close().await;
        cluster
    }

    /// A connection to one node.
    pub(crate) async fn bus(&self, node: usize) -> Bus {
        let settings = NatsSettings::parse(&self.nodes[node].url()).expect("a good URL");
        let connection = NatsConnection::connect(&settings, "test").await;
        Bus::new(connection.expect("the node answers").client().clone())
    }

    /// Cuts a node off from the two others, or heals that.
    pub(crate) fn cut(&self, node: usize, cut: bool) {
        for ((from, to), way) in &self.ways {
            if *from == node || *to == node {
                way.send_replace(cut);
            }
        }
    }

    /// Starts a service that is told of these nodes alone, and waits until it is ready.
    pub(crate) async fn service(&self, service: &str, nodes: &[usize]) -> Process {
        let urls: Vec<String> = nodes.iter().map(|node| self.nodes[*node].url()).collect();
        let ports = free_ports(2).expect("free ports");
        let log = self.dir.path().join(format!("{service}-{}.log", ports[0]));
        let log = fs::File::create(log).expect("a log can be written");
        let child = Command::new(System::executable())
            .arg(service)
            .env("TIDINGS_NATS_URL", urls.join(","))
            .env("TIDINGS_POSTGRES_URL", self.postgres.url())
            .env("TIDINGS_JWT_SECRET", SECRET)
            .env("TIDINGS_RATE_LIMITS", "off")
            .env("TIDINGS_LOG", "info,tidings_gateway=debug")
            .env("TIDINGS_LISTEN", format!("127.0.0.1:{}", ports[0]))
            .env("TIDINGS_ADMIN_LISTEN", format!("127.0.0.1:{}", ports[1]))
            .env(tidings_service::EXIT_WITH_STDIN, "1")
            .stdin(Stdio::piped())
            .stderr(log.try_clone().expect("a file can be shared"))
            .stdout(log)
            .spawn()
            .expect("the command under test was built with this package");
        let process = Process {
            child,
            admin: format!("127.0.0.1:{}", ports[1]),
            ws: format!("ws://127.0.0.1:{}/v1/ws", ports[0]),
        };
        eventually(&format!("{service} is ready"), async || {
            process.is_ready().await.then_some(()).ok_or("not ready")
        })
        .await;
        process
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("the logs are kept: {}", self.dir.path().display());
        }
    }
}

impl Process {
    pub(crate) async fn is_ready(&self) -> bool {
        status(&self.admin, "/readyz", "").await == Some(200)
    }

    /// What an attempt to open a WebSocket is answered.
    pub(crate) async fn upgrade_status(&self) -> Option<u16> {
        let address = self.ws.trim_start_matches("ws://").trim_end_matches("/v1/ws");
        let headers = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        status(address, "/v1/ws", headers).await
    }

    /// A metric that counts, summed over its labels.
    pub(crate) async fn counter(&self, name: &str) -> u64 {
        counter(&self.admin, name).await
    }

    /// A device here that was welcomed, if it was.
    pub(crate) async fn try_device(&self, identity: &Identity) -> Option<Device> {
        Device::try_at(&self.ws, identity, &identity.token(SECRET), Codec::Json).await
    }

    /// A device here, caught up. Streams elect their leaders when a node goes, and may do so when it comes back: who
    /// comes meanwhile is told to come again.
    pub(crate) async fn device(&self, identity: &Identity) -> Device {
        let mut device = eventually("the client is welcomed", async || {
            self.try_device(identity).await.ok_or("refused")
        })
        .await;
        device.until_caught_up().await;
        device
    }
}

/// A metric that counts, of a process whose metrics are at `host:port`, summed over its labels.
pub(crate) async fn counter(admin: &str, name: &str) -> u64 {
    let text = get(admin, "/metrics", "Connection: close\r\n")
        .await
        .unwrap_or_default();
    let values = text
        .lines()
        .filter(|line| line.starts_with(name) && !line.starts_with('#'))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

async fn status(address: &str, path: &str, headers: &str) -> Option<u16> {
    let connection = if headers.is_empty() { "close" } else { "Upgrade" };
    let answer = get(address, path, &format!("Connection: {connection}\r\n{headers}")).await?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// What is answered, to the end or for a second: an upgraded connection stays open.
async fn get(address: &str, path: &str, headers: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).ok()
}

/// A port that leads to another, until it is cut.
async fn way(to: u16) -> (u16, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let Ok((mut inward, _)) = listener.accept().await else {
                return;
            };
            let mut is_cut = is_cut.clone();
            if *is_cut.borrow() {
                continue;
            }
            tokio::spawn(async move {
                let Ok(mut outward) = TcpStream::connect(("127.0.0.1", to)).await else {
                    return;
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut inward, &mut outward) => {}
                    _ = is_cut.wait_for(|cut| *cut) => {}
                }
            });
        }
    });
    (port, cut)
}
