//! `up.json`: where a running system listens and how to log in there. `tidings up` writes it, everything else
//! that takes `--dir` reads it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tidings_nats::NatsUser;
use tidings_service::{CommonConfig, NatsConfig, NatsSettings, Secret};

use crate::nats_users::seed_file;

/// The file's name in the folder of a system.
const NAME: &str = "up.json";

/// A running system. Its URLs carry passwords, so the file is for its owner alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpFile {
    /// WebSocket URLs of the gateways.
    pub ws: Vec<String>,
    /// Base URL for attachments. `None`: no service for them runs, as in systems of an earlier version.
    pub media: Option<String>,
    /// NATS URLs, separated by commas, without a login.
    pub nats: String,
    /// The folder of the seeds by which NATS users log in: `gateway.nk`, `operator.nk` and so on. `None`: whoever wrote
    /// this does not use NATS.
    #[serde(default)]
    pub nats_users: Option<PathBuf>,
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

    /// The file of a NATS user's seed.
    pub fn nats_seed_file(&self, user: NatsUser) -> Option<PathBuf> {
        self.nats_users.as_deref().map(|folder| seed_file(folder, user))
    }

    /// How a NATS user logs in.
    pub fn nats_settings(&self, user: NatsUser) -> anyhow::Result<NatsSettings> {
        let settings = NatsSettings::parse(&self.nats)?.of_user(user);
        let file = self.nats_seed_file(user).context("up.json names no seeds")?;
        settings.with_seed(Secret::read(&file)?)
    }

    /// Makes settings lead to this system, as a NATS user.
    pub(crate) fn connect(self, config: &mut CommonConfig, user: NatsUser) {
        config.nats = NatsConfig {
            nats_seed_file: self.nats_seed_file(user),
            nats_url: Some(Secret::new(self.nats)),
            ..NatsConfig::default()
        };
        config.base.postgres_url = Some(Secret::new(self.postgres));
        config.base.postgres_url_file = None;
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
