//! The tables are made, compared, and left alone.

use tidings_metadata::SchemaError;

use crate::test_database::{TestDatabase, at_once};

#[tokio::test]
async fn an_empty_database_is_refused_until_it_is_migrated() {
    let database = TestDatabase::empty().await;
    let refusal = database
        .metadata
        .check_schema()
        .await
        .expect_err("there are no tables");
    assert_eq!(
        refusal.to_string(),
        "the database lacks 0001 users and clients, 0002 chats, 0003 outbox, 0004 inbox life, 0005 attachments: run `tidings setup`"
    );
    assert_eq!(
        database
            .metadata
            .pending_migrations()
            .await
            .expect("they can be read")
            .len(),
        5
    );

    database
        .metadata
        .migrate()
        .await
        .expect("an empty database can be migrated");
    database
        .metadata
        .check_schema()
        .await
        .expect("the tables are there");
    assert!(
        database
            .metadata
            .pending_migrations()
            .await
            .expect("they can be read")
            .is_empty()
    );
    database.metadata.migrate().await.expect("nothing is left to do");
}

#[tokio::test]
async fn several_migrate_at_once() {
    let database = TestDatabase::empty().await;
    let migrations = (0..4).map(|_| {
        let metadata = database.metadata.clone();
        async move { metadata.migrate().await }
    });
    for outcome in at_once(migrations).await {
        outcome.expect("one does the work, the others wait for it");
    }
    database
        .metadata
        .check_schema()
        .await
        .expect("the tables are there");
}

#[tokio::test]
async fn a_migration_in_another_form_is_refused() {
    let database = TestDatabase::new().await;
    database
        .execute(r"UPDATE _sqlx_migrations SET checksum = '\x00' WHERE version = 2")
        .await;
    let refusal = database
        .metadata
        .check_schema()
        .await
        .expect_err("the second migration differs");
    assert!(matches!(refusal, SchemaError::Differs(2)), "{refusal}");
    let refusal = database
        .metadata
        .migrate()
        .await
        .expect_err("the second migration differs");
    assert!(matches!(refusal, SchemaError::Differs(2)), "{refusal}");
}

#[tokio::test]
async fn a_newer_database_is_accepted() {
    let database = TestDatabase::new().await;
    database
        .execute(
            r"INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
              VALUES (9999, 'from the future', true, '\x00', 0)",
        )
        .await;
    database
        .metadata
        .check_schema()
        .await
        .expect("what is newer adds only");
    database.metadata.migrate().await.expect("nothing is left to do");
}

#[tokio::test]
async fn the_clock_is_postgres() {
    let database = TestDatabase::empty().await;
    let before = database
        .count("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        .await;
    let now = database.metadata.clock().await.expect("Postgres has a clock");
    let after = database
        .count("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 1")
        .await;
    assert!((before - 1..=after).contains(&now.0), "{before} {now:?} {after}");
}
