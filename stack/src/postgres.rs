//! A private Postgres.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::find::{Finder, PostgresPrograms};
use crate::folders::check_way_of_postgres;
use crate::port::free_ports;
use crate::probe::Probe;
use crate::secret::new_secret;
use crate::server::{Orphaned, Server, Spec};

/// After a crash Postgres first replays what it has written ahead.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// A fast shutdown ends transactions and writes a checkpoint.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How often a temporary server is started on another port when somebody else took the one it was to have.
const TEMP_TRIES: usize = 3;
/// How long what a killed Postgres leaves behind may hold its shared memory: the other processes notice the death of
/// the first at their next look, which takes milliseconds, and seconds on a busy machine.
const LEFT_BEHIND_PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries meanwhile.
const LEFT_BEHIND_INTERVAL: Duration = Duration::from_millis(100);
/// User and database.
const NAME: &str = "tidings";

/// What a Postgres is started with.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Its data, made at the first start.
    pub data: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    /// Of the user `tidings`, as it was at the first start.
    pub password: String,
    /// Whether what was committed survives the loss of the machine's power. Without, tests are faster.
    pub sync: bool,
}

/// One Postgres server. Dropping it ends it.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    url: String,
    /// When it was killed, if nothing else has happened to it since.
    killed: Option<Instant>,
    _temp: Option<TempDir>,
}

impl PostgresOptions {
    /// The URL of the database, with the password.
    pub fn url(&self) -> String {
        format!(
            "postgres://{NAME}:{}@{}:{}/{NAME}",
            self.password,
            Ipv4Addr::LOCALHOST,
            self.port
        )
    }
}

impl Postgres {
    /// The major version that made the data in a folder, if there is any.
    pub fn major_of(data: &Path) -> Option<u32> {
        fs::read_to_string(data.join("PG_VERSION"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Makes the data folder, unless there is one, with a database `tidings` that a superuser `tidings` owns. Not
    /// started. Blocks for the second or two that the first time takes.
    pub fn prepare(programs: &PostgresPrograms, options: &PostgresOptions) -> anyhow::Result<Self> {
        let account = Account::for_postgres()?;
        check_way_of_postgres(&options.data)?;
        if !options.data.exists() {
            make_data(programs, options, account)?;
        }
        let probe = Probe::Postmaster {
            data: options.data.clone(),
        };
        let mut spec = Spec::new("postgres", programs.folder.join("postgres"), &options.log, probe);
        let port = options.port.to_string();
        let sync = if options.sync { "on" } else { "off" };
        spec.args = vec![OsString::from("-D"), options.data.clone().into_os_string()];
        for (name, value) in [
            ("listen_addresses", "127.0.0.1"),
            ("port", port.as_str()),
            // The way to a socket in a folder of tests is often longer than sockets allow.
            ("unix_socket_directories", ""),
            // Every service process opens up to eight.
            ("max_connections", "300"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_line_prefix", "%m [%p] %q%a "),
            ("fsync", sync),
            ("full_page_writes", sync),
            ("synchronous_commit", sync),
        ] {
            spec.args.push("-c".into());
            spec.args.push(format!("{name}={value}").into());
        }
        spec.env = vec![("LC_ALL".into(), "C".into())];
        // "Fast": open transactions are rolled back, clients are sent away. "Smart" would wait for them.
        spec.stop_signal = Signal::SIGINT;
        spec.orphaned = Orphaned::Signal(Signal::SIGINT);
        // "Immediate": it takes its other processes along, which a kill would leave to find out.
        spec.abort_signal = Signal::SIGQUIT;
        spec.account = account;
        Ok(Self {
            server: Server::new(spec),
            url: options.url(),
            killed: None,
            _temp: None,
        })
    }

    /// A server with a folder, a port and a password of its own, for tests; without syncs. Everything goes when it
    /// is dropped.
    pub async fn start_temp() -> anyhow::Result<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut postgres = tokio::task::spawn_blocking(prepare_temp).await??;
            match postgres.start().await {
                Ok(()) => return Ok(postgres),
                Err(_) if tries < TEMP_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The URL of the database `tidings`, with the password of its owner, who may do everything.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Its process alone, for a supervisor.
    pub fn into_server(self) -> Server {
        self.server
    }

    /// Starts it, with the data it had, on the same port, and waits until it answers. After [`Postgres::kill`] it is
    /// tried again while the killed one's other processes are still there: until then Postgres refuses its data.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let killed = self.killed.take();
        loop {
            let result = self.server.start(START_PATIENCE).await;
            let left_behind = killed.is_some_and(|at| at.elapsed() < LEFT_BEHIND_PATIENCE);
            if result.is_ok() || !left_behind {
                return result;
            }
            sleep(LEFT_BEHIND_INTERVAL).await;
        }
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        self.server.stop(STOP_PATIENCE).await;
    }

    /// Kills its first process, as a crash would; the others notice and end. Data stays.
    pub async fn kill(&mut self) {
        self.server.kill().await;
        self.killed = Some(Instant::now());
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

fn prepare_temp() -> anyhow::Result<Postgres> {
    let programs = Finder::from_env(&|line| eprintln!("{line}"))?.postgres(None)?;
    let temp = tempfile::Builder::new().prefix("tidings-postgres-").tempdir()?;
    if let Some(account) = Account::for_postgres()? {
        give(temp.path(), account)?;
    }
    let port = free_ports(1).context("no free port")?[0];
    let options = PostgresOptions {
        data: temp.path().join("data"),
        log: temp.path().join("postgres.log"),
        port,
        password: new_secret(),
        sync: false,
    };
    let postgres = Postgres::prepare(&programs, &options)?;
    Ok(Postgres {
        _temp: Some(temp),
        ..postgres
    })
}

fn give(path: &Path, account: Account) -> anyhow::Result<()> {
    chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
        .with_context(|| format!("cannot give {} to the account of Postgres", path.display()))
}

/// Runs `initdb` beside the final place, so that what an interruption leaves is not taken for data.
fn make_data(
    programs: &PostgresPrograms,
    options: &PostgresOptions,
    account: Option<Account>,
) -> anyhow::Result<()> {
    let cannot = |path: &Path| format!("cannot write {}", path.display());
    let new = options.data.with_extension("new");
    let password = options.data.with_extension("password");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| cannot(&new))?;
    }
    fs::create_dir_all(&new).with_context(|| cannot(&new))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o700)).with_context(|| cannot(&new))?;
    crate::secret::write_private(&password, options.password.as_bytes())
        .with_context(|| cannot(&password))?;
    if let Some(account) = account {
        give(&new, account)?;
        give(&password, account)?;
    }
    let mut initdb = Command::new(programs.folder.join("initdb"));
    initdb
        .arg("-D")
        .arg(&new)
        .args(["--username", NAME, "--encoding", "UTF8", "--locale", "C"])
        .args(["--auth", "scram-sha-256", "--no-sync", "--no-instructions"])
        .arg("--pwfile")
        .arg(&password);
    let made = run(initdb, account, Stdio::null());
    fs::remove_file(&password).with_context(|| cannot(&password))?;
    made?;
    // The server's single-user mode needs no port, no login and no client program.
    let statement = new.join("create-database.sql");
    fs::write(&statement, format!("CREATE DATABASE {NAME}\n")).with_context(|| cannot(&statement))?;
    let input = fs::File::open(&statement).with_context(|| cannot(&statement))?;
    fs::remove_file(&statement).with_context(|| cannot(&statement))?;
    let mut single = Command::new(programs.folder.join("postgres"));
    single
        .args(["--single", "-c", "fsync=off", "-D"])
        .arg(&new)
        .arg("postgres");
    run(single, account, Stdio::from(input))?;
    fs::rename(&new, &options.data).with_context(|| cannot(&options.data))
}

/// Runs a program of Postgres', which must succeed.
fn run(mut command: Command, account: Option<Account>, input: Stdio) -> anyhow::Result<()> {
    command.stdin(input).env("LC_ALL", "C").current_dir("/");
    if let Some(account) = account {
        command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
    }
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text
        .lines()
        .find(|line| line.contains("error:") || line.contains("FATAL"))
        .or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()));
    bail!(
        "{} {}: {}",
        program.display(),
        crate::server::describe(output.status),
        line.unwrap_or("it said nothing").trim()
    )
}
