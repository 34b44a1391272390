//! The folder of a system: made, locked, and cleared of what an earlier run left running.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tidings_stack::{check_way_of_postgres, let_postgres_through, started, stop_leftover, write_private};

use super::say::say;
use crate::UpFile;

/// How long a process that an earlier run left behind may take to stop.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(10);

/// A folder that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

/// A process, so that a later run recognises it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// See [`tidings_stack::started`].
    pub(crate) started: Option<String>,
}

impl ProcessRecord {
    /// Of a process that lives now.
    pub(crate) fn new(name: &str, pid: u32) -> Self {
        Self {
            name: name.to_owned(),
            pid,
            started: started(pid),
        }
    }
}

impl Folder {
    /// Makes the folder if need be and locks it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        check_way_of_postgres(path)?;
        if !path.exists() {
            fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        }
        if !path.is_dir() {
            bail!("{} is not a folder", path.display());
        }
        let cannot = || format!("cannot write to the folder {}", path.display());
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .with_context(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                let owner = match owner.trim() {
                    "" => String::new(),
                    pid => format!(" (pid {pid})"),
                };
                bail!(
                    "{} is in use by another `tidings up`{owner}: stop it, or take another --dir",
                    path.display()
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .with_context(cannot)?;
        writeln!(lock, "{}", std::process::id()).with_context(cannot)?;
        let folder = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        for name in ["attachments", "logs", "nats"] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder.path.join(name))
                .with_context(cannot)?;
        }
        let_postgres_through(path)?;
        // What it says is not so any more; who waits for it waits for the new one.
        folder.remove_up_file()?;
        Ok(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The log of a process.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// The file that later runs find our processes by.
    fn processes(&self) -> PathBuf {
        self.path.join("processes.json")
    }

    /// Writes down which processes run.
    pub(crate) fn record_processes(&self, processes: &[ProcessRecord]) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(processes).context("records are plain data")?;
        let path = self.processes();
        write_private(&path, &text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes `up.json`, whole or not at all.
    pub(crate) fn write_up_file(&self, up: &UpFile) -> anyhow::Result<()> {
        let path = UpFile::path(&self.path);
        let mut text = serde_json::to_vec_pretty(up).context("up.json is plain data")?;
        text.push(b'\n');
        write_private(&path, &text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Nothing runs here, or not yet.
    pub(crate) fn remove_up_file(&self) -> anyhow::Result<()> {
        let path = UpFile::path(&self.path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Stops what a run that was killed has left running: usually on its way out already, and holding ports and
    /// data until then. Blocks.
    pub(crate) fn stop_leftovers(&self) {
        // Without the file, or with half of it, there is nobody to be recognised.
        let records = fs::read(self.processes()).ok();
        let records: Vec<ProcessRecord> = records
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        // Started last, stopped first: services before what they need.
        for record in records.iter().rev() {
            let signal = if record.name == "postgres" {
                Signal::SIGINT
            } else {
                Signal::SIGTERM
            };
            let since = record.started.as_deref().unwrap_or_default();
            if stop_leftover(record.pid, since, signal, LEFTOVER_PATIENCE) {
                say(&format!(
                    "stopped {} (pid {}), left by a run that was killed",
                    record.name, record.pid
                ));
            }
        }
    }
}
