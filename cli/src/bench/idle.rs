//! `tidings bench idle`: connections that do nothing, and what one costs the gateway.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tidings_protocol::{CreateChat, MESSAGE_BYTES_MAX, MessageId, RequestId, SendMessage};
use uuid::Uuid;

use super::fleet::{Fleet, request};
use super::observed::read;
use super::processes::{Interval, Sample, settle};
use super::report::write_json;
use super::say;
use super::target::{Target, TargetArgs};

/// The processes whose memory a connection takes.
const GATEWAY: &str = "gateway";
/// Pairs that exchange at the same time.
const EXCHANGING: usize = 32;
/// For every message of the exchange to arrive.
const EXCHANGE_PATIENCE: Duration = Duration::from_mins(1);
/// For memory to come to rest.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);

/// Connects clients that do nothing, and measures what each adds to the gateway's resident memory.
///
/// The first `--warm` connections are opened before anything is measured, so that what a gateway allocates once is not
/// counted; so is what it keeps from an earlier load: measure with one that was just started.
#[derive(Debug, clap::Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,

    /// How many clients are measured.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    clients: u32,

    /// How many are connected before that, and stay.
    #[arg(long, default_value_t = 50, value_name = "N")]
    warm: u32,

    /// First, each connection carries one message of so many bytes in each direction.
    #[arg(long, value_name = "BYTES")]
    exchange_bytes: Option<usize>,

    /// For how long the idle system's CPU time is measured in the end.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    seconds: f64,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct IdleReport {
    codec: &'static str,
    clients: u32,
    warm: u32,
    exchange_bytes: Option<usize>,
    /// Of the gateways: with the warm connections, and with all.
    resident_bytes_before: u64,
    resident_bytes_after: u64,
    /// Growth by each connection, in bytes.
    bytes_per_connection: f64,
    /// While nothing happens.
    idle: Interval,
}

pub(crate) async fn run(args: IdleArgs) -> anyhow::Result<()> {
    let target = Arc::new(Target::open(&args.target)?);
    ensure!(
        !target.processes.is_empty(),
        "memory is measured of processes that `tidings up` runs: give --dir, not --url"
    );
    if let Some(bytes) = args.exchange_bytes {
        ensure!(
            args.target.devices == 1,
            "--exchange-bytes needs --devices 1: a message goes to all devices of a user"
        );
        ensure!(
            (1..=MESSAGE_BYTES_MAX).contains(&bytes),
            "--exchange-bytes must be 1 to {MESSAGE_BYTES_MAX}"
        );
    }
    let duration = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    let mut fleet = Fleet::new();
    if args.warm > 0 {
        fleet.grow(&target, args.warm).await?;
        exchange(&fleet, &target, 0, args.exchange_bytes).await?;
    }
    say("waiting until the gateways' memory rests");
    settle(&target.processes, GATEWAY, SETTLE_PATIENCE).await;
    let before = Sample::take(&target.processes).resident_bytes(GATEWAY);

    fleet.grow(&target, args.warm + args.clients).await?;
    exchange(&fleet, &target, args.warm, args.exchange_bytes).await?;
    say("waiting until the gateways' memory rests");
    settle(&target.processes, GATEWAY, SETTLE_PATIENCE).await;
    let idle = Sample::take(&target.processes);
    tokio::time::sleep(duration).await;
    let end = Sample::take(&target.processes);
    let losses = fleet.observed.losses();
    fleet.close().await;

    let after = end.resident_bytes(GATEWAY);
    let report = IdleReport {
        codec: args.target.codec_name(),
        clients: args.clients,
        warm: args.warm,
        exchange_bytes: args.exchange_bytes,
        resident_bytes_before: before,
        resident_bytes_after: after,
        bytes_per_connection: (after as f64 - before as f64) / f64::from(args.clients),
        idle: end.since(&idle),
    };
    print!("{}", report.table());
    if let Some(path) = &args.target.json {
        write_json(path, &report)?;
    }
    ensure!(losses == 0, "{losses} connections were lost");
    Ok(())
}

impl IdleReport {
    fn table(&self) -> String {
        let mut out = String::new();
        let exchanged = self.exchange_bytes.map_or(String::new(), |bytes| {
            format!(", after one message of {bytes} bytes in each direction")
        });
        let _ = writeln!(
            out,
            "{} idle connections ({}){exchanged}\n\ngateway memory {:.1} MB with {} connections, {:.1} MB with {}: \
             {:.0} bytes a connection",
            self.clients,
            self.codec,
            self.resident_bytes_before as f64 / 1e6,
            self.warm,
            self.resident_bytes_after as f64 / 1e6,
            self.warm + self.clients,
            self.bytes_per_connection,
        );
        self.idle.write_table(&mut out, None);
        out
    }
}

/// Every client from `first` on sends one message to its neighbour and gets one. An odd one out has none.
async fn exchange(fleet: &Fleet, target: &Target, first: u32, bytes: Option<usize>) -> anyhow::Result<()> {
    let Some(bytes) = bytes else { return Ok(()) };
    let began = Instant::now();
    let before = read(&fleet.observed.messages);
    let pairs = (fleet.clients.len() as u32 - first) / 2;
    stream::iter(0..pairs)
        .map(|pair| exchange_pair(fleet, target, first + 2 * pair, bytes))
        .buffer_unordered(EXCHANGING)
        .try_collect::<()>()
        .await
        .context("cannot exchange messages")?;
    let all = before + 2 * u64::from(pairs);
    fleet
        .wait_for("messages delivered", EXCHANGE_PATIENCE, all, |observed| {
            read(&observed.messages)
        })
        .await?;
    let seconds = began.elapsed().as_secs_f64();
    say(&format!(
        "{} messages of {bytes} bytes exchanged ({seconds:.1} s)",
        2 * pairs
    ));
    Ok(())
}

async fn exchange_pair(fleet: &Fleet, target: &Target, first: u32, bytes: usize) -> anyhow::Result<()> {
    let create = CreateChat {
        id: 1,
        request_id: RequestId(Uuid::new_v4()),
        participants: vec![target.user(first + 1)?],
        name: None,
    };
    let reply = request(&fleet.clients[first as usize], || create.clone().into()).await?;
    let chat_id = reply.chat_id.context("the reply to createChat names no chat")?;
    for client in [first, first + 1] {
        let send = SendMessage {
            id: 2,
            chat_id,
            message_id: MessageId(Uuid::new_v4()),
            message: "x".repeat(bytes),
            attachments: Vec::new(),
        };
        request(&fleet.clients[client as usize], || send.clone().into()).await?;
    }
    Ok(())
}
