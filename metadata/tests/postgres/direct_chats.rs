//! The direct chat of two people is one, however often and by whomever it is asked for.

use tidings_metadata::{ModifyError, OutboxKey};
use tidings_protocol::{ChatKind, Operation};

use crate::test_database::{TestDatabase, at_once, modify, new_chat};

#[tokio::test]
async fn it_is_made_once_and_found_afterwards() {
    let database = TestDatabase::new().await;
    let first = database
        .metadata
        .create_chat(new_chat("bob", &["alice"], None))
        .await
        .expect("it is valid");
    assert!(first.done);
    let record = database
        .metadata
        .chat(first.chat_id)
        .await
        .expect("chats can be read")
        .expect("it is there");
    assert_eq!((record.chat.kind, record.chat.name), (ChatKind::Direct, None));
    assert_eq!(database.participants(first.chat_id).await, "bob* alice");

    // Found before it is published, it has no sequence yet; afterwards it has.
    let found = database
        .metadata
        .create_chat(new_chat("alice", &["bob"], None))
        .await
        .expect("it is valid");
    assert_eq!(
        (found.chat_id, found.done, found.version, found.seq),
        (first.chat_id, false, 1, None)
    );
    database.publish(OutboxKey::Chat(first.chat_id), 40).await;
    let found = database
        .metadata
        .create_chat(new_chat("bob", &["alice"], None))
        .await
        .expect("it is valid");
    assert_eq!(
        (found.chat_id, found.done, found.version, found.seq),
        (first.chat_id, false, 1, Some(40))
    );

    // A name, or another pair, is another chat.
    let named = database
        .metadata
        .create_chat(new_chat("bob", &["alice"], Some("Us")))
        .await
        .expect("it is valid");
    assert!(named.done && named.chat_id != first.chat_id);
    let other = database
        .metadata
        .create_chat(new_chat("bob", &["carol"], None))
        .await
        .expect("it is valid");
    assert!(other.done && other.chat_id != first.chat_id);
}

#[tokio::test]
async fn asked_for_by_both_at_once_it_is_one() {
    let database = TestDatabase::new().await;
    database.open_connections(10).await;
    for round in 0..5 {
        let bob = format!("bob{round}");
        // Several times from each side, as if every device of both asked.
        let asked = (0..10).map(|number| {
            let metadata = database.metadata.clone();
            let new = if number % 2 == 0 {
                new_chat("alice", &[&bob], None)
            } else {
                new_chat(&bob, &["alice"], None)
            };
            async move { metadata.create_chat(new).await.expect("it is valid") }
        });
        let outcomes = at_once(asked.collect::<Vec<_>>()).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.done).count(), 1);
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.chat_id == outcomes[0].chat_id)
        );
        assert_eq!(
            database.publish(OutboxKey::Chat(outcomes[0].chat_id), 1).await,
            [1]
        );
    }
    assert_eq!(database.count("SELECT count(*) FROM chats").await, 5);
    assert_eq!(database.count("SELECT count(*) FROM participants").await, 10);
}

#[tokio::test]
async fn nobody_comes_and_nobody_goes() {
    let database = TestDatabase::new().await;
    let chat_id = database
        .metadata
        .create_chat(new_chat("alice", &["bob"], None))
        .await
        .expect("it is valid")
        .chat_id;
    for (by, operation, whom) in [
        ("alice", Operation::Add, "carol"),
        ("alice", Operation::Remove, "bob"),
        ("alice", Operation::Remove, "alice"),
        ("bob", Operation::Remove, "bob"),
    ] {
        let refusal = database
            .metadata
            .modify_participants(modify(chat_id, by, operation, whom))
            .await;
        assert!(matches!(refusal, Err(ModifyError::DirectChat)), "{refusal:?}");
    }
    assert_eq!(database.participants(chat_id).await, "alice* bob");
}
