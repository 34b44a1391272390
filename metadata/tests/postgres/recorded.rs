//! The version before this one, as the database knows it: its tables (`metadata/recorded/schema.sql`), some rows that it
//! wrote (`rows.sql`), and its queries (`queries.json`). While a system is upgraded its processes go on with these
//! queries on the tables of this version.
//!
//! `TIDINGS_WRITE=1 cargo test -p tidings-metadata recorded` records this version instead, which is done when a version
//! is out, and refused while this one breaks the one before. `docs/adr/0023-two-versions-at-once.md` has the rules.

mod catalog;
mod queries;

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, raw_sql};
use tidings_metadata::{ClientState, OutboxChange, OutboxKey};
use tidings_protocol::{ChatId, ClientId, Operation};

use self::catalog::Catalog;
use self::queries::Query;
use crate::test_database::{TestDatabase, client, described, hello, programs, user};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(dir().join(file))
        .unwrap_or_else(|error| panic!("metadata/recorded/{file}: {error}"))
}

/// A database as the version before made and used it.
async fn as_before() -> TestDatabase {
    let database = TestDatabase::empty().await;
    for file in ["schema.sql", "rows.sql"] {
        raw_sql(AssertSqlSafe(read(file)))
            .execute(&database.pool)
            .await
            .unwrap_or_else(|error| panic!("metadata/recorded/{file}: {error}"));
    }
    database
}

/// What the version before suffers from the tables as they are now. Queries are asked about until there is something.
async fn breaches(before: &Catalog, queries: &[Query], connection: &mut PgConnection) -> Vec<String> {
    let mut breaches = before.breaches(&Catalog::of(connection).await);
    for query in queries {
        if !breaches.is_empty() {
            break;
        }
        if let Err(what) = query.check(connection).await {
            breaches.push(format!("{what}: {}", query.text));
        }
    }
    breaches
}

#[tokio::test]
async fn processes_of_the_version_before_go_on() {
    let write_asked = std::env::var_os("TIDINGS_WRITE").is_some();
    if write_asked && !dir().join("schema.sql").exists() {
        return write().await;
    }
    let database = as_before().await;
    let mut connection = database.pool.acquire().await.expect("the server is up");
    let before = Catalog::of(&mut connection).await;
    database
        .metadata
        .migrate()
        .await
        .expect("its tables can be upgraded");
    let queries = Query::recorded(&read("queries.json"));
    assert!(queries.len() > 50, "the queries were recorded");
    assert_eq!(breaches(&before, &queries, &mut connection).await, [""; 0]);

    if write_asked {
        write().await;
    }
}

/// What an upgrade may do, in one go.
const MAY_BE: &str = "ALTER TABLE clients ADD COLUMN may_be_null text;
    ALTER TABLE clients ADD COLUMN has_default text NOT NULL DEFAULT '';
    ALTER TABLE clients ADD COLUMN is_checked text CHECK (is_checked <> '');
    CREATE TABLE more (more text NOT NULL);
    CREATE INDEX ON clients (name);
    DROP INDEX clients_active_unseen";

/// Each on tables as they were, and undone.
#[tokio::test]
async fn what_would_stop_them_is_seen() {
    let database = as_before().await;
    let mut connection = database.pool.acquire().await.expect("the server is up");
    let before = Catalog::of(&mut connection).await;
    let queries = Query::recorded(&read("queries.json"));
    for (change, seen) in [
        ("ALTER TABLE clients DROP COLUMN away_since", true),
        ("ALTER TABLE clients RENAME COLUMN name TO title", true),
        ("ALTER TABLE clients ALTER COLUMN sweeps TYPE integer", true),
        ("ALTER TABLE clients ALTER COLUMN heir DROP NOT NULL", true),
        ("ALTER TABLE clients ADD COLUMN more text NOT NULL", true),
        ("ALTER TABLE participants ALTER COLUMN role TYPE varchar(9)", true),
        ("ALTER TABLE chats ADD CHECK (char_length(name) < 50)", true),
        ("ALTER TABLE requests DROP CONSTRAINT requests_pkey", true),
        ("CREATE UNIQUE INDEX ON clients (name)", true),
        ("DROP TABLE leases", true),
        (MAY_BE, false),
    ] {
        let mut change_only = connection.begin().await.expect("a transaction can be begun");
        // Rows are in the way of some changes; they say nothing about queries.
        let emptied = format!("TRUNCATE clients, requests CASCADE; {change}");
        raw_sql(AssertSqlSafe(emptied))
            .execute(&mut *change_only)
            .await
            .unwrap_or_else(|error| panic!("{change}: {error}"));
        let breaches = breaches(&before, &queries, &mut change_only).await;
        assert_eq!(!breaches.is_empty(), seen, "{change}: {breaches:?}");
        change_only.rollback().await.expect("nothing was to be kept");
        connection
            .clear_cached_statements()
            .await
            .expect("the server is up");
    }
}

#[tokio::test]
async fn rows_of_the_version_before_are_read_and_changed() {
    let database = as_before().await;
    let metadata = &database.metadata;
    metadata.migrate().await.expect("its tables can be upgraded");
    metadata
        .check_schema()
        .await
        .expect("the tables are this version's");

    let chat: ChatId = "0199c0de-0000-7000-8000-00000000000c".parse().expect("a UUID");
    assert_eq!(database.participants(chat).await, "alice* bob");
    let direct: ChatId = "0199c0de-0000-7000-8000-00000000000e".parse().expect("a UUID");
    assert_eq!(database.participants(direct).await, "alice bob");
    let ids = [
        "0199c0de-0000-7000-8000-0000000000d1",
        "0199c0de-0000-7000-8000-0000000000d2",
    ];
    let [active, idle] = ids.map(|id| id.parse::<ClientId>().expect("a UUID"));
    let record = metadata
        .client(active)
        .await
        .expect("it can be read")
        .expect("it is there");
    assert_eq!(
        (record.user.as_str(), record.state),
        ("alice", ClientState::Active)
    );
    let record = metadata
        .client(idle)
        .await
        .expect("it can be read")
        .expect("it is there");
    assert_eq!((record.user.as_str(), record.state), ("bob", ClientState::Idle));

    // What had been committed and not published before is published by this version.
    let key = OutboxKey::Chat(chat);
    let mut lock = metadata.lock_outbox(key.clone()).await.expect("nobody holds it");
    let rows = lock.rows().await.expect("they can be read");
    let [row] = &rows[..] else {
        panic!("one was not published: {rows:?}");
    };
    let OutboxChange::Chat(change) = &row.change else {
        panic!("it is a chat's");
    };
    assert_eq!(
        (change.version, described(&change.participants)),
        (2, "alice* bob".to_owned())
    );
    lock.mark_sent(row.outbox_id, 41).await.expect("it is there");
    lock.commit().await.expect("the lock was held");
    assert_eq!(database.unsent(&key).await, 0);

    // And life goes on.
    let back = metadata.register_client(hello("bob", idle)).await;
    back.expect("who was idle comes back");
    database.register("carol", client()).await;
    let outcome = database.change(chat, "alice", Operation::Add, "carol").await;
    assert_eq!(outcome.version, 3);
    assert_eq!(database.participants(chat).await, "alice* bob carol");
    let clients = metadata.active_clients(&[user("alice"), user("bob")]).await;
    assert_eq!(clients.expect("they can be read").len(), 2);
}

/// Records this version.
async fn write() {
    let database = TestDatabase::new().await;
    let mut connection = PgConnection::connect(&database.url)
        .await
        .expect("the server is up");
    std::fs::write(
        dir().join("schema.sql"),
        schema(&database.url, &mut connection).await,
    )
    .expect("the folder can be written");
    let queries = Query::of_this_version(&mut connection).await;
    std::fs::write(dir().join("queries.json"), queries).expect("the folder can be written");
}

/// What `pg_dump` says of the tables, without what depends on its version, and which migrations made them.
async fn schema(url: &str, connection: &mut PgConnection) -> String {
    let output = Command::new(programs().join("pg_dump"))
        .args(["--schema-only", "--no-owner", "--no-privileges", "--dbname", url])
        .output()
        .expect("a PostgreSQL server comes with pg_dump");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let dump = String::from_utf8(output.stdout).expect("tables have names in UTF-8");
    let mut schema = String::new();
    let noise = ["--", "\\", "SET ", "SELECT pg_catalog.set_config"];
    for line in dump.lines().filter(|line| !line.is_empty()) {
        if !noise.iter().any(|start| line.starts_with(start)) {
            schema += line;
            schema.push('\n');
        }
    }
    let migrations: Vec<String> = sqlx::query_scalar(
        "SELECT format('INSERT INTO public._sqlx_migrations (version, description, success, checksum, execution_time) '
                       'VALUES (%s, %L, true, %L, 0);', version, description, checksum)
         FROM _sqlx_migrations ORDER BY version",
    )
    .fetch_all(connection)
    .await
    .expect("sqlx has made its table");
    schema + &migrations.join("\n") + "\n"
}
