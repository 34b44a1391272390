//! What it costs nats-server that entries and events are deleted one by one, and what could take the place of that
//! (adr/0027): purges of runs, acks, other streams; and what batches save when entries are stored.
//!
//! Each case has a server of its own with streams of our own definitions, and nothing else runs. The cases of a group
//! take turns, and each is compared with the first of its group in the same round: other work on the machine falls on all
//! of them. No case removes what it does not know to be confirmed: purges must have removed exactly their runs.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tidings_nats::setup::{self, SetupOptions};
use tidings_nats::{
    Bus, DeliveryInfo, Entry, Event, Inbox, Message, Partition, Pull, Topology, chat_subject, durable_config,
    event_headers, inbox_stream, inbox_subject,
};
use tidings_protocol::{ChatId, ClientId, MessageId, Timestamp, UserId};
use tidings_service::{NatsConnection, NatsSettings};
use tidings_stack::{NatsCluster, NatsServer};
use tidings_tests::system_of_one::parent_and_cpu;
use uuid::Uuid;

/// For one request. A purge may scan tens of megabytes, behind others.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Deletions under way: as many as a gateway has of one shard.
const DELETIONS: usize = 64;
/// Publishes under way.
const PUBLISHES: usize = 256;
/// Batches under way, fewer than the 50 that a stream takes.
const BATCHES: usize = 8;
/// What people write.
const MESSAGE_BYTES: usize = 200;
/// Of a client that comes back to a full window.
const WAITING: usize = 256;
/// A client confirms so many at once in the case that others are compared with.
const CONFIRMED: usize = 64;
/// Clients of a shard of a system with 1,000 and with 10,000, where there are 32 shards.
const CLIENTS: [usize; 2] = [31, 310];
/// Chats of a system in which something is under way.
const CHATS: usize = 320;
/// Events of each.
const EVENTS: usize = 64;
/// Clients of the whole system, where streams are counted.
const ALL_CLIENTS: usize = 1_024;
/// What waits for each.
const EACH: usize = 32;

/// Measures what deleting costs nats-server.
#[derive(Debug, Parser)]
#[command(name = "deletions", max_term_width = 110)]
struct Args {
    /// How often each case is measured.
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// A case begins no deletion after so long.
    #[arg(long, default_value_t = 3, value_name = "N")]
    seconds: u64,
    /// Only groups whose name has this in it.
    #[arg(long, default_value = "", value_name = "TEXT")]
    only: String,
    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args).await {
        Ok(found) => {
            print(&found, args.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Some cases of which the first is what is done today.
struct Group {
    name: String,
    cases: Vec<Case>,
}

#[derive(Clone)]
struct Case {
    name: String,
    what: What,
    /// In the streams, as a system has them.
    durables: bool,
    store: Store,
    remove: Remove,
    /// Differs from our definition of the streams.
    stream: Value,
    /// One in so many removes what is its own, and the others are away.
    one_in: usize,
    /// 1, or 3.
    servers: usize,
}

/// What is stored.
#[derive(Copy, Clone)]
enum What {
    /// Entries of so many clients of each shard, in the first so many of so many shards.
    Entries {
        clients: usize,
        each: usize,
        shards: u16,
        of: u16,
    },
    /// Events in CHATS. Whoever removes them knows what is finished by chat, or by partition.
    Events { by_partition: bool },
}

#[derive(Copy, Clone)]
enum Store {
    OneByOne,
    /// Each to one stream; either all of it is stored or nothing.
    Atomic(usize),
    /// The same, one by one as far as the server is concerned.
    Fast(usize),
}

#[derive(Copy, Clone)]
enum Remove {
    Nothing,
    /// A deletion of what is gone: what the request costs by itself.
    Gone,
    /// `STREAM.MSG.DELETE`, in runs of one client.
    OneByOne(usize),
    /// `STREAM.PURGE` of a subject up to a sequence, for each run of so many.
    Purge(usize),
    /// Acks of a consumer of a work queue: of one for everything, or of one for each client or partition.
    Ack {
        consumers: Consumers,
    },
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Consumers {
    OneAStream,
    OneEach,
}

/// Of one entry, in one round.
#[derive(Copy, Clone, Debug, Default)]
struct Cost {
    /// Microseconds of nats-server's CPU.
    store: f64,
    remove: f64,
    /// A second.
    removed: f64,
    /// What the durables say waits, for each entry that is stored.
    told: f64,
}

fn case(name: &str, what: What, remove: Remove) -> Case {
    Case {
        name: name.to_owned(),
        what,
        durables: false,
        store: Store::OneByOne,
        remove,
        stream: json!({}),
        one_in: 1,
        servers: 1,
    }
}

fn groups() -> Vec<Group> {
    let mut groups = of_entries();
    groups.extend([of_three_servers(), of_events(), of_streams(), of_batches()]);
    groups
}

fn of_entries() -> Vec<Group> {
    let mut groups = Vec::new();
    for durables in [false, true] {
        for clients in CLIENTS {
            // So that there is as much to delete of few clients as the clock of a process is fine.
            let shards = if clients == CLIENTS[0] { 4 } else { 1 };
            let what = What::Entries {
                clients,
                each: WAITING,
                shards,
                of: 32,
            };
            let mut cases = vec![case("delete one by one", what, Remove::OneByOne(CONFIRMED))];
            cases.extend(
                [1, 4, 16, 64, 256]
                    .map(|run| case(&format!("purge runs of {run}"), what, Remove::Purge(run))),
            );
            if !durables {
                cases.push(case("a deletion of nothing", what, Remove::Gone));
            }
            for case in &mut cases {
                case.durables = durables;
            }
            if durables {
                for (name, remove) in [
                    ("delete one by one, a half is away", Remove::OneByOne(CONFIRMED)),
                    ("purge runs of 64, a half is away", Remove::Purge(64)),
                ] {
                    cases.push(Case {
                        one_in: 2,
                        durables,
                        ..case(name, what, remove)
                    });
                }
                for (name, consumers) in [
                    ("work queue, a consumer a client", Consumers::OneEach),
                    ("work queue, a consumer a shard", Consumers::OneAStream),
                ] {
                    let mut case = case(name, what, Remove::Ack { consumers });
                    case.stream = json!({ "retention": "workqueue" });
                    cases.push(case);
                }
            }
            let with = if durables { "a durable each" } else { "no durables" };
            groups.push(Group {
                name: format!("entries: {clients} clients a shard, {with}"),
                cases,
            });
        }
    }
    groups
}

fn of_three_servers() -> Group {
    let what = What::Entries {
        clients: CLIENTS[0],
        each: WAITING,
        shards: 2,
        of: 32,
    };
    let on_three = |name: &str, remove| Case {
        servers: 3,
        stream: json!({ "num_replicas": 3 }),
        ..case(name, what, remove)
    };
    Group {
        name: "three servers: 31 clients a shard, no durables".to_owned(),
        cases: vec![
            on_three("delete one by one", Remove::OneByOne(CONFIRMED)),
            on_three("a deletion of nothing", Remove::Gone),
            on_three("purge runs of 4", Remove::Purge(4)),
            on_three("purge runs of 16", Remove::Purge(16)),
            on_three("purge runs of 64", Remove::Purge(64)),
        ],
    }
}

fn of_events() -> Group {
    let events = |by_partition| What::Events { by_partition };
    let mut cases = vec![case("delete one by one", events(true), Remove::OneByOne(1))];
    for (by_partition, of) in [(true, "a partition"), (false, "a chat")] {
        cases.extend([16, 64].map(|run| {
            case(
                &format!("purge {of}, runs of {run}"),
                events(by_partition),
                Remove::Purge(run),
            )
        }));
    }
    for case in &mut cases {
        case.durables = true;
    }
    let consumers = Consumers::OneEach;
    let mut queue = case(
        "work queue, a consumer a partition",
        events(true),
        Remove::Ack { consumers },
    );
    queue.stream = json!({ "retention": "workqueue" });
    cases.push(queue);
    Group {
        name: "events: 32 partitions, a consumer each".to_owned(),
        cases,
    }
}

fn of_streams() -> Group {
    let spread = |of: u16| What::Entries {
        clients: ALL_CLIENTS / usize::from(of),
        each: EACH,
        shards: of,
        of,
    };
    let one_by_one = Remove::OneByOne(EACH);
    let changed = |name: &str, stream: Value| Case {
        stream,
        ..case(name, spread(32), one_by_one)
    };
    Group {
        name: "streams: 1,024 clients".to_owned(),
        cases: vec![
            case("32", spread(32), one_by_one),
            case("8", spread(8), one_by_one),
            case("64", spread(64), one_by_one),
            changed("32, compressed", json!({ "compression": "s2" })),
            changed("32, in memory", json!({ "storage": "memory", "max_bytes": -1 })),
            changed(
                "32, no bound a subject",
                json!({ "max_msgs_per_subject": -1, "discard_new_per_subject": false }),
            ),
        ],
    }
}

fn of_batches() -> Group {
    let what = What::Entries {
        clients: CLIENTS[0],
        each: 1_024,
        shards: 1,
        of: 32,
    };
    let stored = |name: &str, store| Case {
        store,
        stream: json!({ "allow_atomic": true, "allow_batched": true }),
        ..case(name, what, Remove::Nothing)
    };
    Group {
        name: "storing in one stream".to_owned(),
        cases: vec![
            stored("one by one", Store::OneByOne),
            stored("fast batches of 10", Store::Fast(10)),
            stored("fast batches of 100", Store::Fast(100)),
            stored("atomic batches of 10", Store::Atomic(10)),
            stored("atomic batches of 100", Store::Atomic(100)),
        ],
    }
}

/// By group and case, each round.
type Found = Vec<(Group, Vec<Vec<Cost>>)>;

async fn measure(args: &Args) -> anyhow::Result<Found> {
    tidings_service::start::install_crypto_provider();
    ensure!(args.rounds > 0, "--rounds is at least 1");
    let mut found = Vec::new();
    for group in groups()
        .into_iter()
        .filter(|group| group.name.contains(&args.only))
    {
        let mut costs = vec![Vec::new(); group.cases.len()];
        for round in 0..args.rounds {
            let mut turns: Vec<usize> = (0..group.cases.len()).collect();
            // Whatever grows or shrinks while this runs is not always on the same side.
            if round % 2 == 1 {
                turns.reverse();
            }
            for turn in turns {
                let case = &group.cases[turn];
                let scene = Scene::start(case).await?;
                let cost = scene.run(Duration::from_secs(args.seconds)).await;
                let cost = cost.with_context(|| format!("{}: {}", group.name, case.name))?;
                eprintln!("{}: {}: {cost:.1?}", group.name, case.name);
                costs[turn].push(cost);
            }
        }
        found.push((group, costs));
    }
    Ok(found)
}

fn print(found: &Found, json: bool) {
    let mut lines = Vec::new();
    for (group, costs) in found {
        if !json {
            println!("\n{}", group.name);
            println!(
                "{:<36} {:>9} {:>9} {:>7} {:>10} {:>7}",
                "", "store us", "remove us", "of it", "removed/s", "told"
            );
        }
        for (case, rounds) in group.cases.iter().zip(costs) {
            let of = |of: fn(&Cost) -> f64| median(rounds.iter().map(of).collect());
            let against: fn(&Cost) -> f64 = match case.remove {
                Remove::Nothing => |cost| cost.store,
                _ => |cost| cost.remove,
            };
            // Of the same round.
            let ratios = rounds.iter().zip(&costs[0]);
            let ratio = median(ratios.map(|(it, first)| against(it) / against(first)).collect());
            let (store, remove) = (of(|cost| cost.store), of(|cost| cost.remove));
            let (removed, told) = (of(|cost| cost.removed), of(|cost| cost.told));
            let name = &case.name;
            if json {
                lines.push(json!({
                    "group": group.name, "case": name, "storeUs": store, "removeUs": remove, "ofFirst": ratio,
                    "removedPerSecond": removed, "toldOfStored": told, "rounds": rounds.len(),
                }));
            } else {
                println!("{name:<36} {store:>9.1} {remove:>9.1} {ratio:>7.2} {removed:>10.0} {told:>7.2}");
            }
        }
    }
    if json {
        println!("{:#}", Value::Array(lines));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

enum Servers {
    One(NatsServer),
    Three(NatsCluster),
}

impl Servers {
    fn all(&self) -> &[NatsServer] {
        match self {
            Self::One(server) => std::slice::from_ref(server),
            Self::Three(cluster) => &cluster.nodes,
        }
    }

    fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(cluster) => cluster.url(),
        }
    }
}

/// A server of its own, or three.
struct Scene {
    servers: Servers,
    bus: Bus,
    _connection: NatsConnection,
    case: Case,
    owners: Vec<Owner>,
    headers: HeaderMap,
    payload: Bytes,
}

/// Whose runs are removed: a client, a chat, or a partition.
struct Owner {
    stream: String,
    /// Of all that is its own.
    filter: String,
    /// One of a client, the chats of a partition.
    subjects: Vec<String>,
    /// How many it gets.
    entries: usize,
    /// Of its consumer.
    consumer: String,
    /// Where they are.
    sequences: Vec<u64>,
}

impl Scene {
    async fn start(case: &Case) -> anyhow::Result<Self> {
        let servers = match case.servers {
            1 => Servers::One(NatsServer::start_temp().await?),
            _ => Servers::Three(NatsCluster::start_temp().await?),
        };
        let settings = NatsSettings::parse(&servers.url())?;
        let connection = NatsConnection::connect(&settings, "deletions").await?;
        let bus = Bus::new(connection.client().clone());
        let event = Event::Message(Message {
            chat_id: ChatId(Uuid::from_u128(1)),
            message_id: MessageId(Uuid::from_u128(2)),
            user_id: UserId::new("sender")?,
            client_id: ClientId(Uuid::from_u128(3)),
            sent_at: Timestamp(1_795_577_629_123),
            message: "x".repeat(MESSAGE_BYTES),
            attachments: Vec::new(),
        });
        let mut scene = Self {
            servers,
            bus,
            _connection: connection,
            case: case.clone(),
            owners: Vec::new(),
            headers: event_headers(&event, ""),
            payload: Entry { seq: 1, event }.encode(),
        };
        match case.what {
            What::Entries {
                clients,
                each,
                shards,
                of,
            } => scene.inboxes(clients, each, shards, of).await?,
            What::Events { by_partition } => scene.chats(by_partition).await?,
        }
        Ok(scene)
    }

    async fn create(&self, mut config: Value) -> anyhow::Result<()> {
        let name = config["name"]
            .as_str()
            .context("definitions have names")?
            .to_owned();
        let changes = self.case.stream.as_object().context("it is an object")?.clone();
        config.as_object_mut().context("it is an object")?.extend(changes);
        let subject = format!("STREAM.CREATE.{name}");
        self.bus.api::<IgnoredAny>(&subject, &config, TIMEOUT).await?;
        Ok(())
    }

    async fn consumer(&self, stream: &str, config: &Value) -> anyhow::Result<()> {
        let name = config["name"].as_str().context("consumers have names")?;
        let subject = format!("CONSUMER.CREATE.{stream}.{name}");
        let body = json!({ "stream_name": stream, "config": config, "action": "" });
        self.bus.api::<IgnoredAny>(&subject, &body, TIMEOUT).await?;
        Ok(())
    }

    async fn inboxes(&mut self, clients: usize, each: usize, shards: u16, of: u16) -> anyhow::Result<()> {
        let topology = Topology {
            shards: of,
            ..Topology::default()
        };
        let options = SetupOptions {
            topology,
            ..SetupOptions::default()
        };
        let used: Vec<String> = topology.shards().take(shards.into()).map(inbox_stream).collect();
        for config in setup::streams(&options) {
            if used.iter().any(|name| config["name"] == name.as_str()) {
                self.create(config).await?;
            }
        }
        let mut room: Vec<usize> = vec![clients; used.len()];
        for number in 0_u64.. {
            let user_id = UserId::new(&format!("user-{number}"))?;
            let shard = topology.shard(&user_id);
            let Some(room) = room.get_mut(usize::from(shard.0)).filter(|room| **room > 0) else {
                continue;
            };
            *room -= 1;
            let client_id = ClientId(Uuid::from_u128(number.into()));
            let subject = inbox_subject(&topology, &user_id, Inbox::Client(client_id));
            let stream = inbox_stream(shard);
            let mut config = durable_config(&topology, &user_id, client_id, false);
            let queue = matches!(
                self.case.remove,
                Remove::Ack {
                    consumers: Consumers::OneEach
                }
            );
            if self.case.durables || queue {
                if queue {
                    config["filter_subjects"] = json!([subject]);
                }
                self.consumer(&stream, &config).await?;
            }
            self.owners.push(Owner {
                stream,
                filter: subject.clone(),
                subjects: vec![subject],
                entries: each,
                consumer: client_id.to_string(),
                sequences: Vec::new(),
            });
            if self.owners.len() == clients * used.len() {
                break;
            }
        }
        if let Remove::Ack {
            consumers: Consumers::OneAStream,
        } = self.case.remove
        {
            for stream in used {
                let config = json!({ "name": "all", "durable_name": "all", "ack_policy": "explicit", "max_ack_pending": -1 });
                self.consumer(&stream, &config).await?;
            }
            for owner in &mut self.owners {
                "all".clone_into(&mut owner.consumer);
            }
        }
        Ok(())
    }

    async fn chats(&mut self, by_partition: bool) -> anyhow::Result<()> {
        let topology = Topology::default();
        let streams = setup::streams(&SetupOptions::default());
        let chats = streams
            .into_iter()
            .find(|config| config["name"] == tidings_nats::CHATS);
        self.create(chats.context("there is CHATS")?).await?;
        for mut config in setup::consumers(&SetupOptions::default()) {
            // Whoever reads here is nobody's successor.
            let consumer = config.as_object_mut().context("it is an object")?;
            consumer.retain(|field, _| !field.starts_with("priority"));
            consumer.insert("max_ack_pending".to_owned(), json!(-1));
            self.consumer(tidings_nats::CHATS, &config).await?;
        }
        let mut by: HashMap<Partition, Vec<String>> = HashMap::new();
        for number in 0..CHATS {
            let chat_id = ChatId(Uuid::from_u128(number as u128));
            let partition = topology.partition(chat_id);
            by.entry(partition)
                .or_default()
                .push(chat_subject(partition, chat_id));
        }
        for (partition, subjects) in by {
            let owner = |filter: String, subjects: Vec<String>| Owner {
                stream: tidings_nats::CHATS.to_owned(),
                filter,
                entries: EVENTS * subjects.len(),
                subjects,
                consumer: format!("fanout-{partition}"),
                sequences: Vec::new(),
            };
            if by_partition {
                self.owners.push(owner(format!("chat.{partition}.*"), subjects));
            } else {
                let chats = subjects.into_iter().map(|chat| owner(chat.clone(), vec![chat]));
                self.owners.extend(chats);
            }
        }
        Ok(())
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        let each = self.servers.all().iter().map(|server| {
            let pid = server.pid().context("it runs")?;
            Ok(parent_and_cpu(pid)?.1)
        });
        each.sum()
    }

    async fn run(mut self, time: Duration) -> anyhow::Result<Cost> {
        let stored = self.owners.iter().map(|owner| owner.entries).sum::<usize>() as f64;
        let before = self.cpu()?;
        self.store().await?;
        let mut cost = Cost {
            store: micros(before, self.cpu()?) / stored,
            ..Cost::default()
        };
        let acks = self.read().await?;
        let (before, began) = (self.cpu()?, Instant::now());
        let removed = self.remove(&acks, began + time).await? as f64;
        if removed > 0.0 {
            cost.remove = micros(before, self.cpu()?) / removed;
            cost.removed = removed / began.elapsed().as_secs_f64();
        }
        cost.told = self.told(stored - removed).await?;
        Ok(cost)
    }

    /// In the order in which many people write to many.
    async fn store(&mut self) -> anyhow::Result<()> {
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (owner, it) in self.owners.iter().enumerate() {
            order.extend((0..it.entries).map(|entry| (owner, entry)));
        }
        order.shuffle(&mut StdRng::seed_from_u64(7));
        let it = &*self;
        let batch = match it.case.store {
            Store::OneByOne => 1,
            Store::Atomic(batch) | Store::Fast(batch) => batch,
        };
        let under_way = if batch == 1 { PUBLISHES } else { BATCHES };
        let batches = stream::iter(order.chunks(batch)).map(|chunk| it.store_some(chunk));
        let sequences: Vec<Vec<(usize, u64)>> = batches.buffer_unordered(under_way).try_collect().await?;
        for (owner, sequence) in sequences.into_iter().flatten() {
            self.owners[owner].sequences.push(sequence);
        }
        for owner in &mut self.owners {
            owner.sequences.sort_unstable();
        }
        Ok(())
    }

    /// Says whose is where.
    async fn store_some(&self, some: &[(usize, usize)]) -> anyhow::Result<Vec<(usize, u64)>> {
        let messages = some.iter().map(|&(owner, entry)| {
            let subjects = &self.owners[owner].subjects;
            let mut headers = self.headers.clone();
            headers.insert(async_nats::header::NATS_MESSAGE_ID, format!("{entry}.{owner}"));
            (subjects[entry % subjects.len()].clone(), headers)
        });
        let last = match self.case.store {
            Store::OneByOne => {
                let (subject, headers) = messages.into_iter().next().context("there is one")?;
                let accepted = self.bus.publish(subject, headers, self.payload.clone(), TIMEOUT);
                accepted.await?.sequence
            }
            Store::Atomic(_) => self.store_atomically(messages.collect()).await?,
            Store::Fast(_) => self.store_fast(messages.collect()).await?,
        };
        let first = last + 1 - some.len() as u64;
        Ok(some.iter().map(|(owner, _)| *owner).zip(first..).collect())
    }

    async fn store_atomically(&self, messages: Vec<(String, HeaderMap)>) -> anyhow::Result<u64> {
        let (id, count) = (Uuid::new_v4().to_string(), messages.len());
        for (number, (subject, mut headers)) in messages.into_iter().enumerate() {
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", (number + 1).to_string());
            if number + 1 == count {
                headers.insert("Nats-Batch-Commit", "1");
                let accepted = self.bus.publish(subject, headers, self.payload.clone(), TIMEOUT);
                return Ok(accepted.await?.sequence);
            }
            let client = self.bus.client();
            client
                .publish_with_headers(subject, headers, self.payload.clone())
                .await?;
        }
        anyhow::bail!("a batch of nothing")
    }

    /// The reply subject says what the headers of an atomic batch say (ADR-50 of NATS):
    /// `<prefix>.<id>.<acks each>.<gaps>.<number>.<0: first, 1: another, 2: the last one>.$FI`.
    async fn store_fast(&self, messages: Vec<(String, HeaderMap)>) -> anyhow::Result<u64> {
        #[derive(Deserialize)]
        struct Answer {
            seq: Option<u64>,
            batch: Option<IgnoredAny>,
            error: Option<Value>,
        }
        let (client, count) = (self.bus.client(), messages.len());
        let reply = format!("{}.{}.65535.fail", client.new_inbox(), Uuid::new_v4());
        let mut answers = client.subscribe(format!("{reply}.>")).await?;
        for (number, (subject, headers)) in messages.into_iter().enumerate() {
            let part = match number {
                _ if number + 1 == count => 2,
                0 => 0,
                _ => 1,
            };
            let reply = format!("{reply}.{}.{part}.$FI", number + 1);
            client
                .publish_with_reply_and_headers(subject, reply, headers, self.payload.clone())
                .await?;
        }
        loop {
            let answer = tokio::time::timeout(TIMEOUT, answers.next()).await?;
            let answer: Answer = serde_json::from_slice(&answer.context("it goes on")?.payload)?;
            ensure!(
                answer.error.is_none(),
                "a batch was not stored: {:?}",
                answer.error
            );
            if let (Some(_), Some(last)) = (answer.batch, answer.seq) {
                return Ok(last);
            }
        }
    }

    /// As clients that come back do, and workers: what is deleted was delivered by its consumer. Gives the subjects for
    /// acks by stream and sequence.
    async fn read(&self) -> anyhow::Result<HashMap<(String, u64), String>> {
        let mut acks = HashMap::new();
        let mut wanted: HashMap<(&str, &str), usize> = HashMap::new();
        if !self.case.durables && !matches!(self.case.remove, Remove::Ack { .. }) {
            return Ok(acks);
        }
        for owner in &self.owners {
            *wanted.entry((&owner.stream, &owner.consumer)).or_default() += owner.entries;
        }
        for ((stream, consumer), count) in wanted {
            let inbox = self.bus.client().new_inbox();
            let mut delivered = self.bus.client().subscribe(inbox.clone()).await?;
            let pull = Pull {
                batch: u32::try_from(count)?,
                expires: TIMEOUT.as_nanos() as u64,
                ..Pull::default()
            };
            self.bus
                .client()
                .publish_with_reply(Pull::subject(stream, consumer), inbox, pull.encode())
                .await?;
            for _ in 0..count {
                let (sequence, ack) = next(&mut delivered).await?;
                acks.insert((stream.to_owned(), sequence), ack);
            }
        }
        Ok(acks)
    }

    /// Says how many.
    async fn remove(&self, acks: &HashMap<(String, u64), String>, until: Instant) -> anyhow::Result<usize> {
        let run = match self.case.remove {
            Remove::Nothing => return Ok(0),
            Remove::Ack { .. } | Remove::Gone => CONFIRMED,
            Remove::OneByOne(run) | Remove::Purge(run) => run,
        };
        let here: Vec<&Owner> = self.owners.iter().step_by(self.case.one_in).collect();
        let mut runs: Vec<(&Owner, &[u64])> = Vec::new();
        let most = here.iter().map(|owner| owner.sequences.len()).max();
        for round in 0..most.unwrap_or_default().div_ceil(run) {
            // Everybody in turn, in another order each time.
            let mut turn = here.clone();
            turn.shuffle(&mut StdRng::seed_from_u64(round as u64));
            for owner in turn {
                runs.extend(owner.sequences.chunks(run).nth(round).map(|run| (owner, run)));
            }
        }
        let purges = matches!(self.case.remove, Remove::Purge(_));
        let requests = runs.into_iter().flat_map(|(owner, run)| {
            let each = if purges { run.len() } else { 1 };
            run.chunks(each).map(move |sequences| (owner, sequences))
        });
        let requests = requests.take_while(|_| Instant::now() < until);
        // Where two of one owner are under way, the later one may take what the earlier one is for.
        let removed = stream::iter(requests).map(|(owner, sequences)| async move {
            let removed = self.remove_some(owner, sequences, acks).await?;
            anyhow::Ok((sequences.len(), removed))
        });
        let removed = removed.buffer_unordered(DELETIONS);
        let add =
            |sum: (usize, usize), some: (usize, usize)| async move { Ok((sum.0 + some.0, sum.1 + some.1)) };
        let (asked, removed) = removed.try_fold((0, 0), add).await?;
        ensure!(asked == removed, "{removed} are removed, not {asked}");
        Ok(removed)
    }

    async fn remove_some(
        &self,
        owner: &Owner,
        sequences: &[u64],
        acks: &HashMap<(String, u64), String>,
    ) -> anyhow::Result<usize> {
        let last = *sequences.last().context("no run is empty")?;
        match self.case.remove {
            Remove::Purge(_) => {
                let purged = self
                    .bus
                    .purge_subject_up_to(&owner.stream, &owner.filter, last, TIMEOUT);
                return Ok(purged.await? as usize);
            }
            Remove::Ack { .. } => {
                let ack = acks
                    .get(&(owner.stream.clone(), last))
                    .context("it was delivered")?;
                self.bus.client().request(ack.clone(), "+ACK".into()).await?;
            }
            Remove::Gone => self.bus.delete_message(&owner.stream, 1 << 40, TIMEOUT).await?,
            Remove::OneByOne(_) => self.bus.delete_message(&owner.stream, last, TIMEOUT).await?,
            Remove::Nothing => {}
        }
        Ok(1)
    }

    /// What durables say that is outstanding, for each entry that is stored; 1 if they are right.
    async fn told(&self, stored: f64) -> anyhow::Result<f64> {
        #[derive(Deserialize)]
        struct Info {
            num_pending: u64,
            num_ack_pending: u64,
        }
        if !self.case.durables || stored == 0.0 && !matches!(self.case.remove, Remove::Purge(_)) {
            return Ok(1.0);
        }
        let mut told = 0;
        let mut consumers: Vec<_> = self
            .owners
            .iter()
            .map(|owner| (&owner.stream, &owner.consumer))
            .collect();
        consumers.sort_unstable();
        consumers.dedup();
        for (stream, consumer) in consumers {
            let subject = format!("CONSUMER.INFO.{stream}.{consumer}");
            let info: Info = self.bus.api(&subject, &json!({}), TIMEOUT).await?;
            told += info.num_pending + info.num_ack_pending;
        }
        Ok(if stored == 0.0 {
            f64::from(u8::from(told == 0))
        } else {
            told as f64 / stored
        })
    }
}

/// Its stream sequence and where to ack it.
async fn next(delivered: &mut Subscriber) -> anyhow::Result<(u64, String)> {
    let delivery = tokio::time::timeout(TIMEOUT, delivered.next()).await?;
    let reply = delivery
        .context("it goes on")?
        .reply
        .context("deliveries can be acked")?;
    let info = DeliveryInfo::parse(&reply).context("an ack has a sequence")?;
    Ok((info.stream_sequence, reply.to_string()))
}

fn micros(from: Duration, to: Duration) -> f64 {
    to.saturating_sub(from).as_secs_f64() * 1e6
}
