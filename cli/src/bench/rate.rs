//! `tidings bench rate`: messages at a fixed rate, whatever becomes of them (open loop). Latency counts from when a
//! message was *due*, so that a system that stalls cannot hide it by slowing the load generator down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tidings_protocol::{ChatId, CreateChat, MESSAGE_BYTES_MAX, RequestId};
use tokio::time::{Instant as TokioInstant, sleep_until};
use uuid::Uuid;

use super::fleet::{Fleet, request};
use super::observed::{Load, Observed, read};
use super::plan::{Plan, Run, Shape};
use super::processes::{Interval, Sample};
use super::report::{Options, RateReport};
use super::say;
use super::target::{Target, TargetArgs};

/// Chats that are made at the same time.
const CREATING: usize = 32;
/// For every member of every chat to hear of it.
const CHATS_PATIENCE: Duration = Duration::from_mins(1);
/// Between the end of the preparations and the first message.
const HEAD_START: Duration = Duration::from_millis(200);
/// After the last expected copy: a second copy of something would come about now.
const AFTERMATH: Duration = Duration::from_secs(2);
/// Between two lines of progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks whether everything has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Sends at a fixed rate, and measures until every recipient has every message.
///
/// Latency is measured from when a message was due, not from when it was sent: `accept` to the sender's reply,
/// `delivery` to each recipient's socket. `lag` is how late the load generator itself was.
#[derive(Debug, clap::Args)]
pub(crate) struct RateArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// How many clients are online, each of another user.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    clients: u32,

    /// How many chats there are among them.
    #[arg(long, default_value_t = 300, value_name = "N")]
    chats: u32,

    /// How many members each chat has, 2 to 100.
    #[arg(long, default_value_t = 10, value_name = "N")]
    members: u32,

    /// Messages a second, in all chats together.
    #[arg(long, default_value_t = 200.0, value_name = "PER_SECOND")]
    rate: f64,

    /// For how long is measured.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    seconds: f64,

    /// For how long the same is sent before that.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    warmup: f64,

    /// The size of each message.
    #[arg(long, default_value_t = 200, value_name = "BYTES")]
    body_bytes: usize,

    /// Who is in which chat and who sends when; the same seed is the same load.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// How long to wait for what is missing at the end.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    patience: f64,
}

pub(crate) async fn run(args: RateArgs) -> anyhow::Result<()> {
    let plan = Arc::new(Plan::new(&args.shape()?)?);
    ensure!(
        (1..=MESSAGE_BYTES_MAX).contains(&args.body_bytes),
        "--body-bytes must be 1 to {MESSAGE_BYTES_MAX}"
    );
    let patience = seconds("--patience", args.patience)?;
    let target = Target::open(&args.target)?;
    let run = Run::new();
    let mut fleet = Fleet::new();
    fleet.grow(&target, args.clients).await?;
    let chat_ids = create_chats(&fleet, &target, &plan, run).await?;
    let start = Instant::now() + HEAD_START;
    let body = body(args.body_bytes, args.seed);
    let load = Load::new(run, Arc::clone(&plan), chat_ids, body, start);
    fleet.observed.begin(load);

    let interval = measure(&fleet, &target, &plan, start).await;
    wait_for_the_rest(&fleet.observed, patience).await;
    tokio::time::sleep(AFTERMATH).await;
    let report = report(&args, &plan, &fleet.observed, interval);
    fleet.close().await;

    print!("{}", report.table());
    if let Some(path) = &args.target.json {
        let text = serde_json::to_vec_pretty(&report).context("a report is plain data")?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let faults = report.faults();
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    Ok(())
}

impl RateArgs {
    fn shape(&self) -> anyhow::Result<Shape> {
        Ok(Shape {
            clients: self.clients,
            chats: self.chats,
            members: self.members,
            rate: self.rate,
            warmup: seconds("--warmup", self.warmup)?,
            measured: seconds("--seconds", self.seconds)?,
            seed: self.seed,
        })
    }
}

fn seconds(option: &str, number: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(number).with_context(|| format!("{option} {number}"))
}

/// Printable, and the same in each run.
fn body(bytes: usize, seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..bytes)
        .map(|_| char::from(rng.random_range(b'a'..=b'z')))
        .collect()
}

/// Makes the chats of the plan and waits until every member of each has heard of it.
async fn create_chats(fleet: &Fleet, target: &Target, plan: &Plan, run: Run) -> anyhow::Result<Vec<ChatId>> {
    let began = Instant::now();
    let name = format!("bench {run}");
    fleet.observed.name_run(name.clone());
    let chat_ids = stream::iter(plan.chats.iter().enumerate())
        .map(|(index, members)| create_chat(fleet, target, index, members, &name))
        .buffered(CREATING)
        .try_collect::<Vec<_>>()
        .await
        .context("cannot make the chats")?;
    let all = plan.chats.iter().map(Vec::len).sum::<usize>() as u64;
    fleet
        .wait_for(
            "members that have heard of their chats",
            CHATS_PATIENCE,
            all,
            |observed| read(&observed.chat_updates),
        )
        .await?;
    let seconds = began.elapsed().as_secs_f64();
    say(&format!(
        "{} chats made and known to their members ({seconds:.1} s)",
        chat_ids.len()
    ));
    Ok(chat_ids)
}

async fn create_chat(
    fleet: &Fleet,
    target: &Target,
    index: usize,
    members: &[u32],
    name: &str,
) -> anyhow::Result<ChatId> {
    let [creator, others @ ..] = members else {
        bail!("a chat has members");
    };
    let others = others.iter().map(|client| target.user(*client));
    let create = CreateChat {
        // A client may make several at once.
        id: index as u64 + 1,
        request_id: RequestId(Uuid::new_v4()),
        participants: others.collect::<anyhow::Result<_>>()?,
        name: Some(name.to_owned()),
    };
    let reply = request(&fleet.clients[*creator as usize], || create.clone().into()).await?;
    reply.chat_id.context("the reply to createChat names no chat")
}

/// Sends everything at its time, and says what the measured part took.
async fn measure(fleet: &Fleet, target: &Target, plan: &Arc<Plan>, start: Instant) -> Interval {
    let (senders, sent) = (fleet.clients.clone(), Arc::clone(plan));
    // A thread of its own, since the runtime's timers only know milliseconds.
    let pacer = std::thread::spawn(move || {
        for number in 0..sent.sends.len() {
            let due = start + sent.due(number);
            let early = due.saturating_duration_since(Instant::now());
            if !early.is_zero() {
                std::thread::sleep(early);
            }
            senders[sent.sender(number) as usize].send(number);
        }
    });
    let at = |number| TokioInstant::from_std(start + plan.due(number));
    let began = at(plan.warmup);
    let ends = at(plan.sends.len());
    report_until(&fleet.observed, began).await;
    let before = Sample::take(&target.processes);
    report_until(&fleet.observed, ends).await;
    let interval = Sample::take(&target.processes).since(&before);
    // It has nothing left to wait for; a panic of its own has been printed.
    tokio::task::spawn_blocking(|| pacer.join()).await.ok();
    interval
}

async fn report_until(observed: &Observed, end: TokioInstant) {
    loop {
        let next = TokioInstant::now() + REPORT_INTERVAL;
        sleep_until(end.min(next)).await;
        if next >= end {
            return;
        }
        report_progress(observed);
    }
}

fn report_progress(observed: &Observed) {
    let Some(load) = observed.load() else { return };
    let (sent, (answered, expected), came, recent) = {
        let mut ledger = load.ledger();
        let recent = ledger.recent.percentiles();
        ledger.recent.clear();
        (ledger.sent_so_far(), ledger.so_far(), ledger.came(), recent)
    };
    say(&format!(
        "{:5.1} s  sent {sent}  answered {answered}  delivered {came} of {expected}  p50 {:.1} ms  p99 {:.1} ms",
        load.now().as_secs_f64(),
        recent.p50,
        recent.p99,
    ));
}

/// Until every message is answered and every copy is here, or patience ends.
async fn wait_for_the_rest(observed: &Observed, patience: Duration) {
    let Some(load) = observed.load() else { return };
    let began = Instant::now();
    let mut reported = began;
    while began.elapsed() < patience {
        if load.ledger().is_complete() {
            return;
        }
        if reported.elapsed() > REPORT_INTERVAL {
            reported = Instant::now();
            report_progress(observed);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn report(args: &RateArgs, plan: &Plan, observed: &Observed, interval: Interval) -> RateReport {
    let options = Options {
        codec: args.target.codec_name(),
        clients: args.clients,
        chats: args.chats,
        members: args.members,
        rate: args.rate,
        seconds: args.seconds,
        warmup_seconds: args.warmup,
        body_bytes: args.body_bytes,
        seed: args.seed,
    };
    let load = observed.load().expect("it has run");
    let ledger = load.ledger();
    RateReport {
        options,
        accept: ledger.accept.percentiles(),
        delivery: ledger.delivery.percentiles(),
        lag: ledger.lag.percentiles(),
        tally: ledger.tally(),
        measured_deliveries: ((plan.sends.len() - plan.warmup) * (args.members as usize - 1)) as u64,
        lost_connections: observed.losses() as u64,
        trimmed: read(&observed.trimmed),
        notices: read(&observed.notices),
        interval,
    }
}
