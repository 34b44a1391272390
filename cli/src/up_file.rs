//! `up.json`: where a running system listens and how to log in there. `tidings up` writes it, everything else
//! that takes `--dir` reads it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// The file's name in the folder of a system.
const NAME: &str = "up.json";

/// A running system. The URLs carry the credentials that an operator needs, so the file is for its owner alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpFile {
    /// WebSocket URLs of the gateways.
    pub ws: Vec<String>,
    /// Base URL for attachments. `None`: no service for them runs, as in systems of an earlier version.
    pub media: Option<String>,
    /// NATS URLs, separated by commas.
    pub nats: String,
    /// NATS URLs for the system account (`nats server report`, `nats events`), separated by commas.
    pub nats_system: String,
    /// Postgres URL.
    pub postgres: String,
    /// The secret with which tokens are signed (HS256).
    pub jwt_secret: String,
    /// Every process, the databases' included.
    pub processes: Vec<UpProcess>,
}

/// One process of a running system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpProcess {
    /// Such as `gateway-1`, `nats-1`, `postgres`.
    pub name: String,
    /// Its process id; while it is down and about to be started again, that of the last one.
    pub pid: u32,
    /// Base URL of `/healthz`, `/readyz` and `/metrics` of a service, or of the monitoring port of NATS.
    pub admin: Option<String>,
    /// What it writes.
    pub log: PathBuf,
}

impl UpFile {
    /// Where the file of a system lies.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(NAME)
    }

    /// The system that runs in `dir`. Whether its processes are alive is not looked at.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = Self::path(dir);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!(
                    "nothing runs in {0}: start it with `tidings up --dir {0}`",
                    dir.display()
                )
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is not what `tidings up` writes", path.display()))
    }
}

impl fmt::Debug for UpFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpFile")
            .field("ws", &self.ws)
            .field("media", &self.media)
            .field("processes", &self.processes)
            .finish_non_exhaustive()
    }
}
