//! A system of real servers with inbox workers in it, and inboxes that are written by hand.

use std::time::Duration;

use clap::Parser;
use nkeys::KeyPair;
use tidings_inbox_worker::InboxWorkerConfig;
use tidings_metadata::{Metadata, RegisterClient, Registered};
use tidings_nats::setup::{self, SetupOptions};
use tidings_nats::{
    Bus, Entry, Event, Inbox, Lost, Message, NatsUser, Shard, Topology, durable_config, event_headers,
    inbox_stream, inbox_subject, lost_subject, users_conf,
};
use tidings_protocol::{ChatId, ClientId, MessageId, Timestamp, UserId};
use tidings_service::{Context, NatsConnection, NatsSettings, Secret, clock};
use tidings_stack::{NatsServer, Postgres};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_mins(1);
/// For one request.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// The servers of one test, and a connection of its own.
pub(crate) struct System {
    nats: NatsServer,
    /// Of the workers' NATS user.
    seed: Secret,
    _postgres: Postgres,
    urls: [String; 2],
    pub(crate) context: Context,
}

impl Drop for System {
    fn drop(&mut self) {
        self.nats.assert_nothing_was_forbidden();
    }
}

/// A worker that runs until it is stopped.
pub(crate) struct Worker {
    pub(crate) context: Context,
    task: JoinHandle<anyhow::Result<()>>,
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    config: InboxWorkerConfig,
}

impl System {
    /// With streams and tables; few shards, which are made faster than many.
    pub(crate) async fn start() -> Self {
        tidings_service::start::install_crypto_provider();
        let key = KeyPair::new_user();
        let users = users_conf(&Topology::default(), |user| match user {
            NatsUser::InboxWorker => vec![key.public_key()],
            _ => Vec::new(),
        });
        let nats = NatsServer::start_temp_with(Some(&users)).await;
        let nats = nats.expect("nats-server starts");
        let postgres = Postgres::start_temp().await.expect("Postgres starts");
        let settings = NatsSettings::parse(&nats.url()).expect("the URL is valid");
        let connection = NatsConnection::connect(&settings, "setup").await;
        let bus = Bus::new(connection.expect("nats-server answers").client().clone());
        let topology = Topology {
            partitions: 1,
            shards: 4,
        };
        let options = SetupOptions {
            topology,
            replicas: 1,
            ..SetupOptions::default()
        };
        setup::apply(&bus, &options, false)
            .await
            .expect("streams are made");
        let metadata = Metadata::connect(postgres.url(), 2).expect("the URL is valid");
        metadata.migrate().await.expect("tables are made");
        let urls = [nats.url(), postgres.url().to_owned()];
        let context = Context::attach("test", &urls[0], &urls[1]).await;
        Self {
            nats,
            seed: Secret::new(key.seed().expect("a new key has a seed")),
            _postgres: postgres,
            urls,
            context: context.expect("the system is set up"),
        }
    }

    /// Where its Postgres is.
    pub(crate) fn postgres_url(&self) -> &str {
        &self.urls[1]
    }

    /// A service of some kind, with connections of its own.
    pub(crate) async fn attach(&self, service: &'static str) -> Context {
        let context = Context::attach(service, &self.urls[0], &self.urls[1]).await;
        context.expect("the system is set up")
    }

    /// Starts an inbox worker with these settings.
    pub(crate) async fn worker(&self, settings: &[&str]) -> Worker {
        let nats = NatsSettings::parse(&self.nats.address()).expect("the URL is valid");
        let nats = nats.of_user(NatsUser::InboxWorker).with_seed(self.seed.clone());
        let nats = nats.expect("it is a seed");
        let context = Context::attach_by("inbox-worker", nats, &self.urls[1]).await;
        let context = context.expect("the system is set up");
        let config = Command::parse_from([&["inbox-worker"], settings].concat()).config;
        let task = tokio::spawn(tidings_inbox_worker::run(config, context.clone()));
        Worker { context, task }
    }

    /// Registers a client.
    pub(crate) async fn register(&self, user_id: &UserId, client_id: ClientId) -> Registered {
        let hello = RegisterClient {
            user: user_id.clone(),
            client: client_id,
            name: None,
            replace: None,
            inbox_sequence: None,
        };
        let registered = self.context.metadata.register_client(hello).await;
        registered.expect("the client is registered")
    }

    pub(crate) fn shard(&self, user_id: &UserId) -> Shard {
        self.context.topology.shard(user_id)
    }

    pub(crate) fn subject(&self, user_id: &UserId, inbox: Inbox) -> String {
        inbox_subject(&self.context.topology, user_id, inbox)
    }

    /// Stores an entry, as a fan-out worker does, of a message that was accepted then; says its sequence.
    pub(crate) async fn store(
        &self,
        user_id: &UserId,
        inbox: Inbox,
        chat_id: ChatId,
        sent_at: Timestamp,
    ) -> u64 {
        let event = Event::Message(Message {
            chat_id,
            message_id: MessageId(Uuid::new_v4()),
            user_id: user("sender"),
            client_id: ClientId(Uuid::new_v4()),
            sent_at,
            message: "hi".to_owned(),
            attachments: vec![],
        });
        let entry = Entry { seq: 1, event };
        let headers = event_headers(&entry.event, &Uuid::new_v4().to_string());
        let subject = self.subject(user_id, inbox);
        let stored = self
            .context
            .bus
            .publish(subject, headers, entry.encode(), TIMEOUT)
            .await;
        stored.expect("the inbox takes it").sequence
    }

    /// Gives a client its durable.
    pub(crate) async fn make_durable(&self, user_id: &UserId, client_id: ClientId) {
        let config = durable_config(&self.context.topology, user_id, client_id, true);
        let made = self
            .context
            .bus
            .create_durable(self.shard(user_id), &config, TIMEOUT)
            .await;
        made.expect("the durable is made");
    }

    pub(crate) async fn has_durable(&self, user_id: &UserId, client_id: ClientId) -> bool {
        let bus = &self.context.bus;
        match bus.durable_info(self.shard(user_id), client_id, TIMEOUT).await {
            Ok(_) => true,
            Err(error) if error.not_found() => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The sequences of the entries of an inbox.
    pub(crate) async fn entries(&self, user_id: &UserId, inbox: Inbox) -> Vec<u64> {
        let (stream, subject) = (inbox_stream(self.shard(user_id)), self.subject(user_id, inbox));
        let entries = self
            .context
            .bus
            .leader_all(&stream, &subject, 1, 1_000, TIMEOUT)
            .await;
        let entries = entries.expect("the stream answers");
        entries.iter().map(|entry| entry.sequence).collect()
    }

    /// The marks of an inbox.
    pub(crate) async fn marks(&self, user_id: &UserId, inbox: Inbox) -> Vec<Lost> {
        let stream = inbox_stream(self.shard(user_id));
        let subject = lost_subject(&self.subject(user_id, inbox));
        let marks = self
            .context
            .bus
            .leader_all(&stream, &subject, 1, 100, TIMEOUT)
            .await;
        let marks = marks.expect("the stream answers");
        let marks = marks.iter().map(|mark| Lost::decode(&mark.payload));
        marks.map(|mark| mark.expect("it is a mark")).collect()
    }
}

impl Worker {
    /// Why the clocks do not agree, once they were compared.
    pub(crate) async fn clock(&self) -> Option<String> {
        until("the clocks are compared", async || {
            let states = self.context.conditions.states();
            let clock = states.get("clock")?;
            let reason = clock.reason.clone().unwrap_or_default();
            (reason != "not known yet").then_some(clock.reason.clone())
        })
        .await
    }

    /// Ends it in the middle of whatever it is doing. What it has begun beside that goes on for a moment.
    pub(crate) fn kill(self) {
        self.task.abort();
    }

    /// Stops as SIGTERM does, and waits for the end.
    pub(crate) async fn stop(self) {
        self.context.stopping.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended
            .expect("the worker ends in time")
            .expect("the worker does not panic")
            .expect("the worker ends well");
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"))
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::new(id).expect("a user id")
}

pub(crate) fn chat(id: u128) -> ChatId {
    ChatId(Uuid::from_u128(id))
}

/// This machine's clock, so many seconds later.
pub(crate) fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp(clock::now().0 + seconds * 1_000)
}
