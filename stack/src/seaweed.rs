//! A private S3-compatible server: SeaweedFS with all its parts in one process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::find::{Finder, SeaweedProgram};
use crate::port::free_ports;
use crate::probe::{Probe, request};
use crate::secret::{new_secret, write_private};
use crate::server::{Orphaned, Server, Spec};

/// It answers after three seconds; a busy machine takes longer.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// What is in memory is written to the disk.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// How often a server is started on other ports when somebody else took the ones it was to have.
const TEMP_TRIES: usize = 3;
/// The only bucket.
const BUCKET: &str = "tidings";
/// Who may do everything.
const ACCESS_KEY: &str = "tidings";
/// Small, since volumes are only given back as a whole; large enough for a chunk of a part.
const VOLUME_MB: u32 = 64;

/// One SeaweedFS with one bucket. Dropping it ends it, and its data goes.
#[derive(Debug)]
pub struct Seaweed {
    server: Server,
    ports: Ports,
    secret_key: String,
    _temp: TempDir,
}

/// Where its parts listen, each with a second port for their talk among themselves.
#[derive(Copy, Clone, Debug)]
struct Ports {
    master: [u16; 2],
    volume: [u16; 2],
    filer: [u16; 2],
    s3: [u16; 2],
}

impl Seaweed {
    /// A server with a folder, ports and keys of its own, for tests.
    pub async fn start_temp() -> anyhow::Result<Self> {
        Self::start_in(&std::env::temp_dir()).await
    }

    /// The same with its data somewhere below `folder`.
    pub async fn start_in(folder: &std::path::Path) -> anyhow::Result<Self> {
        let program =
            tokio::task::spawn_blocking(|| Finder::from_env(&|line| eprintln!("{line}"))?.seaweed())
                .await??;
        let mut tries = 0;
        loop {
            tries += 1;
            let temp = tempfile::Builder::new()
                .prefix("tidings-s3-")
                .tempdir_in(folder)?;
            let mut seaweed = Self::prepare(&program, temp)?;
            match seaweed.start().await {
                Ok(()) => return Ok(seaweed),
                Err(_) if tries < TEMP_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn prepare(program: &SeaweedProgram, temp: TempDir) -> anyhow::Result<Self> {
        let ports = Ports::free()?;
        let data = temp.path().join("data");
        fs::create_dir(&data).context("cannot make the folder of SeaweedFS")?;
        let secret_key = new_secret();
        let config = temp.path().join("s3.json");
        write_private(&config, configuration(&secret_key).as_bytes())
            .context("cannot write the configuration of SeaweedFS")?;
        let probe = Probe::Http {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, ports.s3[0])),
            path: "/healthz".to_owned(),
        };
        let mut spec = Spec::new("seaweed", &program.path, temp.path().join("seaweed.log"), probe);
        let arguments = [
            "-logtostderr=true".to_owned(),
            "server".to_owned(),
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            "-filer=true".to_owned(),
            "-s3=true".to_owned(),
            // Of others it knows nothing, and nobody is told of it.
            "-master.telemetry=false".to_owned(),
            "-master.electionTimeout=1s".to_owned(),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
            // As many volumes as the disk has room for; none takes any before it is used.
            "-volume.max=0".to_owned(),
            "-volume.minFreeSpace=0".to_owned(),
            format!("-master.volumeSizeLimitMB={VOLUME_MB}"),
        ];
        spec.args = arguments
            .into_iter()
            .chain(ports.arguments())
            .map(Into::into)
            .collect();
        for (name, path) in [
            ("dir", data.clone()),
            ("s3.config", config),
            ("filer.localSocket", data.join("filer.sock")),
            ("s3.localSocket", data.join("s3.sock")),
        ] {
            spec.args.push(argument(name, path));
        }
        spec.orphaned = Orphaned::Signal(Signal::SIGTERM);
        Ok(Self {
            server: Server::new(spec),
            ports,
            secret_key,
            _temp: temp,
        })
    }

    /// The URL that S3 answers at.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.s3[0])
    }

    /// The name of the bucket.
    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The key id of who may do everything.
    pub fn access_key_id(&self) -> &'static str {
        ACCESS_KEY
    }

    /// Its secret.
    pub fn secret_access_key(&self) -> &str {
        &self.secret_key
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Starts it, with the data it had, on the same ports, and waits until it answers.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.server.start(START_PATIENCE).await?;
        // A bucket is a folder with this name. After the first start it is there, which is a conflict.
        let filer = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.filer[0]));
        let (status, said) = request("POST", filer, &format!("/buckets/{BUCKET}/")).await?;
        ensure!(
            (200..300).contains(&status) || status == 409,
            "SeaweedFS makes no bucket: {status} {said}"
        );
        Ok(())
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        self.server.stop(STOP_PATIENCE).await;
    }

    /// Kills it, as a crash would. Data stays.
    pub async fn kill(&mut self) {
        self.server.kill().await;
    }

    /// Sends it a signal, such as one that makes it hang.
    pub fn signal(&self, signal: Signal) {
        self.server.signal(signal);
    }
}

impl Ports {
    fn free() -> anyhow::Result<Self> {
        let ports = free_ports(8).context("no free ports")?;
        Ok(Self {
            master: [ports[0], ports[1]],
            volume: [ports[2], ports[3]],
            filer: [ports[4], ports[5]],
            s3: [ports[6], ports[7]],
        })
    }

    fn arguments(self) -> impl Iterator<Item = String> {
        let parts = [
            ("master", self.master),
            ("volume", self.volume),
            ("filer", self.filer),
            ("s3", self.s3),
        ];
        parts.into_iter().flat_map(|(name, [http, grpc])| {
            [
                format!("-{name}.port={http}"),
                format!("-{name}.port.grpc={grpc}"),
            ]
        })
    }
}

fn argument(name: &str, path: PathBuf) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(format!("-{name}="));
    argument.push(path);
    argument
}

/// Who may do what.
fn configuration(secret_key: &str) -> String {
    format!(
        r#"{{"identities":[{{"name":"tidings","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{secret_key}"}}],"actions":["Admin","Read","Write","List"]}}]}}"#
    )
}
