//! A running system: `tidings up` as its user runs it, with its own folder.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tidings_cli::{UpFile, UpProcess};
use tidings_nats::NatsUser;
use tidings_service::NatsConnection;
use tokio::sync::OnceCell;

use crate::eventually::eventually;

/// What to start.
#[derive(Clone, Debug)]
pub struct SystemOptions {
    /// Gateways.
    pub gateways: u16,
    /// Fan-out workers.
    pub fanout_workers: u16,
    /// Inbox workers.
    pub inbox_workers: u16,
    /// NATS servers: 1 or 3.
    pub nats: u16,
    /// Whether the limits of PROTOCOL §6 are on.
    pub rate_limits: bool,
    /// Whether clients have durables.
    pub inbox_durables: bool,
    /// Further settings of its services, as environment variables.
    pub settings: Vec<(&'static str, String)>,
}

impl Default for SystemOptions {
    /// Two of each, so that whatever a test asks for is asked of several processes; rate limits off, since a test
    /// sends faster than people do.
    fn default() -> Self {
        Self {
            gateways: 2,
            fanout_workers: 2,
            inbox_workers: 2,
            nats: 1,
            rate_limits: false,
            inbox_durables: true,
            settings: Vec::new(),
        }
    }
}

/// A running system. Stopped when dropped.
#[derive(Debug)]
pub struct System {
    up: Child,
    dir: TempDir,
}

static SHARED: OnceCell<System> = OnceCell::const_new();

impl System {
    /// The system that the tests of one binary share, each with users and chats of its own. It ends with the
    /// process, whose end of its standard input is.
    pub async fn shared() -> &'static Self {
        SHARED
            .get_or_init(async || Self::start(&SystemOptions::default()).await)
            .await
    }

    /// Starts a system of one's own and waits until it is ready.
    pub async fn start(options: &SystemOptions) -> Self {
        let dir = TempDir::with_prefix("tidings-test-").expect("a folder for the test");
        Self::start_in(dir, options.clone()).await
    }

    /// Stops it in order, has something done to its folder, and starts it again there.
    pub async fn start_again(mut self, options: &SystemOptions, between: impl FnOnce(&Path)) -> Self {
        let empty = TempDir::new().expect("a folder for nothing");
        let dir = std::mem::replace(&mut self.dir, empty);
        tokio::task::spawn_blocking(move || drop(self))
            .await
            .expect("stopping does not panic");
        between(dir.path());
        Self::start_in(dir, options.clone()).await
    }

    async fn start_in(dir: TempDir, options: SystemOptions) -> Self {
        tokio::task::spawn_blocking(move || Self::start_blocking(dir, &options))
            .await
            .expect("starting does not panic")
    }

    fn start_blocking(dir: TempDir, options: &SystemOptions) -> Self {
        let on_off = |on| if on { "on" } else { "off" };
        let up = Command::new(Self::executable())
            .arg("up")
            .arg("--dir")
            .arg(dir.path())
            .args(["--gateways", &options.gateways.to_string()])
            .args(["--fanout-workers", &options.fanout_workers.to_string()])
            .args(["--inbox-workers", &options.inbox_workers.to_string()])
            .args(["--nats", &options.nats.to_string()])
            .args(["--rate-limits", on_off(options.rate_limits)])
            .args(["--inbox-durables", on_off(options.inbox_durables)])
            .envs(options.settings.iter().map(|(name, value)| (name, value)))
            .env(tidings_service::EXIT_WITH_STDIN, "1")
            .env(
                "TIDINGS_LOG",
                "info,tidings_gateway=debug,tidings_fanout_worker=debug,async_nats=warn,sqlx=warn",
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command under test was built with this package");
        let mut system = Self { up, dir };
        let stdout = system.up.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("standard output is text");
        assert!(
            line.starts_with("ready ws://"),
            "`tidings up` said {line:?}; its reasons are above"
        );
        system
    }

    /// The command under test: Cargo puts it beside the folder of the test that runs.
    pub fn executable() -> PathBuf {
        let test = std::env::current_exe().expect("a test is a file");
        let name = "tidings-under-test";
        test.ancestors()
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
            .expect("Cargo builds the binaries of a package before its tests")
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What runs where.
    pub fn up_file(&self) -> UpFile {
        UpFile::read(self.dir()).expect("a system that is ready has written up.json")
    }

    /// A gateway's WebSocket URL, counted from 0.
    pub fn ws(&self, gateway: usize) -> String {
        let urls = self.up_file().ws;
        urls[gateway % urls.len()].clone()
    }

    /// The secret that tokens are signed with.
    pub fn secret(&self) -> String {
        self.up_file().jwt_secret
    }

    /// A connection to its NATS, with every right.
    pub async fn nats(&self) -> async_nats::Client {
        self.nats_as(NatsUser::Admin).await
    }

    /// A connection to its NATS, as somebody.
    pub async fn nats_as(&self, user: NatsUser) -> async_nats::Client {
        let settings = self.up_file().nats_settings(user);
        let settings = settings.expect("up.json has good URLs, and there is a seed");
        let connection = NatsConnection::connect(&settings, "test").await;
        connection
            .expect("NATS answers while the system runs")
            .client()
            .clone()
    }

    /// Its Postgres.
    pub fn metadata(&self) -> tidings_metadata::Metadata {
        tidings_metadata::Metadata::connect(&self.up_file().postgres, 2).expect("up.json has a good URL")
    }

    /// A process by its name, such as `gateway-1`.
    pub fn process(&self, name: &str) -> UpProcess {
        let processes = self.up_file().processes;
        processes
            .into_iter()
            .find(|process| process.name == name)
            .unwrap_or_else(|| panic!("no process {name}"))
    }

    /// Sends a signal to a process.
    pub fn signal(&self, name: &str, signal: Signal) {
        let pid = Pid::from_raw(self.process(name).pid.cast_signed());
        kill(pid, signal).unwrap_or_else(|error| panic!("cannot send {signal} to {name}: {error}"));
    }

    /// Kills a process and waits until another one has taken its place and is ready.
    pub async fn kill_and_wait(&self, name: &str) {
        self.signal_and_wait(name, Signal::SIGKILL).await;
    }

    /// Sends a signal that ends a process, and waits until another one has taken its place and is ready.
    pub async fn signal_and_wait(&self, name: &str, signal: Signal) {
        let old = self.process(name).pid;
        self.signal(name, signal);
        eventually(&format!("another {name} runs"), async || {
            if self.process(name).pid == old {
                Err("the old process")
            } else {
                Ok(())
            }
        })
        .await;
        self.until_ready(name).await;
    }

    /// Waits until a service says that it is ready, or a NATS server that it has caught up with the others.
    pub async fn until_ready(&self, name: &str) {
        let path = if name.starts_with("nats") {
            "healthz"
        } else {
            "readyz"
        };
        eventually(&format!("{name} is ready"), async || {
            let process = self.process(name);
            match process.admin {
                Some(admin) if !http_ok(&format!("{admin}/{path}")).await => Err(process.pid),
                _ => Ok(()),
            }
        })
        .await;
    }
}

/// A gateway beside those of `tidings up`, with settings of its own. Ends when dropped.
#[derive(Debug)]
pub struct ExtraGateway {
    child: Child,
    /// Where it listens.
    pub ws: String,
    /// Where it tells how it is.
    pub admin: String,
}

impl System {
    /// Starts another gateway. `settings` are environment variables; an empty one is taken away.
    pub async fn extra_gateway(&self, settings: &[(&str, &str)]) -> ExtraGateway {
        let up = self.up_file();
        let ports = tidings_stack::free_ports(2).expect("loopback has free ports");
        let (listen, admin) = (ports[0], ports[1]);
        let mut command = Command::new(Self::executable());
        command
            .arg("gateway")
            .env("TIDINGS_NATS_URL", &up.nats)
            .envs(
                up.nats_seed_file(NatsUser::Gateway)
                    .map(|file| ("TIDINGS_NATS_SEED_FILE", file)),
            )
            .env("TIDINGS_POSTGRES_URL", &up.postgres)
            .env("TIDINGS_JWT_SECRET", &up.jwt_secret)
            .env("TIDINGS_RATE_LIMITS", "off")
            .env("TIDINGS_LISTEN", format!("127.0.0.1:{listen}"))
            .env("TIDINGS_ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
            .env(tidings_service::EXIT_WITH_STDIN, "1")
            .envs(up.media.map(|media| ("TIDINGS_MEDIA_URL", media)))
            .stdin(Stdio::piped());
        for (name, value) in settings {
            if value.is_empty() {
                command.env_remove(name);
            } else {
                command.env(name, value);
            }
        }
        let child = command
            .spawn()
            .expect("the command under test was built with this package");
        let gateway = ExtraGateway {
            child,
            ws: format!("ws://127.0.0.1:{listen}/v1/ws"),
            admin: format!("http://127.0.0.1:{admin}"),
        };
        eventually("the extra gateway is ready", async || {
            if http_ok(&format!("{}/readyz", gateway.admin)).await {
                Ok(())
            } else {
                Err(())
            }
        })
        .await;
        gateway
    }
}

impl ExtraGateway {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, and returns how it ended.
    pub async fn stop(mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, Signal::SIGTERM).expect("it runs");
        eventually("the extra gateway has ended", async || {
            match self.child.try_wait().expect("it is a child of this process") {
                Some(status) => Ok(status),
                None => Err(()),
            }
        })
        .await
    }

    /// Kills it, and returns when it is dead.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ExtraGateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a URL answers 200. Plain HTTP/1.1 by hand: it is all that a probe needs.
async fn http_ok(url: &str) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Some((host, path)) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let answer = async {
        let mut stream = tokio::net::TcpStream::connect(host).await.ok()?;
        let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer.starts_with("HTTP/1.1 200"))
    };
    answer.await.unwrap_or(false)
}

impl Drop for System {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.up.id().cast_signed());
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.up.wait();
        if std::thread::panicking() {
            // What the processes wrote tells why.
            let kept = self.dir.path().to_owned();
            self.dir.disable_cleanup(true);
            eprintln!("the system's folder is kept: {}", kept.display());
        }
    }
}
