//! Looking inside a running system: what the operators' commands share. Those of this module read, and change nothing; `hands`
//! has those that do.

mod chat_info;
pub(crate) mod clients;
mod explain;
pub(crate) mod inbox;
pub(crate) mod presence;
mod where_user;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Arg;
use tidings_metadata::Metadata;
use tidings_nats::{Bus, NatsUser, Topology, setup};
use tidings_protocol::Timestamp;
use tidings_service::{CommonConfig, NatsConnection, NatsSettings};

use crate::{DataDir, UpFile, print};

pub(crate) use chat_info::{ChatInfoArgs, main as chat_info};
pub(crate) use clients::{ClientsArgs, main as clients};
pub(crate) use explain::{ExplainArgs, main as explain};
pub(crate) use inbox::{InboxArgs, main as inbox};
pub(crate) use where_user::{WhereArgs, main as where_user};

/// For one question. An election of JetStream, at whose end a question is answered, takes less.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// A command asks one thing after the other.
const POSTGRES_CONNECTIONS_MAX: u32 = 2;

/// How a command finds the system, and for whom it answers.
#[derive(Debug, clap::Args)]
#[command(mut_args(only_connections))]
pub(crate) struct LookArgs {
    /// Print JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    dir: DataDir,

    #[command(flatten)]
    common: CommonConfig,
}

/// Hides the settings of a service that a command which only connects has no use for.
fn only_connections(argument: Arg) -> Arg {
    match argument.get_id().as_str() {
        "dir"
        | "nats_url"
        | "nats_url_file"
        | "nats_seed"
        | "nats_seed_file"
        | "nats_credentials_file"
        | "nats_ca_file"
        | "nats_certificate_file"
        | "nats_certificate_key_file"
        | "postgres_url"
        | "postgres_url_file" => argument.help_heading("Which system (--dir, or else the URLs)"),
        "postgres_connections_max"
        | "admin_listen"
        | "log_format"
        | "log"
        | "otlp_endpoint"
        | "drain_timeout" => argument.hide(true),
        _ => argument,
    }
}

/// A system that is looked into.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) bus: Bus,
    pub(crate) topology: Topology,
    pub(crate) metadata: Metadata,
    /// Postgres' clock when the command began; ages are told by it.
    now: Timestamp,
    /// The connection, which ends with this.
    _nats: NatsConnection,
}

impl LookArgs {
    /// Connects to the system of --dir; else to what the URLs name; else to the system in the default folder.
    pub(crate) async fn connect(&self) -> anyhow::Result<Look> {
        Look::connect(&self.settings()?).await
    }

    /// The folder of the system of `tidings up` that is looked into; None where URLs name another one.
    pub(crate) fn folder(&self) -> anyhow::Result<Option<PathBuf>> {
        let common = &self.common;
        let urls = common.nats.nats_url.is_some()
            || common.nats.nats_url_file.is_some()
            || common.base.postgres_url.is_some()
            || common.base.postgres_url_file.is_some();
        let by_folder = self.dir.given().is_some() || !urls;
        by_folder.then(|| self.dir.path()).transpose()
    }

    /// Where NATS and Postgres are.
    pub(crate) fn settings(&self) -> anyhow::Result<CommonConfig> {
        let mut common = self.common.clone();
        if let Some(folder) = self.folder()? {
            UpFile::read(&folder)?.connect(&mut common, NatsUser::Operator);
        }
        Ok(common)
    }
}

impl Look {
    async fn connect(common: &CommonConfig) -> anyhow::Result<Self> {
        let (nats, bus, topology) = connect_bus(common).await?;
        let url = common.base.postgres_url()?;
        let metadata = Metadata::connect(url.expose(), POSTGRES_CONNECTIONS_MAX).context("--postgres-url")?;
        let at = || format!("Postgres at {}", describe(url.expose()));
        metadata.check_schema().await.with_context(at)?;
        let now = metadata.clock().await.with_context(at)?;
        Ok(Self {
            bus,
            topology,
            metadata,
            now,
            _nats: nats,
        })
    }

    /// How long ago something was, which is never in the future.
    pub(crate) fn age(&self, then: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.now.0 - then.0).unwrap_or(0))
    }
}

/// Connects to NATS alone, which must be set up. The connection ends with the first of what is given.
pub(crate) async fn connect_bus(common: &CommonConfig) -> anyhow::Result<(NatsConnection, Bus, Topology)> {
    let settings = NatsSettings::new(&common.nats, NatsUser::Operator)?;
    let nats = NatsConnection::connect(&settings, "tidings-look").await?;
    let bus = nats.bus();
    let topology = setup::check(&bus)
        .await
        .with_context(|| format!("JetStream at {}", settings.describe()))?;
    Ok((nats, bus, topology))
}

/// A Postgres URL without its credentials and options.
fn describe(url: &str) -> String {
    url::Url::parse(url).map_or_else(
        |_| "the given URL".to_owned(),
        |url| {
            let host = url.host_str().unwrap_or("localhost");
            format!("{host}:{}{}", url.port().unwrap_or(5432), url.path())
        },
    )
}

/// Runs a command that prints what it found, as JSON or for people.
pub(crate) fn run<T: serde::Serialize>(
    args: &LookArgs,
    find: impl AsyncFnOnce(&Look) -> anyhow::Result<T>,
    show: impl FnOnce(&Look, &T) -> String,
) -> ExitCode {
    crate::block_on(async {
        let look = args.connect().await?;
        let found = find(&look).await?;
        if args.json {
            print::json(&found)
        } else {
            print::text(&show(&look, &found))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_postgres_url_is_described_without_its_password() {
        assert_eq!(
            describe("postgres://tidings:hunter2@db:6432/tidings?sslmode=require"),
            "db:6432/tidings"
        );
        assert_eq!(describe("postgres://db/tidings"), "db:5432/tidings");
        assert_eq!(describe("hunter2"), "the given URL");
    }
}
