//! What each NATS user may do and may not, asked of a real server with the streams of a real system.

use std::collections::HashMap;

use async_nats::{ConnectOptions, Event};
use futures::StreamExt as _;
use nkeys::KeyPair;
use tempfile::TempDir;
use tidings_nats::setup::{self, SetupOptions};
use tidings_nats::{ApiError, Bus, CHATS, NatsUser, Topology, users_conf};
use tidings_stack::{Finder, NatsOptions, NatsPorts, NatsSecrets, NatsServer};
use tokio::sync::mpsc;

use NatsUser::{FanoutWorker, Gateway, InboxWorker, Operator, Setup};

/// Forbidden to everybody but the admin, so that whoever asks for it last knows that everything before was answered.
const SENTINEL: &str = "sentinel";

/// A server that knows the users of [`users_conf`].
struct System {
    server: NatsServer,
    seeds: HashMap<NatsUser, String>,
    _dir: TempDir,
}

/// A connection, and what the server has said on it.
struct Somebody {
    client: async_nats::Client,
    said: mpsc::UnboundedReceiver<String>,
}

/// What somebody tries.
#[derive(Copy, Clone, Debug)]
enum Try {
    Publish(&'static str),
    Listen(&'static str),
}
use Try::{Listen, Publish};

impl System {
    async fn start() -> Self {
        let dir = TempDir::with_prefix("tidings-users-").expect("a folder for the test");
        let keys = NatsUser::ALL.map(|user| (user, KeyPair::new_user()));
        let public: HashMap<NatsUser, String> =
            keys.iter().map(|(user, key)| (*user, key.public_key())).collect();
        let seeds = keys
            .iter()
            .map(|(user, key)| (*user, key.seed().expect("a new key has a seed")));
        let seeds = seeds.collect();
        let options = NatsOptions {
            dir: dir.path().to_owned(),
            logs: dir.path().to_owned(),
            ports: NatsPorts::free(1).expect("free ports"),
            secrets: NatsSecrets::random(),
            users: Some(users_conf(&Topology::default(), |user| {
                vec![public[&user].clone()]
            })),
        };
        let program = tokio::task::spawn_blocking(|| Finder::from_env(&|line| eprintln!("{line}"))?.nats());
        let program = program.await.expect("no panic").expect("nats-server is found");
        let mut servers = NatsServer::prepare(&program, &options).expect("configurations are written");
        let mut server = servers.remove(0);
        server.start().await.expect("nats-server takes the users");
        Self {
            server,
            seeds,
            _dir: dir,
        }
    }

    async fn somebody(&self, user: NatsUser) -> Somebody {
        let (sender, said) = mpsc::unbounded_channel();
        let client = ConnectOptions::with_nkey(self.seeds[&user].clone())
            .custom_inbox_prefix(user.inbox_prefix())
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    let _ = sender.send(error.to_string());
                }
                std::future::ready(())
            })
            .connect(self.server.url())
            .await
            .expect("the server knows the user");
        Somebody { client, said }
    }
}

impl Somebody {
    async fn is_forbidden(&mut self, what: Try) -> bool {
        let subject = match what {
            Publish(subject) => {
                let published = self.client.publish(subject, "".into()).await;
                published.expect("the connection is up");
                subject
            }
            Listen(subject) => {
                let subscription = self.client.subscribe(subject).await;
                // Kept by the server until the connection ends.
                std::mem::forget(subscription.expect("the connection is up"));
                subject
            }
        };
        let published = self.client.publish(SENTINEL, "".into()).await;
        published.expect("the connection is up");
        let mut forbidden = false;
        loop {
            let said = self.said.recv().await.expect("the connection is up");
            assert!(said.contains("Permissions Violation"), "{said}");
            if said.contains(&format!("\"{SENTINEL}\"")) {
                return forbidden;
            }
            forbidden |= said.contains(&format!("\"{subject}\""));
        }
    }
}

/// What nobody may, whoever they are.
const NOBODY: &[Try] = &[
    Publish("$JS.API.STREAM.DELETE.CHATS"),
    Publish("$JS.API.STREAM.DELETE.INBOX_07"),
    Publish("$JS.API.STREAM.DELETE.KV_SESSIONS"),
    Publish("$JS.API.STREAM.PURGE.CHATS"),
    Publish("$JS.API.STREAM.PURGE.DEAD_LETTERS"),
    Publish("$JS.API.STREAM.PURGE.KV_SESSIONS"),
    Publish("$JS.API.STREAM.CREATE.OTHER"),
    Publish("$JS.API.STREAM.UPDATE.OTHER"),
    Publish("$JS.API.STREAM.SNAPSHOT.CHATS"),
    Publish("$JS.API.STREAM.RESTORE.CHATS"),
    Publish("$JS.API.CONSUMER.DELETE.DEAD_LETTERS.x"),
    Publish("$JS.API.CONSUMER.CREATE.DEAD_LETTERS.x"),
    Publish("$JS.API.CONSUMER.PAUSE.CHATS.fanout-03"),
    Publish("$SYS.REQ.SERVER.PING"),
    Publish("whatever"),
    Listen(">"),
    Listen("*"),
    Listen("inbox.>"),
    Listen("*.*"),
    Listen("*.>"),
    Listen("dead.>"),
    Listen("invalidation.>"),
    Listen("$KV.>"),
    Listen("$JS.>"),
    Listen("$SYS.>"),
];

/// What services and setup may not, beside it: others' work.
const FORBIDDEN: &[(NatsUser, &[Try])] = &[
    (
        Gateway,
        &[
            // Streams and their settings.
            Publish("$JS.API.STREAM.UPDATE.CHATS"),
            Publish("$JS.API.STREAM.UPDATE.INBOX_07"),
            Publish("$JS.API.STREAM.CREATE.CHATS"),
            Publish("$JS.API.STREAM.PURGE.INBOX_07"),
            Publish("$JS.API.STREAM.LIST"),
            // Events, but for accepting them.
            Publish("$JS.API.STREAM.MSG.DELETE.CHATS"),
            Publish("$JS.API.STREAM.MSG.GET.CHATS"),
            Publish("$JS.API.DIRECT.GET.CHATS"),
            Publish("$JS.API.CONSUMER.CREATE.CHATS.x"),
            Publish("$JS.API.CONSUMER.CREATE.CHATS.fanout-03.chat.03.*"),
            Publish("$JS.API.CONSUMER.DELETE.CHATS.fanout-03"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.CHATS.fanout-03"),
            Publish("$JS.API.CONSUMER.RESET.CHATS.fanout-03"),
            Publish("$JS.API.CONSUMER.UNPIN.CHATS.fanout-03"),
            Publish("$JS.ACK.CHATS.fanout-03.1.2.3.4.5"),
            Listen("chat.>"),
            // Dead letters.
            Publish("$JS.API.STREAM.MSG.GET.DEAD_LETTERS"),
            Publish("$JS.API.STREAM.MSG.DELETE.DEAD_LETTERS"),
            Publish("$JS.API.DIRECT.GET.DEAD_LETTERS"),
            Publish("$JS.API.DIRECT.GET.DEAD_LETTERS.dead.03.x"),
            Publish("dead.03.x"),
            // Bodies, but for reading them.
            Publish("body.07"),
            Publish("body.07.entries"),
            Publish("$JS.API.STREAM.PURGE.BODIES"),
            // Workers' lanes: what a worker stores, and says to gateways.
            Publish("inbox.07.alice.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("inbox.07.alice.first"),
            Publish("live.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("$KV.TRIALS.03"),
            Publish("$KV.INSTANCES.fanout-worker.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("$KV.INSTANCES.inbox-worker.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("$JS.API.CONSUMER.CREATE.KV_SESSIONS.x"),
            Publish("$JS.API.STREAM.MSG.DELETE.KV_SESSIONS"),
            // What others are answered.
            Publish("_INBOX_fanout-worker.x.y"),
            Listen("_INBOX_fanout-worker.>"),
            Listen("_INBOX.>"),
        ],
    ),
    (
        FanoutWorker,
        &[
            Publish("$JS.API.STREAM.MSG.DELETE.BODIES"),
            Publish("invalidation.user.alice"),
            Publish("close.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("$KV.SESSIONS.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("$KV.INSTANCES.gateway.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("$JS.API.STREAM.UPDATE.CHATS"),
            Publish("$JS.API.STREAM.PURGE.INBOX_07"),
            Publish("$JS.API.STREAM.LIST"),
            Publish("$JS.API.CONSUMER.CREATE.CHATS.x"),
            Publish("$JS.API.CONSUMER.DELETE.CHATS.fanout-03"),
            Publish("$JS.API.CONSUMER.CREATE.INBOX_07.x"),
            Publish("$JS.API.CONSUMER.DELETE.INBOX_07.x"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.INBOX_07.x"),
            Publish("$JS.API.STREAM.MSG.GET.DEAD_LETTERS"),
            Publish("$JS.API.STREAM.MSG.DELETE.DEAD_LETTERS"),
            Publish("_INBOX_gateway.x.y"),
            Listen("_INBOX_gateway.>"),
            Listen("live.*"),
            Listen("close.*"),
            Listen("chat.>"),
        ],
    ),
    (
        InboxWorker,
        &[
            Publish("live.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("close.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("dead.03.x"),
            Publish("body.07"),
            Publish("inbox.07.alice.first"),
            Publish("$KV.SESSIONS.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("$KV.TRIALS.03"),
            Publish("$KV.INSTANCES.gateway.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("$JS.API.STREAM.UPDATE.INBOX_07"),
            Publish("$JS.API.STREAM.MSG.DELETE.CHATS"),
            Publish("$JS.API.STREAM.MSG.GET.CHATS"),
            Publish("$JS.API.CONSUMER.DELETE.CHATS.fanout-03"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.CHATS.fanout-03"),
            Publish("$JS.API.CONSUMER.CREATE.INBOX_07.x"),
            Publish("$JS.API.STREAM.MSG.GET.DEAD_LETTERS"),
            Listen("_INBOX_gateway.>"),
            Listen("live.*"),
            Listen("close.*"),
        ],
    ),
    (
        Setup,
        &[
            Publish("chat.03.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("inbox.07.alice.first"),
            Publish("live.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("close.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("$KV.SESSIONS.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("$JS.API.STREAM.MSG.GET.CHATS"),
            Publish("$JS.API.STREAM.MSG.DELETE.CHATS"),
            Publish("$JS.API.STREAM.PURGE.INBOX_07"),
            Publish("$JS.API.DIRECT.GET.INBOX_07"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.CHATS.fanout-03"),
            Publish("$JS.API.CONSUMER.CREATE.INBOX_07.x"),
            Listen("_INBOX_gateway.>"),
            Listen("chat.>"),
        ],
    ),
    (
        Operator,
        &[
            Publish("live.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("dead.03.x"),
            Publish("invalidation.chat.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("$KV.SESSIONS.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("$KV.INSTANCES.gateway.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("$KV.TRIALS.03"),
            Publish("$JS.API.STREAM.UPDATE.CHATS"),
            Publish("$JS.API.STREAM.PURGE.INBOX_07"),
            Publish("$JS.API.STREAM.MSG.DELETE.KV_SESSIONS"),
            Publish("$JS.API.CONSUMER.CREATE.CHATS.x"),
            Publish("$JS.API.CONSUMER.DELETE.CHATS.fanout-03"),
            Publish("$JS.API.CONSUMER.CREATE.INBOX_07.x"),
            Publish("$JS.API.CONSUMER.RESET.CHATS.fanout-03"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.INBOX_07.x"),
            Publish("$JS.API.CONSUMER.DELETE.INBOX_07.x"),
            Publish("$JS.ACK.CHATS.fanout-03.1.2.3.4.5"),
            Listen("_INBOX_gateway.>"),
            Listen("close.*"),
        ],
    ),
];

/// A part of what each needs. That it is enough, every test of the whole system shows, which runs with these users.
const ALLOWED: &[(NatsUser, &[Try])] = &[
    (
        Gateway,
        &[
            Publish("chat.03.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("invalidation.user.alice"),
            Publish("$KV.SESSIONS.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("$KV.INSTANCES.gateway.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("close.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("_INBOX.x.y"),
            Publish("inbox.07.alice.018f4e2a-7c3b-7a10-8000-000000000002.lost"),
            Publish("$JS.API.STREAM.INFO.CHATS"),
            Publish("$JS.API.STREAM.MSG.DELETE.INBOX_63"),
            Publish("$JS.API.DIRECT.GET.INBOX_00"),
            Publish("$JS.API.DIRECT.GET.BODIES"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.INBOX_07.018f4e2a-7c3b-7a10-8000-000000000002"),
            Listen("_INBOX_gateway.x.*"),
            Listen("live.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Listen("close.f2d2eb3391934364ae8ae8cea9d1aeee"),
        ],
    ),
    (
        FanoutWorker,
        &[
            Publish("inbox.07.alice.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("inbox.07.alice.first.lost"),
            Publish("body.07"),
            Publish("body.07.entries"),
            Publish("chat.03.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("invalidation.chat.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("live.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("dead.03.x"),
            Publish("$KV.TRIALS.03"),
            Publish("$JS.API.CONSUMER.MSG.NEXT.CHATS.fanout-03"),
            Publish("$JS.API.CONSUMER.CREATE.CHATS.fanout-03.chat.03.*"),
            Publish("$JS.API.STREAM.MSG.DELETE.CHATS"),
            Publish("$JS.ACK.CHATS.fanout-03.1.2.3.4.5"),
            Listen("_INBOX_fanout-worker.x.*"),
        ],
    ),
    (
        InboxWorker,
        &[
            Publish("chat.03.018f4e2a-7c3b-7a10-8000-000000000002"),
            Publish("$JS.API.STREAM.LIST"),
            Publish("$JS.API.CONSUMER.LIST.CHATS"),
            Publish("$JS.API.STREAM.PURGE.INBOX_07"),
            Publish("$JS.API.STREAM.MSG.DELETE.BODIES"),
            Publish("$JS.API.CONSUMER.DELETE.INBOX_07.x"),
        ],
    ),
    (
        Setup,
        &[
            Publish("$JS.API.STREAM.UPDATE.CHATS"),
            Publish("$JS.API.CONSUMER.CREATE.CHATS.fanout-03.chat.03.*"),
            Publish("$JS.API.CONSUMER.DELETE.CHATS.fanout-03"),
        ],
    ),
    (
        Operator,
        &[
            Publish("$JS.API.STREAM.INFO.CHATS"),
            Publish("$JS.API.STREAM.MSG.GET.DEAD_LETTERS"),
            Publish("$JS.API.STREAM.MSG.DELETE.DEAD_LETTERS"),
            Publish("invalidation.user.alice"),
            Publish("close.f2d2eb3391934364ae8ae8cea9d1aeee"),
            Publish("chat.03.018f4e2a-7c3b-7a10-8000-000000000002"),
            Listen("chat.*.*"),
            Listen("live.>"),
        ],
    ),
];

#[tokio::test]
async fn everybody_may_what_they_need_and_nothing_else() {
    let system = System::start().await;
    for user in NatsUser::ALL.into_iter().filter(|user| *user != NatsUser::Admin) {
        let mut somebody = system.somebody(user).await;
        let of = |table: &[(NatsUser, &'static [Try])]| -> &'static [Try] {
            let found = table.iter().find(|(of, _)| *of == user);
            found.expect("every user is in the table").1
        };
        for what in NOBODY.iter().chain(of(FORBIDDEN)) {
            assert!(somebody.is_forbidden(*what).await, "{user:?} may {what:?}");
        }
        for what in of(ALLOWED) {
            assert!(!somebody.is_forbidden(*what).await, "{user:?} may not {what:?}");
        }
    }
}

#[tokio::test]
async fn what_is_forbidden_is_not_done() {
    let system = System::start().await;
    let setup = Bus::new(system.somebody(Setup).await.client);
    setup::apply(&setup, &SetupOptions::default(), false)
        .await
        .expect("setup may set up");
    let gateway = Bus::new(system.somebody(Gateway).await.client);
    let topology = setup::check(&gateway).await.expect("services may look");
    assert_eq!(topology, Topology::default());

    // Deleting CHATS, as a gateway and as who owns the system: only one is answered, and obeyed.
    let delete = async |user| {
        let bus = Bus::new(system.somebody(user).await.client);
        let request = format!("STREAM.DELETE.{CHATS}");
        let timeout = std::time::Duration::from_secs(1);
        bus.api::<serde_json::Value>(&request, &serde_json::json!({}), timeout)
            .await
    };
    assert_eq!(delete(Gateway).await, Err(ApiError::Timeout));
    let chats = setup::stream_config(&setup, CHATS).await;
    assert!(chats.expect("the server answers").is_some(), "it is still there");
    delete(NatsUser::Admin).await.expect("the owner may everything");
    let chats = setup::stream_config(&setup, CHATS).await;
    assert!(chats.expect("the server answers").is_none());
}

/// The decision about users (adr/0020) reckons with it: if a later server forbids it, so much the better.
#[tokio::test]
async fn a_server_answers_to_any_subject() {
    let system = System::start().await;
    let listener = system.somebody(Gateway).await.client;
    let mut lane = listener.subscribe("live.x").await.expect("a gateway may");
    listener.flush().await.expect("the connection is up");
    let worker = system.somebody(InboxWorker).await.client;
    worker
        .publish_with_reply("$JS.API.STREAM.INFO.CHATS", "live.x", "".into())
        .await
        .expect("the connection is up");
    let answer = lane.next().await.expect("the connection is up");
    assert!(answer.payload.starts_with(b"{"), "{answer:?}");
}

#[tokio::test]
async fn a_stranger_and_a_key_that_is_no_more_are_refused() {
    let mut system = System::start().await;
    system
        .seeds
        .insert(Gateway, KeyPair::new_user().seed().expect("a new key has a seed"));
    let seed = system.seeds[&Gateway].clone();
    let refused = ConnectOptions::with_nkey(seed).connect(system.server.url()).await;
    assert!(refused.is_err());
    assert!(
        async_nats::connect(system.server.url()).await.is_err(),
        "nobody comes without a key"
    );
}
