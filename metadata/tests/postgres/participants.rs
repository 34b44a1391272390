//! Participants come and go; each change is a version without gaps, and its snapshot is what held then.

use tidings_metadata::{ChatChange, ChatOutcome, ModifyError, OutboxChange, OutboxKey};
use tidings_protocol::{ChatId, Operation, Participant, Role};
use uuid::Uuid;

use crate::test_database::{TestDatabase, at_once, described, modify, user};

impl TestDatabase {
    async fn refused_change(
        &self,
        chat_id: ChatId,
        by: &str,
        operation: Operation,
        whom: &str,
    ) -> ModifyError {
        let asked = modify(chat_id, by, operation, whom);
        self.metadata
            .modify_participants(asked)
            .await
            .expect_err("the change is not allowed")
    }

    /// The changes that the outbox holds, in order.
    async fn changes(&self, chat_id: ChatId) -> Vec<ChatChange> {
        let mut lock = self
            .metadata
            .lock_outbox(OutboxKey::Chat(chat_id))
            .await
            .expect("the lock is free");
        let rows = lock.rows().await.expect("the rows can be read");
        let changes = rows.into_iter().map(|row| match row.change {
            OutboxChange::Chat(change) => {
                assert_eq!(change.version, row.version);
                change
            }
            OutboxChange::User { user } => panic!("{user} in a chat's rows"),
        });
        changes.collect()
    }
}

#[tokio::test]
async fn admins_add_and_remove_and_anyone_leaves() {
    use Operation::{Add, Remove};
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob", "carol"]).await;

    let added = database.change(chat_id, "alice", Add, "dave").await;
    assert_eq!(
        added,
        ChatOutcome {
            chat_id,
            version: 2,
            done: true,
            seq: None
        }
    );
    assert_eq!(database.participants(chat_id).await, "alice* bob carol dave");
    let refusals = [
        database.refused_change(chat_id, "bob", Add, "eve").await,
        database.refused_change(chat_id, "bob", Remove, "carol").await,
    ];
    assert!(
        refusals
            .iter()
            .all(|refusal| matches!(refusal, ModifyError::NotAdmin)),
        "{refusals:?}"
    );
    let refusal = database.refused_change(chat_id, "eve", Add, "eve").await;
    assert!(matches!(refusal, ModifyError::NotAParticipant), "{refusal}");
    let refusal = database
        .refused_change(ChatId(Uuid::nil()), "alice", Add, "eve")
        .await;
    assert!(matches!(refusal, ModifyError::NotFound), "{refusal}");

    assert_eq!(database.change(chat_id, "alice", Remove, "bob").await.version, 3);
    assert_eq!(
        database.change(chat_id, "carol", Remove, "carol").await.version,
        4
    );
    assert_eq!(database.participants(chat_id).await, "alice* dave");
    // Who comes back starts over.
    assert_eq!(database.change(chat_id, "alice", Add, "bob").await.version, 5);
    assert_eq!(database.participants(chat_id).await, "alice* dave bob");
}

#[tokio::test]
async fn what_changes_nothing_answers_the_version_that_is() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    let unchanged = |seq| ChatOutcome {
        chat_id,
        version: 1,
        done: false,
        seq,
    };
    assert_eq!(
        database.change(chat_id, "alice", Operation::Add, "bob").await,
        unchanged(None)
    );
    database.publish(OutboxKey::Chat(chat_id), 40).await;
    assert_eq!(
        database.change(chat_id, "alice", Operation::Add, "bob").await,
        unchanged(Some(40))
    );
    assert_eq!(
        database
            .change(chat_id, "alice", Operation::Remove, "carol")
            .await,
        unchanged(Some(40))
    );
    assert!(database.changes(chat_id).await.is_empty());
}

#[tokio::test]
async fn when_the_last_admin_leaves_the_longest_standing_follows() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["zoe", "bob"]).await;
    database.change(chat_id, "alice", Operation::Add, "adam").await;
    database
        .change(chat_id, "alice", Operation::Remove, "alice")
        .await;
    assert_eq!(database.participants(chat_id).await, "zoe* bob adam");
    database.change(chat_id, "zoe", Operation::Remove, "zoe").await;
    assert_eq!(database.participants(chat_id).await, "bob* adam");
    // The change says so too.
    let last = database.changes(chat_id).await.pop().expect("there are changes");
    assert_eq!((last.added, last.removed), (vec![], vec![user("zoe")]));
    assert_eq!(
        last.participants[0],
        Participant {
            user_id: user("bob"),
            role: Role::Admin
        }
    );
}

#[tokio::test]
async fn the_last_leaver_closes_the_chat() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    database
        .change(chat_id, "alice", Operation::Remove, "alice")
        .await;
    assert_eq!(
        database
            .change(chat_id, "bob", Operation::Remove, "bob")
            .await
            .version,
        3
    );
    let record = database
        .metadata
        .chat(chat_id)
        .await
        .expect("chats can be read")
        .expect("it is kept");
    assert!(record.closed && record.chat.participants.is_empty());
    for by in ["alice", "bob", "eve"] {
        let refusal = database.refused_change(chat_id, by, Operation::Add, by).await;
        assert!(matches!(refusal, ModifyError::Closed), "{refusal}");
    }
    let last = database.changes(chat_id).await.pop().expect("there are changes");
    assert_eq!((last.removed, last.participants), (vec![user("bob")], vec![]));
}

#[tokio::test]
async fn a_change_carries_everything() {
    let database = TestDatabase::new().await;
    let before = database.metadata.clock().await.expect("Postgres has a clock");
    let chat_id = database.group("alice", &["bob"]).await;
    database.change(chat_id, "alice", Operation::Add, "carol").await;
    let after = database.metadata.clock().await.expect("Postgres has a clock");
    let changes = database.changes(chat_id).await;
    let [created, added] = &changes[..] else {
        panic!("two changes: {changes:?}")
    };
    assert_eq!(created.added, [user("alice"), user("bob")]);
    assert_eq!(
        (created.version, described(&created.participants).as_str()),
        (1, "alice* bob")
    );
    assert_eq!(added.added, [user("carol")]);
    assert_eq!(
        (added.version, described(&added.participants).as_str()),
        (2, "alice* bob carol")
    );
    for change in &changes {
        assert_eq!((change.chat_id, change.by.clone()), (chat_id, user("alice")));
        assert_eq!(
            (change.name.as_deref(), &change.removed, change.seq),
            (Some("Lunch"), &vec![], None)
        );
    }
    assert!(before <= created.at && created.at <= added.at && added.at <= after);
}

#[tokio::test]
async fn changes_at_once_are_versions_without_gaps() {
    let database = TestDatabase::new().await;
    database.open_connections(10).await;
    let chat_id = database.group("alice", &["bob"]).await;
    let changes = (0..40).map(|number| {
        let metadata = database.metadata.clone();
        // Each of twenty people is added and removed, in any order.
        let operation = if number % 2 == 0 {
            Operation::Add
        } else {
            Operation::Remove
        };
        let asked = modify(chat_id, "alice", operation, &format!("user{}", number / 2));
        async move { metadata.modify_participants(asked).await.expect("alice is admin") }
    });
    let outcomes = at_once(changes.collect::<Vec<_>>()).await;
    let mut made: Vec<u64> = outcomes
        .iter()
        .filter(|one| one.done)
        .map(|one| one.version)
        .collect();
    made.sort_unstable();

    let changes = database.changes(chat_id).await;
    let versions: Vec<u64> = changes.iter().map(|change| change.version).collect();
    assert_eq!(versions, (1..=changes.len() as u64).collect::<Vec<_>>());
    assert_eq!(versions[1..], made);
    for (before, after) in changes.iter().zip(&changes[1..]) {
        let mut expected = before.participants.clone();
        expected.retain(|one| !after.removed.contains(&one.user_id));
        expected.extend(after.added.iter().map(|added| Participant {
            user_id: added.clone(),
            role: Role::Member,
        }));
        assert_eq!(after.participants, expected, "version {}", after.version);
        assert_eq!(after.added.len() + after.removed.len(), 1);
        assert!(before.at <= after.at);
    }
    let last = changes.last().expect("there are changes");
    let record = database
        .metadata
        .chat(chat_id)
        .await
        .expect("chats can be read")
        .expect("it is there");
    assert_eq!(
        (record.chat.version, record.chat.participants),
        (last.version, last.participants.clone())
    );
}

#[tokio::test]
async fn only_one_of_two_gets_the_hundredth_place() {
    let database = TestDatabase::new().await;
    database.open_connections(10).await;
    let ids: Vec<String> = (0..98).map(|number| format!("user{number}")).collect();
    let chat_id = database
        .group("alice", &ids.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let adds = ["bob", "carol"].map(|whom| {
        let metadata = database.metadata.clone();
        async move {
            metadata
                .modify_participants(modify(chat_id, "alice", Operation::Add, whom))
                .await
        }
    });
    let outcomes = at_once(adds).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Err(ModifyError::Full)))
            .count(),
        1
    );
}

#[tokio::test]
async fn when_everybody_leaves_at_once_there_is_always_an_admin() {
    let database = TestDatabase::new().await;
    database.open_connections(10).await;
    let ids: Vec<String> = (0..10).map(|number| format!("user{number}")).collect();
    let chat_id = database
        .group("alice", &ids.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let leavers = ids.iter().map(String::as_str).chain(["alice"]).map(|id| {
        let (metadata, asked) = (
            database.metadata.clone(),
            modify(chat_id, id, Operation::Remove, id),
        );
        async move {
            metadata
                .modify_participants(asked)
                .await
                .expect("anyone may leave")
        }
    });
    at_once(leavers.collect::<Vec<_>>()).await;
    let mut changes = database.changes(chat_id).await;
    assert_eq!(changes.pop().expect("there are changes").participants, []);
    for change in changes {
        let admins = change
            .participants
            .iter()
            .filter(|one| one.role == Role::Admin)
            .count();
        assert_eq!(admins, 1, "version {}", change.version);
    }
}
