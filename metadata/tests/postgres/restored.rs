//! What is told to chats after a backup was restored.

use tidings_metadata::{OutboxChange, OutboxKey};
use tidings_protocol::Operation;

use crate::test_database::{TestDatabase, user};

#[tokio::test]
async fn every_open_chat_is_told_again_and_above_what_clients_may_know() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    database.change(chat_id, "alice", Operation::Add, "carol").await;
    let closed = database.group("alice", &["bob"]).await;
    database.change(closed, "alice", Operation::Remove, "bob").await;
    database.change(closed, "alice", Operation::Remove, "alice").await;
    let (key, closed) = (OutboxKey::Chat(chat_id), OutboxKey::Chat(closed));
    assert_eq!(database.publish(key.clone(), 40).await, [1, 2]);
    database.publish(closed.clone(), 50).await;

    assert_eq!(database.metadata.tell_chats_again().await.expect("it is told"), 1);
    assert_eq!(database.unsent(&closed).await, 0, "nobody is in it");
    let mut lock = database
        .metadata
        .lock_outbox(key.clone())
        .await
        .expect("it is free");
    let rows = lock.rows().await.expect("they can be read");
    drop(lock);
    let [row] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    assert!(row.version > 1_700_000_000, "above any count of changes: {row:?}");
    let OutboxChange::Chat(change) = &row.change else {
        panic!("{row:?}")
    };
    assert_eq!(change.version, row.version);
    assert!(change.added.is_empty() && change.removed.is_empty(), "{change:?}");
    let users: Vec<_> = change
        .participants
        .iter()
        .map(|one| one.user_id.clone())
        .collect();
    assert_eq!(users, [user("alice"), user("bob"), user("carol")]);

    // A second time, as when the same backup is restored again: above what the first has told.
    let first = row.version;
    database.publish(key.clone(), 60).await;
    assert_eq!(database.metadata.tell_chats_again().await.expect("it is told"), 1);
    assert!(database.publish(key.clone(), 61).await[0] > first);
    // Chats go on from there, and what was is kept as long as all history is.
    database.change(chat_id, "alice", Operation::Remove, "bob").await;
    assert_eq!(database.publish(key, 62).await.len(), 1);
    let kept =
        "SELECT count(*) FROM outbox WHERE superseded_at IS NULL AND seq IS NOT NULL AND chat_id IS NOT NULL";
    assert_eq!(
        database.count(kept).await,
        2,
        "the newest of each chat is no history"
    );
}
