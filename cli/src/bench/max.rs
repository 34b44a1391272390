//! `tidings bench max`: as much as the system takes (closed loop). A message begins when another one is over, so
//! that the system is always busy and never drowned.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::time::{Instant as TokioInstant, timeout_at};

use super::crowd::{Crowd, CrowdArgs};
use super::in_flight::{InFlight, OF_SENDER_MAX, Until};
use super::ledger::MESSAGES_MAX;
use super::observed::Load;
use super::progress::{each_second_until, report, wait_for_the_rest, wait_for_the_unexpected};
use super::raw;
use super::report::{LoadReport, Offered};
use super::stretch::{Moment, Stretch, StretchArgs};

/// Sends as fast as messages arrive, and says how many that is.
///
/// So many messages are always under way: each is until its sender has the reply and every recipient has its copy, and
/// only then another one begins. Latency is measured from when a message was sent: `accept` to the sender's reply,
/// `delivery` to each recipient's socket. `lag` is what of that passes before the message is written to its socket.
#[derive(Debug, clap::Args)]
pub(crate) struct MaxArgs {
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,

    /// How many messages are under way at the same time. A client has at most 64 that are not answered.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,

    #[command(flatten)]
    stretch: StretchArgs,

    /// Draws latency over time and by percentile there, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// First measures the machine's own limit as `tidings bench raw` does, so that the result is also a ratio.
    #[arg(long)]
    raw: bool,

    #[command(flatten)]
    raw_extent: raw::Extent,
}

pub(crate) async fn run(args: MaxArgs) -> anyhow::Result<()> {
    let plan = args.crowd.plan()?;
    let possible = plan.senders() * OF_SENDER_MAX;
    ensure!(
        args.in_flight as usize <= possible,
        "--in-flight is at most {possible}: {OF_SENDER_MAX} for each client that is in a chat"
    );
    let (warmup, measured) = args.stretch.times()?;
    // Before anybody connects: the services have nothing to do.
    let raw = if args.raw {
        Some(raw::measure(&args.crowd, &plan, args.raw_extent).await?)
    } else {
        None
    };
    let crowd = args.crowd.gather(plan).await?;
    let in_flight = InFlight::new(
        args.in_flight as usize,
        args.crowd.clients as usize,
        Until::Delivered,
    );
    let load = crowd.begin(Instant::now(), Some(in_flight));

    let end = warmup + measured;
    let sending = keep_in_flight(&crowd, load, warmup, end);
    let watching = async { Ok(watch(&crowd, load, warmup, end).await) };
    let ((), stretch) = tokio::try_join!(sending, watching)?;
    wait_for_the_rest(load, crowd.patience).await;
    wait_for_the_unexpected().await;
    let offered = Offered {
        rate: None,
        in_flight: Some(args.in_flight),
        seconds: args.stretch.seconds,
        warmup_seconds: args.stretch.warmup,
    };
    let mut result = LoadReport::new(&args.crowd, offered, &crowd, load, stretch);
    if let Some(raw) = raw {
        result.compare(raw);
    }
    crowd.fleet.close().await;
    result.print(args.crowd.target.json.as_deref(), args.plot.as_deref())
}

/// Sends whenever something is over, until the end. What is sent from `warmup` on is measured.
async fn keep_in_flight(crowd: &Crowd, load: &Load, warmup: Duration, end: Duration) -> anyhow::Result<()> {
    let in_flight = load.in_flight.as_ref().context("the loop is closed")?;
    let mut sends = load.plan.sends();
    let end = TokioInstant::from_std(load.start + end);
    while let Ok(send) = timeout_at(end, in_flight.next(&load.plan, &mut sends)).await {
        let now = load.now();
        let number = load.ledger().begin(send, now, now >= warmup);
        ensure!(number < MESSAGES_MAX, "a run has at most {MESSAGES_MAX} messages");
        let sender = load.plan.sender(send);
        crowd.fleet.clients[sender as usize].send(number, send.chat);
    }
    Ok(())
}

/// Says what the time from `warmup` on took.
async fn watch(crowd: &Crowd, load: &Load, warmup: Duration, end: Duration) -> Stretch {
    each_second_until(load, load.start + warmup, &report).await;
    let before = Moment::now(&crowd.target, load);
    each_second_until(load, load.start + end, &report).await;
    Moment::now(&crowd.target, load).since(&before)
}
