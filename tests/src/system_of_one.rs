//! A system that `tidings up` runs, with one of each service, for programs that measure. Its processes are the measuring
//! program's own file.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tidings_cli::UpFile;

/// Whether this process is to be a service, or `tidings up`: then `main` is [`tidings_cli::main`].
pub fn is_service() -> bool {
    std::env::args()
        .nth(1)
        .is_some_and(|first| !first.starts_with('-'))
}

/// Starts it, with one NATS server or three, in a folder that does not exist yet, does something with it, and stops it.
pub async fn with<T>(
    dir: &Path,
    nats_servers: usize,
    measure: impl AsyncFnOnce(UpFile) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    ensure!(!dir.exists(), "{} exists", dir.display());
    let mut up = Command::new(std::env::current_exe()?)
        .args(["up", "--rate-limits", "off", "--dir"])
        .arg(dir)
        .args(["--gateways", "1", "--fanout-workers", "1", "--inbox-workers", "1"])
        .args(["--nats", &nats_servers.to_string()])
        .env(tidings_service::EXIT_WITH_STDIN, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut ready = [0; 6];
    up.stdout
        .take()
        .context("it is piped")?
        .read_exact(&mut ready)
        .context("`tidings up` does not start")?;
    let result = measure(UpFile::read(dir)?).await;
    drop(up.stdin.take());
    up.wait()?;
    result
}

/// The process id of one of its processes.
pub fn pid_of(system: &UpFile, name: &str) -> anyhow::Result<u32> {
    let process = system.processes.iter().find(|process| process.name == name);
    Ok(process.with_context(|| format!("no process {name}"))?.pid)
}

/// A line of `/proc/<pid>/status` that counts memory, such as `VmRSS:`, in bytes.
pub fn memory(pid: u32, line: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|found| found.strip_prefix(line));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.context("the kernel tells it")?.parse::<u64>()? * 1024)
}

/// A process's parent, and the CPU time that it has taken itself.
pub fn parent_and_cpu(pid: u32) -> anyhow::Result<(u32, Duration)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may have spaces and brackets in it. It is the second field; the parent is the fourth, user and system time
    // are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(')').context("a name stands in brackets")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| -> anyhow::Result<u64> {
        Ok(fields.get(index).context("the kernel tells it")?.parse()?)
    };
    // Hundredths of a second for all programs, whatever the kernel counts in (`USER_HZ`).
    let cpu = Duration::from_millis((number(11)? + number(12)?) * 10);
    Ok((number(1)?.try_into()?, cpu))
}
