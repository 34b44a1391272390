//! `tidings bench offline`: messages for clients that are away, and then all of them come back at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::client::Client;
use super::crowd::{Crowd, CrowdArgs};
use super::in_flight::{InFlight, Until};
use super::ledger::MESSAGES_MAX;
use super::observed::{Load, read};
use super::offline_report::{Drained, OfflineOptions, OfflineReport, Storage, Storing, Waiting};
use super::outcome::Outcome;
use super::plan::{Plan, Send};
use super::progress::wait_for_the_unexpected;
use super::say;
use super::streams::{Held, Streams};
use super::stretch::Moment;

/// What an inbox holds at most (`nats/definitions/inbox.json`).
const INBOX_ENTRIES_MAX: u64 = 20_000;
/// What waits for each client, where nothing else is asked for.
const ENTRIES: u64 = 20;
/// Events of one chat that may wait to be handed on, on average: the system refuses further ones at 500.
const OF_CHAT_UNDER_WAY: u64 = 100;
/// For what an earlier run has left, or this one's preparations.
const REST_PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks at what is under way.
const BACKLOG_INTERVAL: Duration = Duration::from_millis(50);
/// Between two looks at a number of this process.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Between two reports to whoever waits.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// JetStream writes what it has acknowledged to its files in the background.
const FILES_REST: Duration = Duration::from_secs(2);
/// With `--single`: chats of the one client, so that its messages are not handed on one by one.
const SINGLE_CHATS: u32 = 64;

/// Stores messages for clients that are away, and lets all of them come back at once.
///
/// The --clients register, hear of their chats and leave. A few others send, as fast as they are answered, to chats of
/// one of them and --members less one who are away. Entries are counted where they are stored: storing is over when
/// the streams of inboxes hold all of them and nothing is left to be handed on. Then all come back at once, or
/// `--connecting` at a time; draining is over when the last of them is confirmed. `caught up` is from a client's first
/// try to connect until it has everything. Needs the folder of `tidings up`: for its NATS user `operator`, and to
/// measure the files of NATS.
#[derive(Debug, clap::Args)]
pub(crate) struct OfflineArgs {
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,

    /// How many entries wait for each client, at least. [default: 20]
    ///
    /// All are in about as many chats, and each chat gets as many messages.
    #[arg(long, value_name = "N", conflicts_with = "messages", value_parser = clap::value_parser!(u64).range(1..=INBOX_ENTRIES_MAX))]
    entries: Option<u64>,

    /// Instead: how many messages are sent in all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..MESSAGES_MAX as u64))]
    messages: Option<u64>,

    /// How many users send, each with a client that is always online.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    senders: u32,

    /// How many messages are not answered yet at the same time. A client has at most 64.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,

    /// One user is away, with 20,000 entries from 64 chats of two, if nothing says another number.
    #[arg(long, conflicts_with_all = ["clients", "chats", "members"])]
    single: bool,

    /// Nobody comes back: what is stored stays, for another run beside it.
    ///
    /// That one needs a --prefix of its own.
    #[arg(long)]
    stay_away: bool,
}

pub(crate) async fn run(mut args: OfflineArgs) -> anyhow::Result<()> {
    if args.single {
        args.crowd.clients = args.crowd.target.devices;
        (args.crowd.chats, args.crowd.members) = (SINGLE_CHATS, 2);
    }
    args.crowd.check()?;
    let plan = Plan::with_senders(&args.crowd.shape(), args.senders)?;
    let messages = args.messages(&plan)?;
    let waiting = Waiting::of(&plan, args.senders, messages);
    ensure!(
        waiting.most <= INBOX_ENTRIES_MAX,
        "that is {} entries for one client, and an inbox holds {INBOX_ENTRIES_MAX}",
        waiting.most
    );
    let streams = Streams::open(&args.crowd.target).await?;
    let crowd = args.crowd.gather(plan).await?;
    let first_absent = args.senders * args.crowd.target.devices;
    say("waiting until nothing is under way any more");
    // What tells of the new chats is confirmed before anybody leaves: it would come back with what is stored for them.
    streams.come_to_rest(REST_PATIENCE).await?;
    crowd.fleet.leave(first_absent).await?;
    let held = streams.come_to_rest(REST_PATIENCE).await?;
    let before = streams.stored().await?;

    let in_flight = InFlight::new(args.in_flight as usize, first_absent as usize, Until::Answered);
    let load = crowd.begin(Instant::now(), Some(in_flight));
    let offline = Offline {
        crowd: &crowd,
        load,
        streams: &streams,
        held,
        absent: &crowd.fleet.clients[first_absent as usize..],
        messages,
    };
    let store = offline.store().await?;
    tokio::time::sleep(FILES_REST).await;
    let stored = streams.stored().await?;
    let (mut drain, mut drained) = (None, None);
    if !args.stay_away {
        drain = Some(offline.drain().await?);
        wait_for_the_unexpected().await;
        drained = Some(streams.stored().await?);
    }
    let mut outcome = Outcome::of(&crowd, load);
    if drain.is_none() {
        outcome.left_waiting(store.entries);
    }
    let report = OfflineReport {
        options: OfflineOptions::new(&args.crowd, args.senders, args.in_flight),
        waiting,
        storage: Storage::new(before, stored, drained, store.entries),
        store,
        drain,
        outcome,
    };
    crowd.fleet.close().await;
    report.print(args.crowd.target.json.as_deref())
}

impl OfflineArgs {
    /// How many are sent.
    fn messages(&self, plan: &Plan) -> anyhow::Result<u64> {
        if let Some(messages) = self.messages {
            return Ok(messages);
        }
        let default = if self.single { INBOX_ENTRIES_MAX } else { ENTRIES };
        // One round is a message in each chat.
        let round = Waiting::of(plan, self.senders, plan.chats.len() as u64);
        ensure!(
            round.fewest > 0,
            "with so few --chats of {} there are clients in none",
            plan.members
        );
        let entries = self.entries.unwrap_or(default);
        // Whoever is in all chats needs no whole round more.
        let chats = plan.chats.len() as u64;
        let messages = if round.fewest == chats {
            entries
        } else {
            entries.div_ceil(round.fewest) * chats
        };
        ensure!(
            messages < MESSAGES_MAX as u64,
            "that is {messages} messages, and a run has at most {MESSAGES_MAX}"
        );
        Ok(messages)
    }
}

/// What both halves of a run work on.
struct Offline<'a> {
    crowd: &'a Crowd,
    load: &'a Load,
    streams: &'a Streams,
    /// What inboxes held before.
    held: Held,
    /// Clients that are away.
    absent: &'a [Client],
    messages: u64,
}

impl Offline<'_> {
    /// Sends everything, and waits until it is stored.
    async fn store(&self) -> anyhow::Result<Storing> {
        let (before, began) = (Moment::now(&self.crowd.target, self.load), Instant::now());
        let under_way = AtomicU64::new(0);
        tokio::select! {
            sent = self.send(&under_way) => sent?,
            failed = self.watch(&under_way) => failed?,
        }
        let patience = Instant::now();
        while self.load.ledger().so_far().0 < self.messages {
            ensure!(
                patience.elapsed() < self.crowd.patience && self.crowd.fleet.observed.losses() == 0,
                "messages are not answered"
            );
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.streams.wait_for_fan_out(self.crowd.patience).await?;
        let entries = self.load.ledger().tally().accepted * self.copies();
        let all = self.held.entries + entries;
        let stored = self.streams.wait_for_entries(all, self.crowd.patience).await?;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(
            stored,
            "inboxes do not hold the {all} entries that they should: somebody else uses the system"
        );
        say(&format!("{entries} entries stored ({seconds:.1} s)"));
        let interval = Moment::now(&self.crowd.target, self.load).since(&before).interval;
        let measured = self.load.ledger().take_measured();
        Ok(Storing {
            messages: self.messages,
            entries,
            seconds,
            entries_per_second: entries as f64 / seconds,
            accept: measured.accept.percentiles(),
            interval,
        })
    }

    /// Copies of a message for clients that are away.
    fn copies(&self) -> u64 {
        u64::from((self.load.plan.members - 1) * self.load.plan.devices)
    }

    /// One message after the other to one chat after the other.
    async fn send(&self, under_way: &AtomicU64) -> anyhow::Result<()> {
        let plan = &self.load.plan;
        let in_flight = self.load.in_flight.as_ref().context("the loop is closed")?;
        let chats = plan.chats.len() as u64;
        for message in 0..self.messages {
            while under_way.load(Ordering::Relaxed) > OF_CHAT_UNDER_WAY * chats {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            let send = Send {
                chat: (message % chats) as u32,
                // The first client of the first member, who is the sender.
                position: 0,
            };
            in_flight.begin(plan, send).await;
            let number = self.load.ledger().begin(send, self.load.now(), true);
            self.crowd.fleet.clients[plan.sender(send) as usize].send(number, send.chat);
        }
        Ok(())
    }

    /// Keeps in mind how much is under way, and says it.
    async fn watch(&self, under_way: &AtomicU64) -> anyhow::Result<()> {
        let mut reported = Instant::now();
        loop {
            tokio::time::sleep(BACKLOG_INTERVAL).await;
            let now = self.streams.under_way().await?;
            under_way.store(now, Ordering::Relaxed);
            if reported.elapsed() > REPORT_INTERVAL {
                reported = Instant::now();
                let answered = self.load.ledger().so_far().0;
                say(&format!(
                    "answered {answered} of {}, {now} of them not in their inboxes yet",
                    self.messages
                ));
            }
        }
    }

    /// Lets everybody come back, and waits until nothing is left.
    async fn drain(&self) -> anyhow::Result<Drained> {
        let observed = &self.crowd.fleet.observed;
        let (before, began) = (Moment::now(&self.crowd.target, self.load), Instant::now());
        self.absent.iter().for_each(Client::come_back);
        let (mut reported, mut received, mut confirmed) = (began, None, None);
        let (mut last, mut moved) = (0, began);
        while confirmed.is_none() && moved.elapsed() < self.crowd.patience {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let (complete, came) = {
                let ledger = self.load.ledger();
                (ledger.is_complete(), ledger.came())
            };
            if came > last {
                (last, moved) = (came, Instant::now());
            }
            let back = observed.returns().count;
            if complete && received.is_none() {
                received = Some(began.elapsed().as_secs_f64());
            }
            if complete && back == self.absent.len() as u64 && observed.unconfirmed() == 0 {
                confirmed = Some(began.elapsed().as_secs_f64());
            }
            if reported.elapsed() > REPORT_INTERVAL {
                reported = Instant::now();
                say(&format!(
                    "{back} of {} clients caught up, {came} entries delivered",
                    self.absent.len()
                ));
            }
        }
        let stretch = Moment::now(&self.crowd.target, self.load).since(&before);
        let deleted = self
            .streams
            .wait_for_entries(self.held.entries, self.crowd.patience)
            .await?;
        let deleted = deleted.then(|| began.elapsed().as_secs_f64());
        Ok(Drained {
            entries: stretch.deliveries,
            received_seconds: received,
            seconds: confirmed,
            deleted_seconds: deleted,
            entries_per_second: confirmed.map(|seconds| stretch.deliveries as f64 / seconds),
            caught_up: observed.returns(),
            absent: self.absent.len() as u64,
            sent_away: read(&observed.sent_away),
            interval: stretch.interval,
        })
    }
}
