//! One process that is started, asked whether it answers, stopped and started again in the same way.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::account::Account;
use crate::guard::Guard;
use crate::probe::Probe;
use crate::timer_slack::with_timer_slack;

/// Between two questions whether a process answers, at first; later a tenth of the time that has passed.
const ASK_INTERVAL_MIN: Duration = Duration::from_millis(20);
/// Who waits for a slow process need not hear of it at once.
const ASK_INTERVAL_MAX: Duration = Duration::from_millis(500);
/// A log above this is put aside at the next start of its process; one old log is kept.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How much of a log's end is looked at for a reason.
const LOG_TAIL_BYTES: u64 = 4096;
/// What is told to end at once has this long before it is killed.
const ABORT_PATIENCE: Duration = Duration::from_secs(2);

/// How to run a process.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What it is called in messages, such as `nats-1`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What is added to our own environment.
    pub env: Vec<(OsString, OsString)>,
    /// What is taken out of it.
    pub env_remove: Vec<OsString>,
    /// Its standard output and error are appended here.
    pub log: PathBuf,
    /// How one knows that it answers.
    pub probe: Probe,
    /// What stops it in order.
    pub stop_signal: Signal,
    /// What ends it at once. A kill, except where a process has others to take along.
    pub abort_signal: Signal,
    /// What happens to it when our own process dies without stopping it.
    pub orphaned: Orphaned,
    /// Another account to run it under, which only root can.
    pub(crate) account: Option<Account>,
    /// By how much it may be woken later than it asks to be: zero for as the kernel does.
    pub(crate) timer_slack: Duration,
}

/// How a process hears that we died.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Orphaned {
    /// It reads the end of its standard input.
    ReadsEndOfInput,
    /// A guard sends it this signal.
    Signal(Signal),
}

/// A process, running or not. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    spec: Spec,
    running: Option<Running>,
    unready: String,
}

#[derive(Debug)]
struct Running {
    child: Child,
    pid: u32,
    _stdin: Option<ChildStdin>,
    _guard: Option<Guard>,
    /// Where this run's output begins in the log.
    log_start: u64,
}

impl Spec {
    /// A process with nothing special about it: no arguments, our own environment and account, SIGTERM.
    pub fn new(
        name: impl Into<String>,
        program: impl Into<PathBuf>,
        log: impl Into<PathBuf>,
        probe: Probe,
    ) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            env_remove: Vec::new(),
            log: log.into(),
            probe,
            stop_signal: Signal::SIGTERM,
            abort_signal: Signal::SIGKILL,
            orphaned: Orphaned::Signal(Signal::SIGTERM),
            account: None,
            timer_slack: Duration::ZERO,
        }
    }
}

impl Server {
    /// Not started yet.
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            running: None,
            unready: String::new(),
        }
    }

    /// How it is run.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Runs this program from the next start on: the same service in another version.
    pub fn set_program(&mut self, program: impl Into<PathBuf>) {
        self.spec.program = program.into();
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// Starts it and waits until it answers. When it does not in time, it is killed.
    pub async fn start(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.spawn()?;
        let result = self.ready(patience).await;
        if result.is_err() {
            self.kill().await;
        }
        result
    }

    /// Starts it and waits for nothing. Must be called in a Tokio runtime.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        assert!(
            self.running.is_none(),
            "{} is started once at a time",
            self.spec.name
        );
        let spec = &self.spec;
        let (log, log_start) = open_log(&spec.log)?;
        let errors = log.try_clone().context("cannot use a log twice")?;
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.args)
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(match spec.orphaned {
                Orphaned::ReadsEndOfInput => Stdio::piped(),
                Orphaned::Signal(_) => Stdio::null(),
            })
            .stdout(log)
            .stderr(errors)
            // Ctrl-C at a terminal goes to a whole group of processes; who started us says what stops when.
            .process_group(0)
            .kill_on_drop(true);
        for name in &spec.env_remove {
            command.env_remove(name);
        }
        if let Some(account) = spec.account {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        let mut child = with_timer_slack(spec.timer_slack, || command.spawn())
            .with_context(|| format!("{}: cannot run {}", spec.name, spec.program.display()))?;
        let pid = child.id().expect("nobody has waited for the child");
        let guard = match spec.orphaned {
            Orphaned::ReadsEndOfInput => None,
            Orphaned::Signal(signal) => Some(Guard::watch(pid, signal)?),
        };
        let stdin = child.stdin.take();
        self.running = Some(Running {
            child,
            pid,
            _stdin: stdin,
            _guard: guard,
            log_start,
        });
        Ok(())
    }

    /// Waits until it answers. When it ends instead, the error has what it said last. When it does not answer in
    /// time, that is the error, and it goes on running. May be dropped and called again.
    pub async fn ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let running = self.running.as_mut().context("it is not running")?;
            if let Some(status) = running.child.try_wait().context("cannot wait for a child")? {
                let said = last_words(&self.spec.log, running.log_start);
                self.running = None;
                let (name, log) = (&self.spec.name, self.spec.log.display());
                bail!("{name} {}: {said} (log: {log})", describe(status));
            }
            match self.spec.probe.ask(running.pid).await {
                Ok(()) => return Ok(()),
                Err(reason) => self.unready = reason,
            }
            if began.elapsed() >= patience {
                let (name, log, reason) = (&self.spec.name, self.spec.log.display(), &self.unready);
                bail!(
                    "{name} does not answer after {} s: {reason} (log: {log})",
                    patience.as_secs()
                );
            }
            sleep((began.elapsed() / 10).clamp(ASK_INTERVAL_MIN, ASK_INTERVAL_MAX)).await;
        }
    }

    /// Why it was not ready when it was last asked and was not.
    pub fn unready(&self) -> &str {
        &self.unready
    }

    /// Waits until it ends. May be dropped and called again. Never returns where it does not run.
    pub async fn exited(&mut self) -> ExitStatus {
        let Some(running) = self.running.as_mut() else {
            return std::future::pending().await;
        };
        let status = running.child.wait().await.expect("the child is ours to wait for");
        self.running = None;
        status
    }

    /// Stops it in order; when that takes longer than `patience`, kills it. Says whether it ended by itself.
    pub async fn stop(&mut self, patience: Duration) -> bool {
        self.signal(self.spec.stop_signal);
        if self.running.is_none() {
            return true;
        }
        let ended = timeout(patience, self.exited()).await.is_ok();
        if !ended {
            self.kill().await;
        }
        ended
    }

    /// Kills it, as a crash would, and waits until it is gone.
    pub async fn kill(&mut self) {
        if self.running.is_some() {
            self.signal(Signal::SIGKILL);
            self.exited().await;
        }
    }

    /// Ends it at once, with whatever it has started. Unlike [`Server::kill`] not what a crash would do.
    pub async fn abort(&mut self) {
        self.signal(self.spec.abort_signal);
        if self.running.is_some() && timeout(ABORT_PATIENCE, self.exited()).await.is_err() {
            self.kill().await;
        }
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            // The child has not been waited for, so the pid is its own; it may have ended, which is as well.
            let _ = kill(Pid::from_raw(running.pid.cast_signed()), signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let target = Pid::from_raw(running.pid.cast_signed());
        let _ = kill(target, self.spec.abort_signal);
        let began = std::time::Instant::now();
        while matches!(running.child.try_wait(), Ok(None)) {
            if began.elapsed() > ABORT_PATIENCE {
                let _ = kill(target, Signal::SIGKILL);
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// `exited with code 1`, `was killed by SIGKILL`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("was killed by {signal}"),
            Err(_) => format!("was killed by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

/// Opens a log for appending, and says where the new part begins.
fn open_log(path: &Path) -> anyhow::Result<(File, u64)> {
    let cannot = || format!("cannot write the log {}", path.display());
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1")).with_context(cannot)?;
    }
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(cannot)?;
    let start = log.metadata().with_context(cannot)?.len();
    Ok((log, start))
}

/// The last line that says something, since `start`.
fn last_words(path: &Path, start: u64) -> String {
    let mut text = Vec::new();
    if let Ok(mut log) = File::open(path) {
        let length = log.metadata().map_or(0, |metadata| metadata.len());
        let from = start.max(length.saturating_sub(LOG_TAIL_BYTES));
        if log.seek(SeekFrom::Start(from)).is_ok() {
            let _ = log.read_to_end(&mut text);
        }
    }
    let text = String::from_utf8_lossy(&text);
    let lines = || text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    // What a server says when it gives up comes before what it says while it leaves.
    let severe = lines().find(|line| {
        ["FATAL", "[FTL]", "nats-server:", "error:"]
            .iter()
            .any(|mark| line.contains(mark))
    });
    severe
        .or_else(|| lines().next())
        .unwrap_or("it said nothing")
        .to_owned()
}
