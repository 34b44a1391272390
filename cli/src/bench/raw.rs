//! `tidings bench raw`: what the machine's own JetStream takes. Each entry of the load is stored in a twin of its
//! inbox's stream and deleted again by its sequence, as fan-out workers and gateways do, and nothing else: no chats, no
//! consumers, no clients. A window of entries is under way; requests have no futures and timers of their own, so that
//! this side costs as little as it can.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_nats::{Client, HeaderMap, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tidings_nats::{
    Accepted, Entry, Event, Inbox, Message, NatsUser, Shard, Topology, event_headers, inbox_subject,
};
use tidings_protocol::{ChatId, ClientId, UserId};
use tidings_service::{NatsConnection, clock};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::crowd::{CrowdArgs, body, seconds};
use super::observed::{count, read};
use super::plan::{Plan, Run, Send};
use super::processes::{Interval, Sample};
use super::report::write_json;
use super::say;
use super::target::Target;
use super::twins::{Twins, stream_name, twin_subject};

/// Before anything is measured.
const WARMUP: Duration = Duration::from_secs(2);
/// Between two lines of progress, and two looks whether anything moves.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Without a single answer.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Between the deletion of the streams and whatever is measured next: servers remove files in the background.
const REST: Duration = Duration::from_secs(2);

/// Measures the machine's own limit: entries that JetStream stores and deletes again, and nothing else.
///
/// Before that, for as long, entries that are stored and stay, so that what deletion takes is known.
///
/// The entries are those of `tidings bench max` with the same options, of the same sizes, in streams of the same
/// configuration as the inboxes', which are made for it and deleted afterwards. Nobody is connected, and what users
/// have is not touched. Needs the folder of `tidings up`, for its NATS user `admin`.
#[derive(Debug, clap::Args)]
pub(crate) struct RawArgs {
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,

    #[command(flatten)]
    extent: Extent,
}

/// How much of it. Also options of `tidings bench max`.
#[derive(Copy, Clone, Debug, clap::Args)]
pub(crate) struct Extent {
    /// How many raw entries are under way at the same time, from being published to being deleted.
    // JetStream drops all requests that wait, deletions too, when they are 10,000.
    #[arg(long, default_value_t = 2048, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8_000))]
    raw_window: u32,

    /// For how long raw JetStream is measured.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    raw_seconds: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawReport {
    /// Stored and deleted again.
    #[serde(flatten)]
    pub(crate) whole: Part,
    /// Stored, and nothing else.
    stored_only: Part,
    /// An entry's headers and payload.
    entry_bytes: usize,
    window: u32,
}

/// What was done to entries in a measured time, and what it took.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Part {
    pub(crate) entries_per_second: f64,
    /// In the measured time.
    entries: u64,
    /// CPU time of all nats-servers.
    nats_microseconds_per_entry: f64,
    interval: Interval,
}

/// The report of the command.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    raw: RawReport,
}

pub(crate) async fn run(args: RawArgs) -> anyhow::Result<()> {
    let plan = args.crowd.plan()?;
    let report = Report {
        raw: measure(&args.crowd, &plan, args.extent).await?,
    };
    print!("{}", report.raw.table());
    match &args.crowd.target.json {
        Some(path) => write_json(path, &report),
        None => Ok(()),
    }
}

/// Measures the entries of a plan.
pub(crate) async fn measure(args: &CrowdArgs, plan: &Plan, extent: Extent) -> anyhow::Result<RawReport> {
    let window = extent.raw_window;
    let measured = seconds("--raw-seconds", extent.raw_seconds)?;
    let target = Target::open(&args.target)?;
    let settings = args.target.up()?.nats_settings(NatsUser::Admin)?;
    // As in a system: who stores is not who deletes.
    let storing = NatsConnection::connect(&settings, "bench raw, storing").await?;
    let deleting = NatsConnection::connect(&settings, "bench raw, deleting").await?;
    let (mut parts, mut entry_bytes) = (Vec::new(), 0);
    for deletes in [false, true] {
        let twins = Twins::make(storing.bus()).await?;
        let load = RawLoad {
            entries: Entries::new(plan, &target, twins.topology(), body(args.body_bytes, args.seed))?,
            deletes,
            free: Arc::new(Semaphore::new(window as usize)),
            done: AtomicU64::new(0),
        };
        let result = tokio::select! {
            error = load.work(storing.client(), deleting.client()) => Err(error),
            result = load.watch(&target, measured) => result,
        };
        twins.delete().await?;
        tokio::time::sleep(REST).await;
        let (interval, entries) = result?;
        parts.push(Part::new(interval, entries));
        entry_bytes = load.entries.bytes();
    }
    let [stored_only, whole] = <[Part; 2]>::try_from(parts).expect("two were measured");
    Ok(RawReport {
        whole,
        stored_only,
        entry_bytes,
        window,
    })
}

impl Part {
    fn new(interval: Interval, entries: u64) -> Self {
        let nats = interval
            .servers
            .iter()
            .filter(|spent| spent.name.starts_with("nats"));
        let nats_seconds: f64 = nats.map(|spent| spent.cpu_seconds).sum();
        Self {
            entries_per_second: entries as f64 / interval.seconds,
            entries,
            nats_microseconds_per_entry: nats_seconds * 1e6 / entries.max(1) as f64,
            interval,
        }
    }
}

/// What the tasks of a measurement share.
struct RawLoad {
    entries: Entries,
    /// Whether entries are deleted again.
    deletes: bool,
    free: Arc<Semaphore>,
    /// Entries with which everything is done.
    done: AtomicU64,
}

impl RawLoad {
    /// Until something fails, which it gives.
    async fn work(&self, storing: &Client, deleting: &Client) -> anyhow::Error {
        let result = async {
            let (stored, deleted) = (storing.new_inbox(), deleting.new_inbox());
            let acks = storing.subscribe(format!("{stored}.*")).await?;
            let answers = deleting.subscribe(deleted.clone()).await?;
            tokio::try_join!(
                self.store(storing, &stored),
                self.go_on(deleting, acks, &deleted),
                self.finish(answers),
            )?;
            anyhow::Ok(())
        };
        match result.await {
            Ok(()) => anyhow::anyhow!("the connection has ended"),
            Err(error) => error,
        }
    }

    /// Publishes one entry after another, as far as the window allows.
    async fn store(&self, client: &Client, reply: &str) -> anyhow::Result<()> {
        let mut sends = self.entries.plan.sends();
        for seq in 1.. {
            for entry in self.entries.of_message(seq, sends.draw())? {
                self.free.acquire().await?.forget();
                let reply = format!("{reply}.{}", entry.shard.0);
                client
                    .publish_with_reply_and_headers(entry.subject, reply, entry.headers, entry.payload)
                    .await?;
            }
        }
        Ok(())
    }

    /// Deletes what an ack says is stored, if that is wanted.
    async fn go_on(&self, client: &Client, mut acks: Subscriber, reply: &str) -> anyhow::Result<()> {
        while let Some(ack) = acks.next().await {
            let shard = ack
                .subject
                .rsplit('.')
                .next()
                .and_then(|shard| shard.parse().ok());
            let shard = Shard(shard.context("an ack on a wrong subject")?);
            let accepted = serde_json::from_slice::<Accepted>(&ack.payload);
            let sequence = accepted.map_or(0, |accepted| accepted.sequence);
            ensure!(sequence > 0, "an entry was not stored: {}", text(&ack.payload));
            if !self.deletes {
                self.end_one();
                continue;
            }
            let subject = format!("$JS.API.STREAM.MSG.DELETE.{}", stream_name(shard));
            let request = format!(r#"{{"seq":{sequence},"no_erase":true}}"#);
            client
                .publish_with_reply(subject, reply.to_owned(), request.into())
                .await?;
        }
        Ok(())
    }

    /// Counts what is deleted.
    async fn finish(&self, mut answers: Subscriber) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            success: bool,
        }
        while let Some(answer) = answers.next().await {
            let done = serde_json::from_slice::<Answer>(&answer.payload);
            let done = done.is_ok_and(|answer| answer.success);
            ensure!(done, "an entry was not deleted: {}", text(&answer.payload));
            self.end_one();
        }
        Ok(())
    }

    fn end_one(&self) {
        count(&self.done);
        self.free.add_permits(1);
    }

    /// Says what was used and done in the measured time, and how it goes until then.
    async fn watch(&self, target: &Target, measured: Duration) -> anyhow::Result<(Interval, u64)> {
        let now = || (Sample::take(&target.processes), read(&self.done));
        self.report_until(Instant::now() + WARMUP).await?;
        let (before, done_before) = now();
        self.report_until(Instant::now() + measured).await?;
        let (after, done) = now();
        Ok((after.since(&before), done - done_before))
    }

    async fn report_until(&self, end: Instant) -> anyhow::Result<()> {
        let (mut last, mut moved) = (read(&self.done), Instant::now());
        let what = if self.deletes {
            "stored and deleted"
        } else {
            "stored"
        };
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            tokio::time::sleep(left.min(REPORT_INTERVAL)).await;
            let done = read(&self.done);
            if done > last {
                say(&format!("raw: {done} entries {what}"));
                (last, moved) = (done, Instant::now());
            } else if moved.elapsed() > SILENCE_MAX {
                bail!("NATS has answered nothing for {} s", SILENCE_MAX.as_secs());
            }
        }
        Ok(())
    }
}

/// An answer, which has nothing of users.
fn text(payload: &Bytes) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

/// The entries of messages, as a fan-out worker makes them.
struct Entries {
    plan: Plan,
    topology: Topology,
    clients: Vec<(UserId, ClientId)>,
    chat_ids: Vec<ChatId>,
    run: Run,
    body: String,
}

/// One.
struct RawEntry {
    shard: Shard,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

impl Entries {
    fn new(plan: &Plan, target: &Target, topology: Topology, body: String) -> anyhow::Result<Self> {
        let last = plan.chats.iter().flatten().max().copied().unwrap_or(0);
        let clients = (0..(last + 1) * plan.devices).map(|index| target.client(index));
        Ok(Self {
            clients: clients.collect::<anyhow::Result<_>>()?,
            chat_ids: plan.chats.iter().map(|_| ChatId(Uuid::now_v7())).collect(),
            plan: plan.clone(),
            topology,
            run: Run::new(),
            body,
        })
    }

    /// Those of a message, one for each client of its chat but the sender.
    fn of_message(&self, seq: u64, send: Send) -> anyhow::Result<impl Iterator<Item = RawEntry>> {
        let sender = self.plan.sender(send);
        let (user_id, client_id) = &self.clients[sender as usize];
        let event = Event::Message(Message {
            chat_id: self.chat_ids[send.chat as usize],
            message_id: self.run.message_id(seq as usize),
            user_id: user_id.clone(),
            client_id: *client_id,
            sent_at: clock::now(),
            message: self.body.clone(),
            attachments: Vec::new(),
        });
        let payload = Entry::encode_around(seq, &event.encode())?;
        let devices = self.plan.devices;
        let members = self.plan.chats[send.chat as usize].iter();
        let clients = members.flat_map(move |member| member * devices..(member + 1) * devices);
        let recipients = clients.filter(move |client| *client != sender);
        Ok(recipients.map(move |client| {
            let (user_id, client_id) = &self.clients[client as usize];
            let subject = inbox_subject(&self.topology, user_id, Inbox::Client(*client_id));
            RawEntry {
                shard: self.topology.shard(user_id),
                subject: twin_subject(&subject),
                headers: event_headers(&event, &Entry::message_id(seq, &client_id.to_string())),
                payload: payload.clone(),
            }
        }))
    }

    /// How large one is: headers and payload as they are stored.
    fn bytes(&self) -> usize {
        const FRAME: usize = "NATS/1.0\r\n\r\n".len();
        const SEPARATORS: usize = ": \r\n".len();
        let first = self.of_message(1, self.plan.sends().draw());
        let Some(entry) = first.ok().and_then(|mut entries| entries.next()) else {
            return 0;
        };
        let headers = entry.headers.iter().flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values
                .iter()
                .map(move |value| name.len() + value.as_str().len() + SEPARATORS)
        });
        FRAME + headers.sum::<usize>() + entry.payload.len()
    }
}

impl RawReport {
    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let Self {
            whole, stored_only, ..
        } = self;
        let [all, storing] = [whole, stored_only].map(|part| part.nats_microseconds_per_entry);
        let _ = writeln!(
            out,
            "raw JetStream: {:.0} entries/s of {} bytes stored and deleted, {} under way; nats-server {all:.1} us/entry\n\
             stored only:   {:.0} entries/s; nats-server {storing:.1} us/entry, so deletion takes {:.0} % of the {all:.1}",
            whole.entries_per_second,
            self.entry_bytes,
            self.window,
            stored_only.entries_per_second,
            (1.0 - storing / all) * 100.0,
        );
        whole
            .interval
            .write_table(&mut out, Some((whole.entries, "entry")));
        out
    }
}
