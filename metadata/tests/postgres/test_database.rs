//! A database for each test, on one server for all of them, and what tests do to it.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _};
use tidings_metadata::{
    ChatOutcome, Metadata, ModifyParticipants, NewChat, OutboxKey, RegisterClient, Registered,
};
use tidings_protocol::{ChatId, ClientId, Operation, RequestId, UserId};
use tidings_stack::Finder;
use uuid::Uuid;

/// More than the connections that any test's tasks want at once: a pool that is too small would put tasks in line
/// that are to race.
const CONNECTIONS_MAX: u32 = 40;
/// When a condition that must come true counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    /// Its standard input is what keeps the server up.
    _process: Child,
    socket: String,
}

impl Server {
    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.socket)
    }
}

/// One server for all tests of this program. Not one of `tidings_stack`'s, which end when they are dropped: what is
/// shared by tests is dropped by none of them.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut process = Command::new("sh")
            .arg("-c")
            .arg(include_str!("server.sh"))
            .arg("server.sh")
            .arg(programs())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh can be started");
        let mut socket = String::new();
        let output = process.stdout.take().expect("standard output is piped");
        BufReader::new(output)
            .read_line(&mut socket)
            .expect("the script can be read");
        let socket = socket.trim().to_owned();
        assert!(!socket.is_empty(), "PostgreSQL does not start: see above");
        Server {
            _process: process,
            socket,
        }
    })
}

/// A database of its own for one test.
pub(crate) struct TestDatabase {
    pub(crate) metadata: Metadata,
    /// For what the API does not do: to look behind it, and to move time.
    pub(crate) pool: PgPool,
    /// Where it is.
    pub(crate) url: String,
}

/// The folder of the server's programs.
pub(crate) fn programs() -> PathBuf {
    let found = Finder::from_env(&|line| eprintln!("{line}")).and_then(|finder| finder.postgres(None));
    found.expect("PostgreSQL can be found or installed").folder
}

impl TestDatabase {
    /// Without tables.
    pub(crate) async fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let url = server().url("postgres");
        let mut connection = PgConnection::connect(&url).await.expect("the server is up");
        let create = format!("CREATE DATABASE {name}");
        sqlx::query(AssertSqlSafe(create))
            .execute(&mut connection)
            .await
            .expect("databases can be made");
        let url = server().url(&name);
        let pool = PgPoolOptions::new()
            .max_connections(5)
            .connect_lazy(&url)
            .expect("the URL is valid");
        Self {
            metadata: Metadata::connect(&url, CONNECTIONS_MAX).expect("the URL is valid"),
            pool,
            url,
        }
    }

    /// With tables.
    pub(crate) async fn new() -> Self {
        let database = Self::empty().await;
        database
            .metadata
            .migrate()
            .await
            .expect("an empty database can be migrated");
        database
    }

    /// Opens this many connections, so that tasks which are to race do not wait for theirs on a busy machine.
    pub(crate) async fn open_connections(&self, count: u64) {
        let mut locks = Vec::new();
        for number in 0..count {
            let key = OutboxKey::User(user(&format!("nobody {number}")));
            locks.push(
                self.metadata
                    .lock_outbox(key)
                    .await
                    .expect("nobody else locks this key"),
            );
        }
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::query(sql)
            .execute(&self.pool)
            .await
            .expect("the test's SQL is right");
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&self.pool)
            .await
            .expect("the test's SQL is right")
    }

    /// Waits until this many sessions of this database wait for a lock.
    pub(crate) async fn until_waiting(&self, sessions: i64) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        self.until(waiting, sessions).await;
    }

    /// Waits until a query counts so many.
    pub(crate) async fn until(&self, sql: &'static str, wanted: i64) {
        let since = Instant::now();
        loop {
            let count = self.count(sql).await;
            if count == wanted {
                return;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "{count}, not {wanted}, are counted by {sql}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn register(&self, user_id: &str, client: ClientId) -> Registered {
        self.metadata
            .register_client(hello(user_id, client))
            .await
            .expect("the client can register")
    }

    /// Publishes what the outbox holds, pretending that the stream gives out sequences from `seq`. Returns the
    /// versions in the order in which they were published.
    pub(crate) async fn publish(&self, key: OutboxKey, seq: u64) -> Vec<u64> {
        let mut lock = self
            .metadata
            .lock_outbox(key)
            .await
            .expect("nobody holds the lock");
        let mut versions = Vec::new();
        for (row, seq) in lock
            .rows()
            .await
            .expect("the rows can be read")
            .into_iter()
            .zip(seq..)
        {
            lock.mark_sent(row.outbox_id, seq)
                .await
                .expect("the row is there");
            versions.push(row.version);
        }
        lock.commit().await.expect("the lock was held");
        versions
    }

    /// How much the outbox holds of a key.
    pub(crate) async fn unsent(&self, key: &OutboxKey) -> u64 {
        self.metadata
            .unsent_rows(key)
            .await
            .expect("the rows can be counted")
    }

    /// A group with a name.
    pub(crate) async fn group(&self, creator: &str, others: &[&str]) -> ChatId {
        let outcome = self
            .metadata
            .create_chat(new_chat(creator, others, Some("Lunch")))
            .await;
        outcome.expect("the chat is valid").chat_id
    }

    /// A change that must succeed.
    pub(crate) async fn change(
        &self,
        chat_id: ChatId,
        by: &str,
        operation: Operation,
        whom: &str,
    ) -> ChatOutcome {
        let asked = modify(chat_id, by, operation, whom);
        self.metadata
            .modify_participants(asked)
            .await
            .expect("the change is allowed")
    }

    /// The participants as a text: admins with a star, the longest-standing first.
    pub(crate) async fn participants(&self, chat_id: ChatId) -> String {
        let record = self
            .metadata
            .chat(chat_id)
            .await
            .expect("the chat can be read")
            .expect("there is one");
        described(&record.chat.participants)
    }
}

/// Participants as a text: admins with a star.
pub(crate) fn described(participants: &[tidings_protocol::Participant]) -> String {
    let texts = participants.iter().map(|one| match one.role {
        tidings_protocol::Role::Admin => format!("{}*", one.user_id),
        tidings_protocol::Role::Member => one.user_id.to_string(),
    });
    texts.collect::<Vec<_>>().join(" ")
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::new(id).expect("printable")
}

pub(crate) fn client() -> ClientId {
    ClientId(Uuid::new_v4())
}

pub(crate) fn request() -> RequestId {
    RequestId(Uuid::new_v4())
}

pub(crate) fn hello(user_id: &str, client: ClientId) -> RegisterClient {
    RegisterClient {
        user: user(user_id),
        client,
        name: None,
        replace: None,
        inbox_sequence: None,
    }
}

pub(crate) fn new_chat(creator: &str, others: &[&str], name: Option<&str>) -> NewChat {
    NewChat {
        creator: user(creator),
        request_id: request(),
        others: others.iter().map(|id| user(id)).collect(),
        name: name.map(str::to_owned),
    }
}

pub(crate) fn modify(chat_id: ChatId, by: &str, operation: Operation, whom: &str) -> ModifyParticipants {
    ModifyParticipants {
        by: user(by),
        request_id: request(),
        chat_id,
        user: user(whom),
        operation,
    }
}

/// Runs the futures at once, each as a task, and returns what they returned.
pub(crate) async fn at_once<F>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut outputs = Vec::with_capacity(tasks.len());
    for task in tasks {
        outputs.push(task.await.expect("the task does not panic"));
    }
    outputs
}
