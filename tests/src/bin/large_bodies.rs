//! From which size on it pays to store a body once: entries in n inboxes, whole, against one body, n references and their list
//! (adr/0026). All of their life is measured: stored, read by each client, confirmed, and the body removed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::HeaderMap;
use bytes::Bytes;
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tidings_nats::setup::{self, SetupOptions};
use tidings_nats::{
    BODIES, BodyEntries, Bus, Entry, Event, Inbox, InboxEntry, Message, Partition, Reference, Shard,
    Topology, body_entries_subject, body_headers, body_subject, event_headers, inbox_stream, inbox_subject,
};
use tidings_protocol::{ChatId, ClientId, MessageId, Timestamp, UserId};
use tidings_service::{NatsConnection, NatsSettings};
use tidings_stack::NatsServer;
use tidings_tests::system_of_one::parent_and_cpu;
use tokio::sync::OnceCell;
use uuid::Uuid;

/// For one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Of the events. Which one makes no difference.
const PARTITION: Partition = Partition(0);
/// Requests under way.
const UNDER_WAY: usize = 64;
/// Of one reading, as a gateway reads.
const WINDOW: (u32, u32) = (256, 256 * 1024);

/// Measures what whole entries and references cost nats-server.
#[derive(Debug, Parser)]
#[command(name = "large-bodies", max_term_width = 110)]
struct Args {
    /// Entries of each measurement.
    #[arg(long, default_value_t = 3_000)]
    entries: usize,
    /// Inboxes that one event goes to.
    #[arg(long, value_delimiter = ',', default_values_t = [2, 10, 100])]
    inboxes: Vec<usize>,
    /// Bytes of a text.
    #[arg(long, value_delimiter = ',', default_values_t = [1_024, 2_048, 4_096, 8_192, 16_384, 65_536])]
    sizes: Vec<usize>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match measure(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    tidings_service::start::install_crypto_provider();
    println!("CPU of nats-server and bytes of streams, an entry; whole / by reference");
    println!("inboxes   text B   store us        read us         confirm us      all us          stored B");
    for &inboxes in &args.inboxes {
        for &size in &args.sizes {
            let events = (args.entries / inboxes).max(1);
            let whole = Scene::start(inboxes).await?.run(events, size, false).await?;
            let once = Scene::start(inboxes).await?.run(events, size, true).await?;
            let pair = |of: fn(&Cost) -> f64| format!("{:>6.0} /{:>6.0}", of(&whole), of(&once));
            println!(
                "{inboxes:>7} {size:>8}   {}  {}  {}  {}  {}",
                pair(|cost| cost.store),
                pair(|cost| cost.read),
                pair(|cost| cost.confirm),
                pair(|cost| cost.store + cost.read + cost.confirm),
                pair(|cost| cost.bytes),
            );
        }
    }
    Ok(())
}

/// Of one entry: microseconds of CPU, and bytes.
struct Cost {
    store: f64,
    read: f64,
    confirm: f64,
    bytes: f64,
}

/// A server of its own, and who gets everything.
struct Scene {
    server: NatsServer,
    bus: Bus,
    _connection: NatsConnection,
    topology: Topology,
    people: Vec<(UserId, ClientId)>,
    /// What is found gone in one round.
    gone: Mutex<HashMap<Shard, BTreeMap<u64, u64>>>,
    /// One a shard, as in one round of an inbox worker.
    barriers: Vec<OnceCell<u64>>,
}

impl Scene {
    async fn start(inboxes: usize) -> anyhow::Result<Self> {
        let server = NatsServer::start_temp().await?;
        let settings = NatsSettings::parse(&server.url())?;
        let connection = NatsConnection::connect(&settings, "large-bodies").await?;
        let bus = Bus::new(connection.client().clone());
        setup::apply(&bus, &SetupOptions::default(), false).await?;
        let person = |number| Ok((UserId::new(&format!("user-{number}"))?, ClientId(Uuid::new_v4())));
        let people: anyhow::Result<Vec<_>> = (0..inboxes).map(person).collect();
        Ok(Self {
            server,
            bus,
            _connection: connection,
            topology: Topology::default(),
            people: people?,
            gone: Mutex::default(),
            barriers: Topology::default().shards().map(|_| OnceCell::new()).collect(),
        })
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(parent_and_cpu(self.server.pid().context("it runs")?)?.1)
    }

    async fn run(self, events: usize, size: usize, once: bool) -> anyhow::Result<Cost> {
        let entries = (events * self.people.len()) as f64;
        let mut marks = vec![self.cpu()?];
        let lists = stream::iter(1..=events as u64).map(|seq| self.store(seq, size, once));
        let lists: Vec<_> = lists
            .buffer_unordered(1 + UNDER_WAY / self.people.len())
            .try_collect()
            .await?;
        marks.push(self.cpu()?);
        let summaries = self.bus.stream_summaries(TIMEOUT).await?;
        let bytes: u64 = summaries.iter().map(|stream| stream.bytes).sum();
        let mut fetched = HashSet::new();
        for (user_id, client_id) in &self.people {
            self.read(user_id, *client_id, &mut fetched).await?;
        }
        marks.push(self.cpu()?);
        let all = lists.iter().flat_map(|(list, _)| &list.entries);
        let deletions =
            stream::iter(all).map(|(shard, sequence)| self.delete(inbox_stream(*shard), *sequence));
        deletions
            .buffer_unordered(UNDER_WAY)
            .try_collect::<Vec<()>>()
            .await?;
        if once {
            let removals = stream::iter(&lists).map(|(list, at)| self.remove(list, *at));
            removals.buffer_unordered(16).try_collect::<Vec<()>>().await?;
        }
        marks.push(self.cpu()?);
        let [store, read, confirm] = [0, 1, 2]
            .map(|phase| marks[phase + 1].saturating_sub(marks[phase]).as_secs_f64() * 1e6 / entries);
        let bytes = bytes as f64 / entries;
        Ok(Cost {
            store,
            read,
            confirm,
            bytes,
        })
    }

    /// As a fan-out worker does. Says where the entries are, and where that list is.
    async fn store(&self, seq: u64, size: usize, once: bool) -> anyhow::Result<(BodyEntries, u64)> {
        let event = Event::Message(Message {
            chat_id: ChatId(Uuid::from_u128(1)),
            message_id: MessageId(Uuid::from_u128(seq.into())),
            user_id: UserId::new("sender")?,
            client_id: ClientId(Uuid::from_u128(2)),
            sent_at: Timestamp(1_795_577_629_123),
            message: "x".repeat(size),
            attachments: Vec::new(),
        });
        let entry = Entry { seq, event };
        let (mut body, mut payload) = (0, entry.encode());
        if once {
            body = self
                .publish(
                    body_subject(PARTITION),
                    body_headers(&entry.event),
                    payload.clone(),
                )
                .await?;
            payload = Reference::new(seq, &entry.event, body, payload.len()).encode();
        }
        let publishes = self.people.iter().map(async |(user_id, client_id)| {
            let headers = event_headers(&entry.event, &Entry::message_id(seq, &client_id.to_string()));
            let subject = inbox_subject(&self.topology, user_id, Inbox::Client(*client_id));
            let sequence = self.publish(subject, headers, payload.clone()).await?;
            anyhow::Ok((self.topology.shard(user_id), sequence))
        });
        let mut entries: Vec<(Shard, u64)> = futures::future::try_join_all(publishes).await?;
        entries.sort_unstable();
        let list = BodyEntries { seq, body, entries };
        let at = if once {
            self.publish(body_entries_subject(PARTITION), HeaderMap::new(), list.encode())
                .await?
        } else {
            0
        };
        Ok((list, at))
    }

    async fn publish(&self, subject: String, headers: HeaderMap, payload: Bytes) -> anyhow::Result<u64> {
        Ok(self
            .bus
            .publish(subject, headers, payload, TIMEOUT)
            .await?
            .sequence)
    }

    /// As a gateway does that keeps what it has fetched.
    async fn read(
        &self,
        user_id: &UserId,
        client_id: ClientId,
        fetched: &mut HashSet<u64>,
    ) -> anyhow::Result<()> {
        let stream = inbox_stream(self.topology.shard(user_id));
        let subject = inbox_subject(&self.topology, user_id, Inbox::Client(client_id));
        let (mut from, (batch, bytes)) = (1, WINDOW);
        loop {
            let (messages, more) = self
                .bus
                .next_by_subject(&stream, &subject, from, batch, bytes, TIMEOUT)
                .await?;
            for message in messages {
                from = message.sequence + 1;
                if let InboxEntry::Reference(reference) = InboxEntry::decode(&message.payload)?
                    && fetched.insert(reference.to.body)
                {
                    let body = self.bus.message_at(BODIES, reference.to.body, TIMEOUT).await?;
                    reference.follow(&body.context("the body is there")?.payload)?;
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn delete(&self, stream: String, sequence: u64) -> anyhow::Result<()> {
        Ok(self.bus.delete_message(&stream, sequence, TIMEOUT).await?)
    }

    /// As an inbox worker does.
    async fn remove(&self, list: &BodyEntries, at: u64) -> anyhow::Result<()> {
        self.bus.message_at(BODIES, at, TIMEOUT).await?;
        for &(shard, sequence) in &list.entries {
            let is_gone = |gone: &BTreeMap<u64, u64>| {
                gone.range(..=sequence)
                    .next_back()
                    .is_some_and(|(_, until)| *until > sequence)
            };
            if self.gone.lock().get(&shard).is_some_and(is_gone) {
                continue;
            }
            let (stream, all) = (inbox_stream(shard), format!("inbox.{shard}.>"));
            let mut found = self.bus.first_from(&stream, &all, sequence, TIMEOUT).await?;
            if found.is_none() {
                let barrier = &self.barriers[usize::from(shard.0)];
                barrier
                    .get_or_try_init(|| self.bus.barrier(&stream, TIMEOUT))
                    .await?;
                found = self.bus.first_from(&stream, &all, sequence, TIMEOUT).await?;
            }
            let found = found.context("the barrier is there")?.sequence;
            let mut gone = self.gone.lock();
            gone.entry(shard).or_default().insert(sequence, found);
        }
        self.delete(BODIES.to_owned(), list.body).await?;
        self.delete(BODIES.to_owned(), at).await
    }
}
