//! What was committed is published in order, by one at a time.

use std::time::Duration;

use tidings_metadata::{OutboxChange, OutboxKey};
use tidings_protocol::Operation;

use crate::test_database::{TestDatabase, client, new_chat, user};

#[tokio::test]
async fn rows_come_in_order_and_stay_until_marked() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    let other = database.group("alice", &["bob"]).await;
    database.change(chat_id, "alice", Operation::Add, "carol").await;
    database.change(chat_id, "alice", Operation::Remove, "bob").await;
    let key = OutboxKey::Chat(chat_id);

    // A publisher that dies, or does not commit, has published for nothing: the stream knows the ids.
    let mut lock = database
        .metadata
        .lock_outbox(key.clone())
        .await
        .expect("the lock is free");
    let rows = lock.rows().await.expect("the rows can be read");
    lock.mark_sent(rows[0].outbox_id, 40)
        .await
        .expect("the row is there");
    drop(lock);

    let mut lock = database
        .metadata
        .lock_outbox(key.clone())
        .await
        .expect("the lock is free again");
    let rows = lock.rows().await.expect("the rows can be read");
    assert_eq!(rows.iter().map(|row| row.version).collect::<Vec<_>>(), [1, 2, 3]);
    // One that gets half of it done keeps that half.
    lock.mark_sent(rows[0].outbox_id, 40)
        .await
        .expect("the row is there");
    lock.mark_sent(rows[1].outbox_id, 41)
        .await
        .expect("the row is there");
    lock.commit().await.expect("the lock was held");
    assert_eq!(database.unsent(&key).await, 1);
    assert_eq!(database.publish(key.clone(), 42).await, [3]);
    assert_eq!(database.unsent(&key).await, 0);
    assert_eq!(database.publish(key, 43).await, [] as [u64; 0]);
    assert_eq!(database.publish(OutboxKey::Chat(other), 50).await, [1]);
}

#[tokio::test]
async fn a_users_rows_tell_whose_clients_changed() {
    let database = TestDatabase::new().await;
    database.register("alice", client()).await;
    database.register("alice", client()).await;
    database.register("bob", client()).await;
    let mut lock = database
        .metadata
        .lock_outbox(OutboxKey::User(user("alice")))
        .await
        .expect("the lock is free");
    let rows = lock.rows().await.expect("the rows can be read");
    assert_eq!(rows.iter().map(|row| row.version).collect::<Vec<_>>(), [1, 2]);
    assert!(
        rows.iter()
            .all(|row| row.change == OutboxChange::User { user: user("alice") })
    );
    // Only once the last one is published is it known up to where everybody must have read.
    let told_until = async |name: &str| {
        database
            .metadata
            .told_until(&user(name))
            .await
            .expect("it answers")
    };
    assert_eq!(told_until("carol").await, Some(0));
    assert_eq!(told_until("alice").await, None);
    lock.mark_sent(rows[0].outbox_id, 40)
        .await
        .expect("the row is there");
    lock.commit().await.expect("the lock was held");
    assert_eq!(told_until("alice").await, None);
    let mut lock = database
        .metadata
        .lock_outbox(OutboxKey::User(user("alice")))
        .await
        .expect("the lock is free");
    lock.mark_sent(rows[1].outbox_id, 41)
        .await
        .expect("the row is there");
    lock.commit().await.expect("the lock was held");
    assert_eq!(told_until("alice").await, Some(41));
}

#[tokio::test]
async fn one_at_a_time_publishes_for_a_key() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    let mut first = database
        .metadata
        .lock_outbox(OutboxKey::Chat(chat_id))
        .await
        .expect("the lock is free");
    let metadata = database.metadata.clone();
    let second = tokio::spawn(async move {
        let mut lock = metadata
            .lock_outbox(OutboxKey::Chat(chat_id))
            .await
            .expect("it is free in the end");
        lock.rows().await.expect("the rows can be read")
    });
    database.until_waiting(1).await;
    // Nobody else is kept: not another key, and not those who change the chat.
    database
        .metadata
        .lock_outbox(OutboxKey::User(user("alice")))
        .await
        .expect("it is another key");
    database.change(chat_id, "alice", Operation::Add, "carol").await;

    let rows = first.rows().await.expect("the rows can be read");
    assert_eq!(rows.len(), 2, "what was committed meanwhile is there too");
    for (row, seq) in rows.iter().zip(40..) {
        first
            .mark_sent(row.outbox_id, seq)
            .await
            .expect("the row is there");
    }
    first.commit().await.expect("the lock was held");
    assert_eq!(
        second.await.expect("the task ends"),
        [],
        "the second finds nothing left to do"
    );
}

#[tokio::test]
async fn the_relay_finds_what_was_left_the_longest_waiting_first() {
    let database = TestDatabase::new().await;
    let metadata = &database.metadata;
    let chat_id = database.group("alice", &["bob"]).await;
    database.register("auth0|alice", client()).await;
    database.change(chat_id, "alice", Operation::Add, "carol").await;
    let sent = metadata
        .create_chat(new_chat("bob", &["carol"], None))
        .await
        .expect("it is valid")
        .chat_id;
    database.publish(OutboxKey::Chat(sent), 1).await;

    let (chat, user) = ([OutboxKey::Chat(chat_id)], [OutboxKey::User(user("auth0|alice"))]);
    let unsent = async |older_than, skip, limit| {
        metadata
            .unsent_keys(Duration::from_secs(older_than), skip, limit)
            .await
            .expect("keys can be read")
    };
    assert_eq!(unsent(0, 0, 10).await, [chat[0].clone(), user[0].clone()]);
    assert_eq!(unsent(0, 0, 1).await, chat);
    assert_eq!(unsent(0, 1, 10).await, user);
    assert_eq!(unsent(0, 2, 10).await, []);
    assert_eq!(unsent(60, 0, 10).await, []);
    database
        .execute("UPDATE outbox SET created_at = created_at - interval '2 minutes' WHERE user_id IS NOT NULL")
        .await;
    assert_eq!(unsent(60, 0, 10).await, user);
    let waited = metadata.outbox_age().await.expect("it can be read");
    assert!((120..180).contains(&waited.as_secs()), "{waited:?}");
    database.publish(chat[0].clone(), 2).await;
    assert_eq!(unsent(0, 0, 10).await, user);
    database.publish(user[0].clone(), 3).await;
    assert_eq!(
        metadata.outbox_age().await.expect("it can be read"),
        Duration::ZERO
    );
}

#[tokio::test]
async fn a_change_that_is_rolled_back_leaves_no_row() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    database.publish(OutboxKey::Chat(chat_id), 1).await;
    // Postgres goes away in the middle of the change.
    database
        .execute("ALTER TABLE outbox ADD CONSTRAINT no_more CHECK (version < 2) NOT VALID")
        .await;
    let asked = crate::test_database::modify(chat_id, "alice", Operation::Add, "carol");
    database
        .metadata
        .modify_participants(asked.clone())
        .await
        .expect_err("the row cannot be written");
    assert_eq!(database.participants(chat_id).await, "alice* bob");
    database
        .execute("ALTER TABLE outbox DROP CONSTRAINT no_more")
        .await;
    let outcome = database
        .metadata
        .modify_participants(asked)
        .await
        .expect("the request is not remembered");
    assert_eq!((outcome.version, outcome.done), (2, true));
}

/// Rows are numbered before they are committed: one that is read behind the last number would be passed over.
#[tokio::test]
async fn who_commits_late_is_not_passed_over() {
    let database = TestDatabase::new().await;
    let (late, early) = (
        database.group("alice", &["bob"]).await,
        database.group("alice", &["bob"]).await,
    );
    database.publish(OutboxKey::Chat(late), 1).await;
    database.publish(OutboxKey::Chat(early), 2).await;
    // A change that has its number, and takes its time to commit.
    let mut change = database.pool.begin().await.expect("the server is up");
    sqlx::query(
        "INSERT INTO outbox (chat_id, version, change)
         SELECT chat_id, 2, jsonb_set(change, '{version}', '2') FROM outbox WHERE chat_id = $1",
    )
    .bind(late.0)
    .execute(&mut *change)
    .await
    .expect("the test's SQL is right");
    database.change(early, "alice", Operation::Add, "carol").await;
    assert_eq!(database.publish(OutboxKey::Chat(early), 3).await, [2]);
    let unsent = async || {
        let keys = database.metadata.unsent_keys(Duration::ZERO, 0, 10).await;
        keys.expect("keys can be read")
    };
    assert_eq!(unsent().await, []);
    change.commit().await.expect("nobody is in the way");
    assert_eq!(
        database
            .count("SELECT count(*) FROM outbox WHERE seq IS NULL AND outbox_id < (SELECT max(outbox_id) FROM outbox)")
            .await,
        1,
        "its number is lower than what was published"
    );
    assert_eq!(unsent().await, [OutboxKey::Chat(late)]);
    assert_eq!(database.publish(OutboxKey::Chat(late), 4).await, [2]);
}
