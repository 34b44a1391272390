//! What is no longer needed goes, and nothing else.

use tidings_metadata::{OutboxKey, ParticipantsAt, Pruned};
use tidings_protocol::Operation;

use crate::test_database::{TestDatabase, client, user};

#[tokio::test]
async fn history_goes_a_week_after_it_was_superseded() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    database.publish(OutboxKey::Chat(chat_id), 40).await;
    database
        .execute("UPDATE outbox SET created_at = created_at - interval '1 year', sent_at = sent_at - interval '1 year'")
        .await;
    database.change(chat_id, "alice", Operation::Add, "carol").await;
    database.publish(OutboxKey::Chat(chat_id), 50).await;
    // A message just below 50 may not be fanned out yet: its participants are needed, however old the row.
    assert_eq!(
        database.metadata.prune(100).await.expect("it can be pruned"),
        Pruned::default()
    );
    let at = database
        .metadata
        .participants_at(chat_id, 45)
        .await
        .expect("the history can be read");
    assert!(matches!(at, ParticipantsAt::Known(_)));

    database
        .execute("UPDATE outbox SET superseded_at = superseded_at - interval '8 days'")
        .await;
    let pruned = database.metadata.prune(100).await.expect("it can be pruned");
    assert_eq!(
        pruned,
        Pruned {
            requests: 0,
            outbox: 1
        }
    );
    let at = database
        .metadata
        .participants_at(chat_id, 45)
        .await
        .expect("the history can be read");
    assert_eq!(at, ParticipantsAt::Unknown, "no answer rather than a wrong one");
    let at = database
        .metadata
        .participants_at(chat_id, 51)
        .await
        .expect("the history can be read");
    assert!(
        matches!(at, ParticipantsAt::Known(_)),
        "the newest stays for ever"
    );
}

#[tokio::test]
async fn what_is_unsent_stays() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    database.register("alice", client()).await;
    database.register("alice", client()).await;
    database
        .execute("UPDATE outbox SET created_at = created_at - interval '1 year'")
        .await;
    assert_eq!(
        database
            .metadata
            .prune(100)
            .await
            .expect("it can be pruned")
            .outbox,
        0
    );
    assert_eq!(database.publish(OutboxKey::Chat(chat_id), 1).await, [1]);
    assert_eq!(database.publish(OutboxKey::User(user("alice")), 1).await, [1, 2]);
    database
        .execute("UPDATE outbox SET superseded_at = superseded_at - interval '8 days'")
        .await;
    // A user's published rows are of no use; the versions go on all the same.
    assert_eq!(
        database
            .metadata
            .prune(100)
            .await
            .expect("it can be pruned")
            .outbox,
        2
    );
    database.register("alice", client()).await;
    assert_eq!(database.publish(OutboxKey::User(user("alice")), 2).await, [3]);
}

#[tokio::test]
async fn requests_go_after_a_day_a_bounded_piece_at_a_time() {
    let database = TestDatabase::new().await;
    for _ in 0..5 {
        database.group("alice", &["bob"]).await;
    }
    database
        .execute("UPDATE requests SET requested_at = requested_at - interval '25 hours'")
        .await;
    database.group("alice", &["bob"]).await;
    let pruned = async || {
        database
            .metadata
            .prune(3)
            .await
            .expect("it can be pruned")
            .requests
    };
    assert_eq!((pruned().await, pruned().await, pruned().await), (3, 2, 0));
    assert_eq!(database.count("SELECT count(*) FROM requests").await, 1);
}
