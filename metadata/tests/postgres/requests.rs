//! A request is done once, however often it comes.

use tidings_metadata::{ChatOutcome, CreateChatError, ModifyError, NewChat, OutboxKey};
use tidings_protocol::Operation;

use crate::test_database::{TestDatabase, at_once, modify, new_chat, user};

#[tokio::test]
async fn create_chat_again_is_answered_as_the_first_time() {
    let database = TestDatabase::new().await;
    let new = new_chat("alice", &["bob", "carol"], Some("Lunch"));
    let first = database
        .metadata
        .create_chat(new.clone())
        .await
        .expect("the chat is valid");
    assert_eq!(
        database
            .metadata
            .create_chat(new.clone())
            .await
            .expect("the chat is valid"),
        first
    );
    // What has happened since changes nothing; the sequence is that of the first version.
    database
        .change(first.chat_id, "alice", Operation::Remove, "bob")
        .await;
    database.publish(OutboxKey::Chat(first.chat_id), 40).await;
    let again = database
        .metadata
        .create_chat(new.clone())
        .await
        .expect("the chat is valid");
    assert_eq!(
        again,
        ChatOutcome {
            seq: Some(40),
            ..first
        }
    );
    // The same people in another order is the same request.
    let reordered = NewChat {
        others: vec![user("carol"), user("alice"), user("bob")],
        ..new
    };
    assert_eq!(
        database
            .metadata
            .create_chat(reordered)
            .await
            .expect("the chat is valid"),
        again
    );
    assert_eq!(database.count("SELECT count(*) FROM chats").await, 1);
}

#[tokio::test]
async fn a_direct_chat_that_was_found_is_answered_as_found() {
    let database = TestDatabase::new().await;
    let made = new_chat("alice", &["bob"], None);
    let found = new_chat("bob", &["alice"], None);
    assert!(
        database
            .metadata
            .create_chat(made.clone())
            .await
            .expect("it is valid")
            .done
    );
    assert!(
        !database
            .metadata
            .create_chat(found.clone())
            .await
            .expect("it is valid")
            .done
    );
    assert!(
        database
            .metadata
            .create_chat(made)
            .await
            .expect("it is valid")
            .done
    );
    assert!(
        !database
            .metadata
            .create_chat(found)
            .await
            .expect("it is valid")
            .done
    );
}

#[tokio::test]
async fn a_change_again_is_answered_as_the_first_time() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    database.publish(OutboxKey::Chat(chat_id), 40).await;
    let add = modify(chat_id, "alice", Operation::Add, "carol");
    let noop = modify(chat_id, "alice", Operation::Add, "bob");
    let leave = modify(chat_id, "bob", Operation::Remove, "bob");
    let added = database
        .metadata
        .modify_participants(add.clone())
        .await
        .expect("alice is admin");
    let unchanged = database
        .metadata
        .modify_participants(noop.clone())
        .await
        .expect("alice is admin");
    let left = database
        .metadata
        .modify_participants(leave.clone())
        .await
        .expect("anyone may leave");
    assert_eq!((added.version, unchanged.version, left.version), (2, 2, 3));
    database.publish(OutboxKey::Chat(chat_id), 50).await;

    let again = database
        .metadata
        .modify_participants(add)
        .await
        .expect("it was done");
    assert_eq!(
        again,
        ChatOutcome {
            chat_id,
            version: 2,
            done: true,
            seq: Some(50)
        }
    );
    let again = database
        .metadata
        .modify_participants(noop)
        .await
        .expect("it was answered");
    assert_eq!(
        again,
        ChatOutcome {
            chat_id,
            version: 2,
            done: false,
            seq: Some(50)
        }
    );
    // Also to one who is no longer in the chat.
    let again = database
        .metadata
        .modify_participants(leave)
        .await
        .expect("it was done");
    assert_eq!(
        again,
        ChatOutcome {
            chat_id,
            version: 3,
            done: true,
            seq: Some(51)
        }
    );
    assert!(database.publish(OutboxKey::Chat(chat_id), 60).await.is_empty());
}

#[tokio::test]
async fn the_same_request_at_once_is_done_once() {
    let database = TestDatabase::new().await;
    database.open_connections(10).await;
    let new = new_chat("alice", &["bob", "carol"], None);
    let creates = (0..10).map(|_| {
        let (metadata, new) = (database.metadata.clone(), new.clone());
        async move { metadata.create_chat(new).await.expect("the chat is valid") }
    });
    let outcomes = at_once(creates.collect::<Vec<_>>()).await;
    let chat_id = outcomes[0].chat_id;
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.done && outcome.chat_id == chat_id)
    );
    assert_eq!(database.count("SELECT count(*) FROM chats").await, 1);

    let add = modify(chat_id, "alice", Operation::Add, "dave");
    let adds = (0..10).map(|_| {
        let (metadata, add) = (database.metadata.clone(), add.clone());
        async move { metadata.modify_participants(add).await.expect("alice is admin") }
    });
    let outcomes = at_once(adds.collect::<Vec<_>>()).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.done && outcome.version == 2),
        "{outcomes:?}"
    );
    assert_eq!(database.publish(OutboxKey::Chat(chat_id), 1).await, [1, 2]);
}

#[tokio::test]
async fn what_was_refused_is_not_remembered() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    let add = modify(chat_id, "bob", Operation::Add, "carol");
    let refusal = database.metadata.modify_participants(add.clone()).await;
    assert!(matches!(refusal, Err(ModifyError::NotAdmin)), "{refusal:?}");
    database
        .change(chat_id, "alice", Operation::Remove, "alice")
        .await;
    assert!(
        database
            .metadata
            .modify_participants(add)
            .await
            .expect("bob is admin now")
            .done
    );
}

#[tokio::test]
async fn an_id_is_for_one_request_of_one_user() {
    let database = TestDatabase::new().await;
    let new = new_chat("alice", &["bob", "carol"], None);
    let chat_id = database
        .metadata
        .create_chat(new.clone())
        .await
        .expect("the chat is valid")
        .chat_id;
    let other_content = NewChat {
        name: Some("Lunch".to_owned()),
        ..new.clone()
    };
    let refusal = database.metadata.create_chat(other_content).await;
    assert!(
        matches!(refusal, Err(CreateChatError::RequestReused)),
        "{refusal:?}"
    );
    let mut add = modify(chat_id, "alice", Operation::Add, "dave");
    add.request_id = new.request_id;
    let refusal = database.metadata.modify_participants(add).await;
    assert!(matches!(refusal, Err(ModifyError::RequestReused)), "{refusal:?}");

    let bobs = NewChat {
        creator: user("bob"),
        others: vec![user("alice"), user("carol")],
        ..new
    };
    let outcome = database
        .metadata
        .create_chat(bobs)
        .await
        .expect("bob's ids are his own");
    assert!(outcome.done && outcome.chat_id != chat_id);
}

#[tokio::test]
async fn after_a_day_a_request_is_new() {
    let database = TestDatabase::new().await;
    let new = new_chat("alice", &["bob", "carol"], None);
    let first = database
        .metadata
        .create_chat(new.clone())
        .await
        .expect("the chat is valid");
    database
        .execute("UPDATE requests SET requested_at = requested_at - interval '23 hours 50 minutes'")
        .await;
    assert_eq!(
        database
            .metadata
            .create_chat(new.clone())
            .await
            .expect("the chat is valid"),
        first
    );
    database
        .execute("UPDATE requests SET requested_at = requested_at - interval '20 minutes'")
        .await;
    let again = database
        .metadata
        .create_chat(new)
        .await
        .expect("the chat is valid");
    assert!(again.done && again.chat_id != first.chat_id);
}
