//! A system of real servers with fan-out workers in it, and what people do there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use futures::StreamExt as _;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tidings_fanout_worker::FanoutWorkerConfig;
use tidings_metadata::{Metadata, ModifyParticipants, NewChat, OutboxKey, RegisterClient};
use tidings_nats::setup::{self, SetupOptions};
use tidings_nats::{
    ApiError, BODIES, Beacon, Bus, CHATS, ChatUpdate, DirectNotice, Entry, Event, HEADER_GRANTED, Inbox,
    InboxEntry, LiveMessage, Message, NatsUser, Notice, SESSIONS, SessionKey, Topology, chat_subject,
    event_headers, fanout_consumer, inbox_stream, inbox_subject, live_subject, users_conf,
};
use tidings_protocol::{Attachment, ChatId, ClientId, MessageId, Operation, RequestId, Timestamp, UserId};
use tidings_service::{Context, NatsConnection, NatsSettings, Secret, outbox};
use tidings_stack::{NatsCluster, NatsServer, Postgres};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// For one request.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Of a worker: rounds of deletions that end for whoever waits for them, and by no time or number.
pub(crate) const LONG_ROUNDS: &[&str] = &["--fault", "long-rounds:"];

/// The servers of one test, and a connection of its own.
pub(crate) struct System {
    pub(crate) nats: Nats,
    pub(crate) postgres: Postgres,
    pub(crate) context: Context,
    /// Of the workers' NATS user.
    seed: Secret,
}

impl Drop for System {
    fn drop(&mut self) {
        self.nats.assert_nothing_was_forbidden();
    }
}

/// The NATS servers.
pub(crate) enum Nats {
    One(NatsServer),
    Three(NatsCluster),
}

impl Nats {
    pub(crate) fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(cluster) => cluster.url(),
        }
    }

    fn address(&self) -> String {
        match self {
            Self::One(server) => server.address(),
            Self::Three(cluster) => {
                let addresses: Vec<String> = cluster.nodes.iter().map(NatsServer::address).collect();
                addresses.join(",")
            }
        }
    }

    fn assert_nothing_was_forbidden(&self) {
        match self {
            Self::One(server) => server.assert_nothing_was_forbidden(),
            Self::Three(cluster) => cluster
                .nodes
                .iter()
                .for_each(NatsServer::assert_nothing_was_forbidden),
        }
    }

    /// The first of them.
    pub(crate) fn server(&mut self) -> &mut NatsServer {
        match self {
            Self::One(server) => server,
            Self::Three(cluster) => &mut cluster.nodes[0],
        }
    }
}

/// A worker with a runtime and connections of its own, so that it can be killed.
pub(crate) struct Worker {
    pub(crate) context: Context,
    task: JoinHandle<anyhow::Result<()>>,
    runtime: Runtime,
}

/// A user with one client.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) user_id: UserId,
    pub(crate) client_id: ClientId,
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    config: FanoutWorkerConfig,
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

/// A seed for the workers' user, and what servers must know.
fn user() -> (Secret, String) {
    let key = KeyPair::new_user();
    let users = users_conf(&Topology::default(), |user| match user {
        NatsUser::FanoutWorker => vec![key.public_key()],
        _ => Vec::new(),
    });
    (Secret::new(key.seed().expect("a new key has a seed")), users)
}

impl System {
    /// With streams and tables; few parts, which are made faster than many.
    pub(crate) async fn start(partitions: u16) -> Self {
        let (seed, users) = user();
        let nats = NatsServer::start_temp_with(Some(&users)).await;
        Self::set_up(Nats::One(nats.expect("nats-server starts")), seed, partitions, 1).await
    }

    /// On three NATS nodes, with three copies of everything.
    pub(crate) async fn start_cluster(partitions: u16) -> Self {
        let (seed, users) = user();
        let cluster = NatsCluster::start_temp_with(Some(&users)).await;
        Self::set_up(
            Nats::Three(cluster.expect("nats-servers start")),
            seed,
            partitions,
            3,
        )
        .await
    }

    async fn set_up(nats: Nats, seed: Secret, partitions: u16, replicas: u8) -> Self {
        tidings_service::start::install_crypto_provider();
        let postgres = Postgres::start_temp().await;
        let postgres = postgres.expect("Postgres starts");
        let settings = NatsSettings::parse(&nats.url()).expect("the URL is valid");
        let connection = NatsConnection::connect(&settings, "setup")
            .await
            .expect("nats-server answers");
        let options = SetupOptions {
            topology: Topology {
                partitions,
                shards: 4,
            },
            replicas,
            ..SetupOptions::default()
        };
        let bus = Bus::new(connection.client().clone());
        setup::apply(&bus, &options, false)
            .await
            .expect("streams are made");
        let metadata = Metadata::connect(postgres.url(), 2).expect("the URL is valid");
        metadata.migrate().await.expect("tables are made");
        metadata.close().await;
        let context = Context::attach("test", &nats.url(), postgres.url())
            .await
            .expect("the system is set up");
        Self {
            nats,
            postgres,
            context,
            seed,
        }
    }

    pub(crate) async fn worker(&self) -> Worker {
        self.worker_with(&[]).await
    }

    /// A worker with settings of its own.
    pub(crate) async fn worker_with(&self, settings: &[&str]) -> Worker {
        self.start_worker(settings, None).await
    }

    /// A worker that has so long to stop.
    pub(crate) async fn worker_draining_for(&self, drain_timeout: Duration) -> Worker {
        self.start_worker(&[], Some(drain_timeout)).await
    }

    async fn start_worker(&self, settings: &[&str], drain_timeout: Option<Duration>) -> Worker {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads can be started");
        let settings_of_nats = NatsSettings::parse(&self.nats.address()).expect("the URL is valid");
        let nats = settings_of_nats
            .of_user(NatsUser::FanoutWorker)
            .with_seed(self.seed.clone());
        let (nats, postgres) = (nats.expect("it is a seed"), self.postgres.url().to_owned());
        let mut context = runtime
            .spawn(async move { Context::attach_by("fanout-worker", nats, &postgres).await })
            .await
            .expect("the task does not panic")
            .expect("the system is set up");
        context.base.drain_timeout = drain_timeout.unwrap_or(context.drain_timeout);
        let arguments = [&["fanout-worker"], settings].concat();
        let config = Command::parse_from(arguments).config;
        let task = runtime.spawn(tidings_fanout_worker::run(config, context.clone()));
        Worker {
            context,
            task,
            runtime,
        }
    }

    /// Registers a client of a user.
    pub(crate) async fn register(&self, user: &str) -> Person {
        let person = Person {
            user_id: UserId::new(user).expect("a user id"),
            client_id: ClientId(Uuid::new_v4()),
        };
        let request = RegisterClient {
            user: person.user_id.clone(),
            client: person.client_id,
            name: None,
            replace: None,
            inbox_sequence: None,
        };
        self.context
            .metadata
            .register_client(request)
            .await
            .expect("the client is registered");
        self.flush(OutboxKey::User(person.user_id.clone())).await;
        person
    }

    /// Publishes what Postgres holds of a chat or user, and says the last sequence.
    pub(crate) async fn flush(&self, key: OutboxKey) -> u64 {
        let Context { bus, topology, .. } = &self.context;
        let flushed = outbox::flush(&self.context.metadata, bus, topology, key)
            .await
            .expect("NATS and Postgres answer");
        flushed.last().map_or(0, |flushed| flushed.seq)
    }

    /// A group of these users; the first one creates it. Says the sequence of its first event, too.
    pub(crate) async fn chat(&self, users: &[&UserId]) -> (ChatId, u64) {
        let chat = NewChat {
            creator: users[0].clone(),
            request_id: RequestId(Uuid::new_v4()),
            others: users[1..].iter().map(|user| (*user).clone()).collect(),
            name: Some("Lunch".to_owned()),
        };
        let outcome = self
            .context
            .metadata
            .create_chat(chat)
            .await
            .expect("the chat is created");
        (
            outcome.chat_id,
            self.flush(OutboxKey::Chat(outcome.chat_id)).await,
        )
    }

    /// Adds or removes somebody; says the change's sequence.
    pub(crate) async fn modify(
        &self,
        chat_id: ChatId,
        by: &UserId,
        operation: Operation,
        user: &UserId,
    ) -> u64 {
        let modify = ModifyParticipants {
            by: by.clone(),
            request_id: RequestId(Uuid::new_v4()),
            chat_id,
            user: user.clone(),
            operation,
        };
        self.context
            .metadata
            .modify_participants(modify)
            .await
            .expect("the chat is changed");
        self.flush(OutboxKey::Chat(chat_id)).await
    }

    /// Publishes a message as a gateway does, again until it is accepted; says its sequence.
    pub(crate) async fn send(&self, chat_id: ChatId, from: &Person, text: &str) -> u64 {
        self.send_with(chat_id, from, text, Vec::new(), None).await
    }

    /// The same, of a message that names attachments which were granted to a version of the chat.
    pub(crate) async fn send_with(
        &self,
        chat_id: ChatId,
        from: &Person,
        text: &str,
        attachments: Vec<Attachment>,
        granted: Option<u64>,
    ) -> u64 {
        let event = Event::Message(Message {
            chat_id,
            message_id: MessageId(Uuid::new_v4()),
            user_id: from.user_id.clone(),
            client_id: from.client_id,
            sent_at: Timestamp(0),
            message: text.to_owned(),
            attachments,
        });
        let mut headers = event_headers(&event, &event.message_id());
        if let Some(version) = granted {
            headers.insert(HEADER_GRANTED, version.to_string());
        }
        let subject = chat_subject(self.context.topology.partition(chat_id), chat_id);
        let send = async {
            loop {
                let (subject, headers) = (subject.clone(), headers.clone());
                let timeout = Duration::from_secs(2);
                let bus = &self.context.bus;
                match bus.publish(subject, headers, event.encode(), timeout).await {
                    Ok(accepted) => return accepted.sequence,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, send)
            .await
            .expect("CHATS takes it")
    }

    /// Has the consumer of a chat's partition deliver from this sequence on.
    pub(crate) async fn move_consumer(&self, chat_id: ChatId, sequence: u64) {
        let consumer = fanout_consumer(self.context.topology.partition(chat_id));
        let subject = format!("CONSUMER.RESET.{CHATS}.{consumer}");
        let body = json!({ "seq": sequence });
        let moved = self.context.bus.api::<Value>(&subject, &body, PATIENCE);
        moved.await.expect("the consumer is reset");
    }

    /// Deletes an event from CHATS, as a worker that has finished it does.
    pub(crate) async fn take_away(&self, sequence: u64) {
        self.context
            .bus
            .delete_message(CHATS, sequence, Duration::from_secs(5))
            .await
            .expect("the event is deleted");
    }

    /// Writes where a client is connected; says the revision.
    pub(crate) async fn connect(&self, person: &Person, gateway: &str, connection: u64) -> u64 {
        let key = SessionKey {
            gateway: gateway.to_owned(),
            connection,
            user_id: person.user_id.clone(),
            since: Timestamp(0),
        };
        let subject = format!("$KV.{SESSIONS}.{}", person.client_id);
        self.context
            .bus
            .publish_with_id(
                subject,
                &Uuid::new_v4().to_string(),
                key.encode(),
                Duration::from_secs(5),
            )
            .await
            .expect("SESSIONS takes it")
            .sequence
    }

    /// What an inbox holds, in order, with the stream sequences.
    pub(crate) async fn inbox(&self, user_id: &UserId, inbox: Inbox) -> Vec<(u64, Entry)> {
        let mut entries = Vec::new();
        for (sequence, entry) in self.stored_inbox(user_id, inbox).await {
            let entry = match entry {
                InboxEntry::Whole(entry) => entry,
                InboxEntry::Reference(reference) => {
                    let body = self
                        .context
                        .bus
                        .message_at(BODIES, reference.to.body, TIMEOUT)
                        .await;
                    let body = body.expect("BODIES answers").expect("the body is there");
                    reference.follow(&body.payload).expect("it is that body")
                }
            };
            entries.push((sequence, entry));
        }
        entries
    }

    /// The same as it is stored, with references.
    pub(crate) async fn stored_inbox(&self, user_id: &UserId, inbox: Inbox) -> Vec<(u64, InboxEntry)> {
        let topology = &self.context.topology;
        let stream = inbox_stream(topology.shard(user_id));
        let subject = inbox_subject(topology, user_id, inbox);
        let began = Instant::now();
        let (mut from, mut entries) = (1, Vec::new());
        loop {
            let read = self
                .context
                .bus
                .next_by_subject(&stream, &subject, from, 1_000, 1 << 20, Duration::from_secs(5))
                .await;
            let (messages, more) = match read {
                // Its server has just come back.
                Err(ApiError::NoResponders(_)) if began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                read => read.expect("the inbox's stream answers"),
            };
            for message in messages {
                from = message.sequence + 1;
                let entry = InboxEntry::decode(&message.payload).expect("a worker wrote it");
                entries.push((message.sequence, entry));
            }
            if !more {
                return entries;
            }
        }
    }

    /// Waits until a person's inbox holds so many entries.
    pub(crate) async fn wait_for_entries(&self, person: &Person, count: usize) -> Vec<(u64, Entry)> {
        let wait = async {
            loop {
                let entries = self.inbox(&person.user_id, Inbox::Client(person.client_id)).await;
                if entries.len() >= count {
                    return entries;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if let Ok(entries) = tokio::time::timeout(PATIENCE, wait).await {
            return entries;
        }
        let inbox = Inbox::Client(person.client_id);
        let found = self.inbox(&person.user_id, inbox).await.len();
        panic!("{found} of {count} entries of {}", person.user_id);
    }

    /// Changes the settings of a stream.
    pub(crate) async fn update_stream(&self, stream: &str, change: impl FnOnce(&mut Value)) {
        let bus = &self.context.bus;
        let mut info: Value = bus
            .api(&format!("STREAM.INFO.{stream}"), &json!({}), TIMEOUT)
            .await
            .expect("the stream is there");
        change(&mut info["config"]);
        let _: Value = bus
            .api(&format!("STREAM.UPDATE.{stream}"), &info["config"], TIMEOUT)
            .await
            .expect("the stream can be changed");
    }

    /// Waits until every accepted event has left CHATS.
    pub(crate) async fn wait_until_fanned_out(&self) {
        let wait = async {
            while self.stored("CHATS").await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("every event is fanned out");
    }

    /// How many messages a stream holds.
    pub(crate) async fn stored(&self, stream: &str) -> u64 {
        let mut stream = self
            .context
            .bus
            .jetstream()
            .get_stream(stream)
            .await
            .expect("the stream is there");
        stream.info().await.expect("the stream answers").state.messages
    }
}

impl Worker {
    /// Stops as SIGTERM does, and waits for the end.
    pub(crate) async fn stop(self) {
        self.context.stopping.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the worker ends in time")
            .expect("the worker does not panic")
            .expect("the worker ends well");
        self.runtime.shutdown_background();
    }

    /// Ends in the middle of whatever it is doing.
    pub(crate) fn kill(self) {
        self.runtime.shutdown_background();
    }
}

/// What a gateway hears.
pub(crate) struct Gateway {
    subscription: async_nats::Subscriber,
}

impl Gateway {
    /// From now on.
    pub(crate) async fn listen(system: &System, name: &str) -> Self {
        let client = system.context.nats.client();
        let subscription = client
            .subscribe(live_subject(name))
            .await
            .expect("NATS is connected");
        Self { subscription }
    }

    async fn next<T>(&mut self, mut pick: impl FnMut(LiveMessage) -> Option<T>) -> T {
        let wait = async {
            loop {
                let message = self.subscription.next().await.expect("the subscription goes on");
                let message = LiveMessage::decode(&message.payload).expect("a worker wrote it");
                if let Some(found) = pick(message) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it is told")
    }

    /// The next notice.
    pub(crate) async fn notice(&mut self) -> Notice {
        self.next(|message| match message {
            LiveMessage::Notice(notice) => Some(notice),
            LiveMessage::Direct(_) | LiveMessage::Beacon(_) => None,
        })
        .await
    }

    /// Whether the notice of this event is direct.
    pub(crate) async fn is_direct(&mut self, event: u64) -> bool {
        let is_of = |entry: &[u8]| Entry::decode(entry).expect("a worker wrote it").seq == event;
        self.next(|message| match message {
            LiveMessage::Direct(notice) => is_of(&notice.entry).then_some(true),
            LiveMessage::Notice(notice) => is_of(&notice.entry).then_some(false),
            LiveMessage::Beacon(_) => None,
        })
        .await
    }

    /// The next direct notice.
    pub(crate) async fn direct(&mut self) -> DirectNotice {
        self.next(|message| match message {
            LiveMessage::Direct(notice) => Some(notice),
            LiveMessage::Notice(_) | LiveMessage::Beacon(_) => None,
        })
        .await
    }

    /// The next beacon that will do.
    pub(crate) async fn beacon(&mut self, mut pick: impl FnMut(&Beacon) -> bool) -> Beacon {
        self.next(|message| match message {
            LiveMessage::Beacon(beacon) if pick(&beacon) => Some(beacon),
            _ => None,
        })
        .await
    }
}

/// The texts of the messages of each chat, in the order of the entries.
pub(crate) fn texts(entries: &[(u64, Entry)]) -> BTreeMap<ChatId, Vec<String>> {
    let mut texts: BTreeMap<ChatId, Vec<String>> = BTreeMap::new();
    for (_, entry) in entries {
        if let Event::Message(message) = &entry.event {
            texts
                .entry(message.chat_id)
                .or_default()
                .push(message.message.clone());
        }
    }
    texts
}

/// The changes among the entries.
pub(crate) fn changes(entries: &[(u64, Entry)]) -> Vec<&ChatUpdate> {
    entries
        .iter()
        .filter_map(|(_, entry)| match &entry.event {
            Event::ChatUpdate(update) => Some(update),
            Event::Message(_) => None,
        })
        .collect()
}
