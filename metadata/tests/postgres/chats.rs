//! Chats are created, read and listed.

use tidings_metadata::{ChatOutcome, CreateChatError, OutboxKey};
use tidings_protocol::{Chat, ChatId, ChatKind, Operation};
use uuid::Uuid;

use crate::test_database::{TestDatabase, described, new_chat, user};

#[tokio::test]
async fn a_group_has_its_creator_as_admin_and_everybody_once() {
    let database = TestDatabase::new().await;
    let new = new_chat("alice", &["carol", "bob", "carol", "alice"], Some("Lunch"));
    let outcome = database
        .metadata
        .create_chat(new)
        .await
        .expect("the chat is valid");
    let chat_id = outcome.chat_id;
    assert_eq!(
        outcome,
        ChatOutcome {
            chat_id,
            version: 1,
            done: true,
            seq: None
        }
    );

    let record = database
        .metadata
        .chat(chat_id)
        .await
        .expect("chats can be read")
        .expect("it is there");
    assert_eq!((record.closed, record.unsent), (false, true));
    let Chat {
        kind,
        name,
        version,
        participants,
        ..
    } = record.chat;
    assert_eq!(
        (kind, name.as_deref(), version),
        (ChatKind::Group, Some("Lunch"), 1)
    );
    assert_eq!(described(&participants), "alice* carol bob");

    assert_eq!(database.publish(OutboxKey::Chat(chat_id), 40).await, [1]);
    let record = database
        .metadata
        .chat(chat_id)
        .await
        .expect("chats can be read")
        .expect("it is there");
    assert!(!record.unsent);
}

#[tokio::test]
async fn a_chat_has_two_to_a_hundred() {
    let database = TestDatabase::new().await;
    let ids: Vec<String> = (0..100).map(|number| format!("user{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let refusal = database.metadata.create_chat(new_chat("alice", &ids, None)).await;
    assert!(matches!(refusal, Err(CreateChatError::Full(101))), "{refusal:?}");
    for nobody in [&[][..], &["alice"]] {
        let refusal = database
            .metadata
            .create_chat(new_chat("alice", nobody, Some("Lunch")))
            .await;
        assert!(matches!(refusal, Err(CreateChatError::Nobody)), "{refusal:?}");
    }
    assert_eq!(database.count("SELECT count(*) FROM chats").await, 0);
    let outcome = database
        .metadata
        .create_chat(new_chat("alice", &ids[1..], None))
        .await;
    let participants = database
        .participants(outcome.expect("a hundred fit").chat_id)
        .await;
    assert_eq!(participants.split_whitespace().count(), 100);
    assert!(participants.starts_with("alice* user1 user2 "));
}

#[tokio::test]
async fn a_chat_that_does_not_exist_is_absent() {
    let database = TestDatabase::new().await;
    assert_eq!(
        database
            .metadata
            .chat(ChatId(Uuid::nil()))
            .await
            .expect("chats can be read"),
        None
    );
}

#[tokio::test]
async fn chats_are_listed_page_by_page() {
    let database = TestDatabase::new().await;
    let mut chats = Vec::new();
    for number in 0..7 {
        let name = format!("chat {number}");
        let new = new_chat("alice", &["bob", "carol"], Some(&name));
        chats.push(
            database
                .metadata
                .create_chat(new)
                .await
                .expect("the chat is valid")
                .chat_id,
        );
    }
    let others = database.group("bob", &["carol"]).await;
    database.change(chats[2], "alice", Operation::Remove, "bob").await;

    let list = async |user_id, after, limit| {
        let (chats, next) = database
            .metadata
            .list_chats(&user(user_id), after, limit)
            .await
            .expect("chats can be listed");
        (chats.iter().map(|chat| chat.chat_id).collect::<Vec<_>>(), next)
    };
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (page, next) = list("alice", after, 3).await;
        assert!(page.len() <= 3);
        seen.extend(page);
        pages += 1;
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    chats.sort_unstable();
    assert_eq!((&seen, pages), (&chats, 3));
    // A page that ends with the list says so.
    assert_eq!(list("alice", None, 7).await, (chats.clone(), None));
    assert_eq!(list("dave", None, 7).await, (vec![], None));
    let (bobs, _) = list("bob", None, 100).await;
    assert_eq!(bobs.len(), 7);
    assert!(bobs.contains(&others));

    let (page, _) = database
        .metadata
        .list_chats(&user("alice"), None, 100)
        .await
        .expect("chats can be listed");
    let changed = page
        .iter()
        .find(|chat| chat.version == 2)
        .expect("one chat changed");
    assert_eq!(
        (changed.name.as_deref(), changed.kind),
        (Some("chat 2"), ChatKind::Group)
    );
    assert_eq!(described(&changed.participants), "alice* carol");
}
