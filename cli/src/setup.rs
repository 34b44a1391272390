//! `tidings setup`: creates or upgrades streams, consumers, buckets and tables. Services only compare.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::Arg;
use serde_json::Value;
use tidings_metadata::Metadata;
use tidings_nats::setup::{self, Change, SetupError, SetupOptions, stream_config};
use tidings_nats::{ApiError, CHATS, INVALIDATIONS, NatsUser, Topology, inbox_stream};
use tidings_service::{CommonConfig, NatsConnection, NatsSettings};
use tokio::time::{Instant, sleep};

use crate::{DataDir, UpFile};

/// How long what may pass is tried again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More than CHATS counts in a second. With it, sequences stay below 2^53, which JSON's readers can count, until 2242.
const EVENTS_A_SECOND: u64 = 1 << 20;
/// Error code of a cluster that has too few servers for the copies, or knows of too few yet.
const NO_SUITABLE_PEERS: u16 = 10005;

/// Creates or upgrades the streams, consumers, buckets and tables that the services need.
///
/// Prints one line for each change; nothing when everything is as it should be. What an operator has added beside
/// our settings stays. Give --nats-url and --postgres-url, or --dir for a system of `tidings up`.
#[derive(Debug, clap::Args)]
#[command(mut_args(only_connections))]
pub(crate) struct SetupArgs {
    /// Only print what would change.
    #[arg(long)]
    dry_run: bool,

    /// Copies of each stream: 1, or 3 on three NATS servers or more. [default: as many as there are, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,

    /// What was restored from a backup, or is a copy that had fallen behind; before any service starts. Messages and
    /// changes of chats count on above all that clients may have seen, and every chat is told anew who is in it.
    #[arg(long, conflicts_with = "dry_run", value_enum)]
    restored: Option<Restored>,

    #[command(flatten)]
    dir: DataDir,

    #[command(flatten)]
    common: CommonConfig,
}

/// What was restored.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Restored {
    /// Inboxes and the database: CHATS and INVALIDATIONS are made anew, and must not be there.
    All,
    /// The database alone: NATS has everything, and counts on by itself.
    Database,
}

/// Hides the settings of a service that a command which only connects has no use for.
fn only_connections(argument: Arg) -> Arg {
    let hidden = [
        "postgres_connections_max",
        "admin_listen",
        "log_format",
        "log",
        "drain_timeout",
    ];
    let hide = hidden.contains(&argument.get_id().as_str());
    argument.hide(hide)
}

pub(crate) fn main(args: SetupArgs) -> ExitCode {
    crate::block_on(async move {
        let mut common = args.common.clone();
        if args.dir.given().is_some() {
            let up = UpFile::read(&args.dir.path()?)?;
            up.connect(&mut common, NatsUser::Setup);
        }
        let nats = NatsSettings::new(&common.nats, NatsUser::Setup)?;
        let postgres = common.base.postgres_url()?;
        let tables = apply_tables(postgres.expose(), args.dry_run).await?;
        let mut changes = tables.changes;
        let mut remembered = tables.remembered;
        if let Some(restored) = args.restored {
            check_streams(&nats, restored, remembered).await?;
            changes.push(tell_chats_again(postgres.expose()).await?);
            remembered = remembered.max(above_all_seen());
        }
        let remembered = async { Ok(remembered) };
        changes.extend(apply_streams(&nats, args.replicas, remembered, args.dry_run).await?);
        for change in &changes {
            println!("{change}");
        }
        match (changes.is_empty(), args.dry_run) {
            (true, _) => eprintln!("everything is as this version needs it"),
            (false, true) => eprintln!("{} changes would be made", changes.len()),
            (false, false) => eprintln!("{} changes made", changes.len()),
        }
        Ok(())
    })
}

/// What was made of the tables, and what they know.
pub(crate) struct Tables {
    /// What was changed.
    pub(crate) changes: Vec<Change>,
    /// The highest sequence of CHATS and INVALIDATIONS that they remember.
    pub(crate) remembered: u64,
}

/// Whether the streams that clients know sequences of are there, or not there, as they have to be.
async fn check_streams(nats: &NatsSettings, restored: Restored, remembered: u64) -> anyhow::Result<()> {
    let connection = NatsConnection::connect(nats, "tidings-setup").await?;
    let bus = connection.bus();
    let mut last = 0;
    for stream in [CHATS, INVALIDATIONS] {
        let there = patiently(|| stream_config(&bus, stream)).await?.is_some();
        match (restored, there) {
            (Restored::All, true) => bail!(
                "--restored all: the stream {stream} is there. If it came from a backup, or this system has never run, \
                 delete it (`nats stream rm {stream}`) and run this again; if an earlier run of this made it, `tidings setup` \
                 does the rest"
            ),
            (Restored::Database, false) => bail!(
                "--restored database: there is no stream {stream}. If NATS has lost it, and the inboxes are from a backup or \
                 lost as well, say `--restored all`"
            ),
            (Restored::Database, true) => {
                last = last.max(bus.stream_bounds(stream, TIMEOUT).await?.last_sequence);
            }
            (Restored::All, false) => {}
        }
    }
    if restored == Restored::Database && last < remembered {
        bail!(
            "--restored database: the database knows of sequence {remembered}, and CHATS and INVALIDATIONS end at {last}: \
             they are older. Delete both and say `--restored all`"
        );
    }
    Ok(())
}

/// Gives every chat a version above those that clients may know.
async fn tell_chats_again(postgres_url: &str) -> anyhow::Result<Change> {
    let metadata = Metadata::connect(postgres_url, 1).context("--postgres-url")?;
    let chats = metadata.tell_chats_again().await?;
    metadata.close().await;
    Ok(Change {
        what: format!("{chats} chats"),
        how: "tell anew who is in them".to_owned(),
    })
}

/// A sequence above all that CHATS has given out, also after the same backup was restored before.
fn above_all_seen() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_1970.as_secs() * EVENTS_A_SECOND
}

/// Brings tables to what this version needs, or with `dry_run` only says what it would do.
pub(crate) async fn apply_tables(postgres_url: &str, dry_run: bool) -> anyhow::Result<Tables> {
    let metadata = Metadata::connect(postgres_url, 1).context("--postgres-url")?;
    let pending = metadata.pending_migrations().await?;
    if !dry_run {
        metadata.migrate().await?;
    }
    let remembered = if pending.is_empty() || !dry_run {
        metadata.last_sequence().await?
    } else {
        // The table may not be there yet.
        0
    };
    metadata.close().await;
    let changes = pending.into_iter().map(|migration| Change {
        what: format!("tables, migration {migration}"),
        how: "apply".to_owned(),
    });
    Ok(Tables {
        changes: changes.collect(),
        remembered,
    })
}

/// Brings streams, consumers and buckets to what this version needs, or with `dry_run` only says what it would do.
/// Without `replicas`, streams keep the copies they have. `remembered` is [`Tables::remembered`], waited for only if
/// a stream has to be made that must count on.
pub(crate) async fn apply_streams(
    nats: &NatsSettings,
    replicas: Option<u8>,
    remembered: impl Future<Output = anyhow::Result<u64>>,
    dry_run: bool,
) -> anyhow::Result<Vec<Change>> {
    let connection = NatsConnection::connect(nats, "tidings-setup").await?;
    let bus = connection.bus();
    let mut there = patiently(|| stream_config(&bus, CHATS)).await?;
    if there.is_none() {
        // CHATS was lost, or is not in a backup: it gets as many copies as the inboxes have, and those keep theirs.
        let mut inboxes = Topology::default().shards().map(inbox_stream);
        let inbox = inboxes.next().expect("a system has shards");
        there = patiently(|| stream_config(&bus, &inbox)).await?;
    }
    let is_one_lost = patiently(|| setup::is_one_lost(&bus)).await?;
    let copies = there.as_ref().and_then(copies);
    let options = SetupOptions {
        replicas: replicas.or(copies).unwrap_or(1),
        remembered: if is_one_lost { remembered.await? } else { 0 },
        ..SetupOptions::default()
    };
    Ok(patiently(|| setup::apply(&bus, &options, dry_run)).await?)
}

/// Tries again what may pass. What was done stays done.
async fn patiently<T>(mut work: impl AsyncFnMut() -> Result<T, SetupError>) -> Result<T, SetupError> {
    let began = Instant::now();
    loop {
        match work().await {
            Err(error) if may_pass(&error) && began.elapsed() < PATIENCE => sleep(PAUSE).await,
            result => return result,
        }
    }
}

/// Whether it may be because a cluster has just started: servers elect, and do not know each other yet.
fn may_pass(error: &SetupError) -> bool {
    let SetupError::Api { error, .. } = error else {
        return false;
    };
    matches!(error, ApiError::Timeout | ApiError::NoResponders(_)) || error.code() == Some(NO_SUITABLE_PEERS)
}

/// How many copies a stream has.
fn copies(config: &Value) -> Option<u8> {
    u8::try_from(config["num_replicas"].as_u64()?).ok()
}
