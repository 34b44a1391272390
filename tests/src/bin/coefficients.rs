//! What one more of something costs the servers: an entry that waits, a client that is away, a durable, a connection's key,
//! a chat in Postgres, a beacon. `docs/scaling/scale.py` computes from it how far a system goes. Of nats-server's memory,
//! the size is measured to which it lets its heap grow before it collects garbage, twice what is in use: the resident size
//! depends on when it was looked at. Beacons and streams with three copies depend on how fast the machine is; nothing else
//! does.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Map, Value, json};
use sqlx::{Connection as _, PgConnection};
use tidings_cli::UpFile;
use tidings_metadata::{Metadata, NewChat, RegisterClient};
use tidings_nats::{
    Bus, Entry, Event, Inbox, Message, NatsUser, SESSIONS, SessionKey, Topology, durable_config,
    inbox_subject,
};
use tidings_protocol::{ChatId, ClientId, MessageId, RequestId, Timestamp, UserId};
use tidings_service::{NatsConnection, NatsSettings};
use tidings_tests::system_of_one::{self, memory, parent_and_cpu, pid_of};
use uuid::Uuid;

/// What people write.
const MESSAGE_BYTES: usize = 200;
/// Requests at once.
const CONCURRENT: usize = 64;
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Participants of a chat.
const CHAT_PEOPLE: usize = 10;
/// Stored in one stream.
const STORED_BY_THREE: usize = 20_000;
/// For so many inboxes: each takes 10,000 entries.
const CLIENTS_OF_ONE: usize = 20;
/// Sent by workers to gateways, of the size of what they send.
const BEACON: &str = "0123456789abcdef0123456789abcdef";
const BEACONS: usize = 500_000;
/// Below what a client of NATS keeps for who does not listen.
const BEACONS_AT_ONCE: usize = 1_000;
/// By then the server has forgotten the ids of entries (`duplicate_window` of `nats/definitions/inbox.json`: two minutes),
/// and what it keeps of blocks that it has just written or read.
const FORGOTTEN: Duration = Duration::from_secs(130);
/// Go collects garbage every two minutes at least.
const PATIENCE: Duration = Duration::from_mins(4);

/// Measures what one more of something costs the servers.
#[derive(Debug, Parser)]
#[command(name = "coefficients", max_term_width = 110)]
struct Args {
    /// The system's data go here. It must not exist.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// NATS servers: with three, only how fast a stream with three copies takes messages.
    #[arg(long, default_value_t = 1, value_name = "1|3")]
    nats: usize,

    /// Clients that are away.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    clients: usize,

    /// Entries that wait for each.
    #[arg(long, default_value_t = 10, value_name = "N")]
    entries: usize,

    /// Durables.
    #[arg(long, default_value_t = 5_000, value_name = "N")]
    durables: usize,

    /// Chats in Postgres, of ten people each.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    chats: usize,
}

/// That of the services, which are processes of this program.
#[global_allocator]
static ALLOCATOR: tidings_cli::Allocator = tidings_cli::Allocator;

fn main() -> ExitCode {
    // The services are processes of this program.
    if system_of_one::is_service() {
        return tidings_cli::main();
    }
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let result = runtime.block_on(system_of_one::with(&args.dir, args.nats, async |system| {
        measure(&args, &system).await
    }));
    match result {
        Ok(found) => {
            println!("{found:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Measured {
    system: UpFile,
    bus: Bus,
    /// Who may look at servers.
    servers: NatsConnection,
    topology: Topology,
    store: PathBuf,
    found: Map<String, Value>,
}

async fn measure(args: &Args, system: &UpFile) -> anyhow::Result<Value> {
    let settings = system.nats_settings(NatsUser::Admin)?;
    let connection = NatsConnection::connect(&settings, "coefficients").await?;
    let mut measured = Measured {
        system: system.clone(),
        bus: Bus::new(connection.client().clone()),
        servers: NatsConnection::connect(&NatsSettings::parse(&system.nats_system)?, "coefficients").await?,
        topology: Topology::default(),
        store: args.dir.join("nats"),
        found: Map::new(),
    };
    let people: Vec<(UserId, ClientId)> = (0..args.clients)
        .map(|number| {
            Ok((
                UserId::new(&format!("someone-{number}"))?,
                ClientId(Uuid::new_v4()),
            ))
        })
        .collect::<anyhow::Result<_>>()?;
    if args.nats == 3 {
        measured.stream_of_three().await?;
        return Ok(Value::Object(measured.found));
    }
    measured.beacons().await?;
    measured.postgres(args.chats).await?;
    measured.sessions(&people).await?;
    measured.entries(&people, args.entries).await?;
    measured
        .durables(&people[..args.durables.min(people.len())])
        .await?;
    Ok(Value::Object(measured.found))
}

impl Measured {
    fn is(&mut self, name: &str, value: f64, unit: &str) {
        eprintln!("{name}: {value:.1} {unit}");
        let value = json!({ "value": (value * 10.0).round() / 10.0, "unit": unit });
        self.found.insert(name.to_owned(), value);
    }

    /// A stream with three copies, each of which syncs its disk: CHATS is one, and so is each shard.
    async fn stream_of_three(&mut self) -> anyhow::Result<()> {
        let user_id = UserId::new("someone")?;
        let clients: Vec<_> = (0..CLIENTS_OF_ONE)
            .map(|_| (user_id.clone(), ClientId(Uuid::new_v4())))
            .collect();
        self.store_entries(&clients, STORED_BY_THREE / CLIENTS_OF_ONE / 10)
            .await?;
        let began = Instant::now();
        self.store_entries(&clients, STORED_BY_THREE / CLIENTS_OF_ONE)
            .await?;
        let rate = STORED_BY_THREE as f64 / began.elapsed().as_secs_f64();
        self.is(
            "stream_r3_messages_s",
            rate,
            "messages a second that one stream with three copies takes",
        );
        Ok(())
    }

    /// A small message without a stream, from one client of NATS to another.
    async fn beacons(&mut self) -> anyhow::Result<()> {
        let pid = pid_of(&self.system, "nats-1")?;
        let client = self.servers.client();
        let mut heard = client.subscribe("beacons").await?;
        let (_, before) = parent_and_cpu(pid)?;
        for _ in 0..BEACONS / BEACONS_AT_ONCE {
            for _ in 0..BEACONS_AT_ONCE {
                client.publish("beacons", BEACON.into()).await?;
            }
            for _ in 0..BEACONS_AT_ONCE {
                heard.next().await.context("nats-server goes on")?;
            }
        }
        let (_, after) = parent_and_cpu(pid)?;
        let each = after.saturating_sub(before).as_secs_f64() * 1e6 / BEACONS as f64;
        self.is("beacon_nats_us", each, "us of nats-server's CPU a beacon");
        Ok(())
    }

    /// A key of SESSIONS, which every fan-out worker keeps in mind.
    async fn sessions(&mut self, people: &[(UserId, ClientId)]) -> anyhow::Result<()> {
        let before = (self.nats().await?, self.resident("fanout-worker-1").await?);
        let bus = &self.bus;
        let puts = people.iter().map(|(user_id, client_id)| async move {
            let key = SessionKey {
                gateway: "0123456789abcdef".to_owned(),
                connection: rand::random(),
                user_id: user_id.clone(),
                since: Timestamp(0),
            };
            let subject = format!("$KV.{SESSIONS}.{client_id}");
            let put = bus.publish(subject, async_nats::HeaderMap::new(), key.encode(), TIMEOUT);
            put.await.map(drop)
        });
        all(puts).await?;
        let count = people.len() as f64;
        let worker = self.resident("fanout-worker-1").await? - before.1;
        let nats = self.nats().await? - before.0;
        self.is(
            "session_key_nats_bytes",
            nats / count,
            "bytes of nats-server's memory a connected client",
        );
        self.is(
            "session_key_worker_bytes",
            worker / count,
            "bytes of each fan-out worker's memory a connected client",
        );
        Ok(())
    }

    /// Entries for clients that are away: the first of each client, and the others.
    async fn entries(&mut self, people: &[(UserId, ClientId)], entries: usize) -> anyhow::Result<()> {
        ensure!(entries > 1, "--entries is at least 2");
        let start = (self.nats().await?, bytes_on_disk(&self.store)?);
        self.is("nats_base_bytes", start.0, "bytes of nats-server's heap before");
        self.store_entries(people, 1).await?;
        let first = (self.nats().await?, bytes_on_disk(&self.store)?);
        self.store_entries(people, entries - 1).await?;
        let all = (self.nats().await?, bytes_on_disk(&self.store)?);
        let (clients, more) = (people.len() as f64, (people.len() * (entries - 1)) as f64);
        let an_entry = (all.0 - first.0) / more;
        self.is(
            "entry_nats_bytes",
            an_entry,
            "bytes of nats-server's memory an entry that waits",
        );
        let client = (first.0 - start.0) / clients - an_entry;
        self.is(
            "waiting_client_nats_bytes",
            client,
            "bytes of nats-server's memory a client for which something waits",
        );
        let disk = (all.1 - start.1) / (clients + more);
        self.is(
            "entry_disk_bytes",
            disk,
            "bytes on disk an entry of a message of 200 bytes",
        );
        Ok(())
    }

    async fn store_entries(&self, people: &[(UserId, ClientId)], each: usize) -> anyhow::Result<()> {
        let puts = (0..each)
            .flat_map(|_| people)
            .enumerate()
            .map(|(seq, (user_id, client_id))| async move {
                let entry = Entry {
                    seq: seq as u64,
                    event: Event::Message(Message {
                        chat_id: ChatId(Uuid::now_v7()),
                        message_id: MessageId(Uuid::new_v4()),
                        user_id: user_id.clone(),
                        client_id: *client_id,
                        sent_at: Timestamp(1_700_000_000_000),
                        message: "x".repeat(MESSAGE_BYTES),
                        attachments: Vec::new(),
                    }),
                };
                let subject = inbox_subject(&self.topology, user_id, Inbox::Client(*client_id));
                let id = format!("{}.{client_id}", Uuid::new_v4().as_u128() as u32);
                let put = self.bus.publish_with_id(subject, &id, entry.encode(), TIMEOUT);
                put.await.map(drop)
            });
        all(puts).await
    }

    async fn durables(&mut self, people: &[(UserId, ClientId)]) -> anyhow::Result<()> {
        let before = (self.nats().await?, bytes_on_disk(&self.store)?);
        let puts = people.iter().map(|(user_id, client_id)| {
            let config = durable_config(&self.topology, user_id, *client_id, false);
            let shard = self.topology.shard(user_id);
            let bus = &self.bus;
            async move { bus.create_durable(shard, &config, TIMEOUT).await }
        });
        all(puts).await?;
        let count = people.len() as f64;
        let memory = (self.nats().await? - before.0) / count;
        self.is(
            "durable_nats_bytes",
            memory,
            "bytes of nats-server's memory a durable",
        );
        let disk = (bytes_on_disk(&self.store)? - before.1) / count;
        self.is("durable_disk_bytes", disk, "bytes on disk a durable");
        Ok(())
    }

    /// Users with a client each, and chats of ten of them.
    async fn postgres(&mut self, chats: usize) -> anyhow::Result<()> {
        let metadata = Metadata::connect(&self.system.postgres, 8)?;
        let mut sizes = PgConnection::connect(&self.system.postgres).await?;
        let users: Vec<UserId> = (0..chats * 2)
            .map(|number| Ok(UserId::new(&format!("user-{number}"))?))
            .collect::<anyhow::Result<_>>()?;
        let before = database_bytes(&mut sizes).await?;
        all(users.iter().map(|user_id| register(&metadata, user_id))).await?;
        let registered = database_bytes(&mut sizes).await?;
        let count = users.len() as f64;
        self.is(
            "user_postgres_bytes",
            (registered - before) / count,
            "bytes of Postgres a user with a client",
        );
        let made = (0..chats).map(|chat| {
            let people = (0..CHAT_PEOPLE).map(|person| users[(chat * 7 + person * 13) % users.len()].clone());
            let mut people: Vec<UserId> = people.collect();
            let new = NewChat {
                creator: people.remove(0),
                request_id: RequestId(Uuid::new_v4()),
                others: people,
                name: Some(format!("chat {chat}")),
            };
            let metadata = &metadata;
            async move { metadata.create_chat(new).await.map(drop) }
        });
        all(made).await?;
        let chatting = database_bytes(&mut sizes).await?;
        let a_chat = (chatting - registered) / chats as f64;
        self.is(
            "chat_postgres_bytes",
            a_chat,
            "bytes of Postgres a chat of 10, what it has in the outbox included",
        );
        Ok(())
    }

    /// The heap that nats-server lets itself grow to, once it has been left alone.
    async fn nats(&self) -> anyhow::Result<f64> {
        tokio::time::sleep(FORGOTTEN).await;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_nanos() as f64;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let profile = self.heap_profile().await?;
            if figure(&profile, "LastGC")? > now {
                return figure(&profile, "NextGC");
            }
            ensure!(Instant::now() < deadline, "nats-server does not collect garbage");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// What Go's runtime says of the heap (`runtime.MemStats`), behind stacks that are of no interest.
    async fn heap_profile(&self) -> anyhow::Result<String> {
        let request = json!({ "name": "heap", "debug": 1 }).to_string();
        let client = self.servers.client();
        let answer = client
            .request("$SYS.REQ.SERVER.PING.PROFILEZ", request.into())
            .await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        let profile = answer["data"]["profile"].as_str();
        let profile = profile.with_context(|| format!("no profile: {answer}"))?;
        Ok(String::from_utf8(BASE64_STANDARD.decode(profile)?)?)
    }

    /// A process's resident memory once it does not grow any more.
    async fn resident(&self, name: &str) -> anyhow::Result<f64> {
        let pid = pid_of(&self.system, name)?;
        let mut last = memory(pid, "VmRSS:")?;
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = memory(pid, "VmRSS:")?;
            if now <= last + last / 500 {
                return Ok(now as f64);
            }
            last = now;
        }
    }
}

async fn register(metadata: &Metadata, user_id: &UserId) -> anyhow::Result<()> {
    let hello = RegisterClient {
        user: user_id.clone(),
        client: ClientId(Uuid::new_v4()),
        name: Some("a telephone".to_owned()),
        replace: None,
        inbox_sequence: None,
    };
    metadata.register_client(hello).await?;
    Ok(())
}

/// Of a line `# NAME = FIGURE`.
fn figure(profile: &str, name: &str) -> anyhow::Result<f64> {
    let mut lines = profile.lines();
    let found = lines.find_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(" = "));
    let found = found.with_context(|| format!("a heap profile without {name}"))?;
    Ok(found.trim().parse()?)
}

/// Some at a time; the first error ends it.
async fn all<T, E: Into<anyhow::Error>>(
    requests: impl Iterator<Item = impl Future<Output = Result<T, E>>>,
) -> anyhow::Result<()> {
    let done = futures::stream::iter(requests).buffer_unordered(CONCURRENT);
    done.map_err(Into::into).try_for_each(|_| async { Ok(()) }).await
}

async fn database_bytes(connection: &mut PgConnection) -> anyhow::Result<f64> {
    let bytes: i64 = sqlx::query_scalar("SELECT pg_database_size(current_database())")
        .fetch_one(connection)
        .await?;
    Ok(bytes as f64)
}

/// What files take, in blocks.
fn bytes_on_disk(dir: &Path) -> anyhow::Result<f64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0.0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A file may go while it is looked at.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() {
            bytes_on_disk(&entry.path())?
        } else {
            metadata.blocks() as f64 * 512.0
        };
    }
    Ok(bytes)
}
