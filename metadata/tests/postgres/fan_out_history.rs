//! Who was in a chat at a sequence, exactly: the outbox is the history.

use tidings_metadata::{OutboxKey, ParticipantsAt};
use tidings_protocol::{ChatId, Operation};
use uuid::Uuid;

use crate::test_database::{TestDatabase, described};

impl TestDatabase {
    async fn at(&self, chat_id: ChatId, seq: u64) -> String {
        told(
            self.metadata
                .participants_at(chat_id, seq)
                .await
                .expect("the history can be read"),
        )
    }

    async fn published_at(&self, chat_id: ChatId, seq: u64) -> String {
        told(
            self.metadata
                .published_participants_at(chat_id, seq)
                .await
                .expect("the history can be read"),
        )
    }
}

fn told(at: ParticipantsAt) -> String {
    match at {
        ParticipantsAt::Known(change) => {
            let seq = change.seq.expect("what is known is published");
            format!("{}@{seq}: {}", change.version, described(&change.participants))
        }
        ParticipantsAt::Unsent => "unsent".to_owned(),
        ParticipantsAt::Unknown => "unknown".to_owned(),
    }
}

#[tokio::test]
async fn each_sequence_has_the_participants_of_the_change_below_it() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    database.publish(OutboxKey::Chat(chat_id), 40).await;
    database.change(chat_id, "alice", Operation::Add, "carol").await;
    database.publish(OutboxKey::Chat(chat_id), 50).await;
    database.change(chat_id, "alice", Operation::Remove, "bob").await;
    database.publish(OutboxKey::Chat(chat_id), 60).await;
    // Another chat between them does not matter.
    let other = database.group("dave", &["eve"]).await;
    database.publish(OutboxKey::Chat(other), 55).await;

    for (seq, expected) in [
        (1, "unknown"),
        (40, "unknown"),
        (41, "1@40: alice* bob"),
        (50, "1@40: alice* bob"),
        (51, "2@50: alice* bob carol"),
        (60, "2@50: alice* bob carol"),
        (61, "3@60: alice* carol"),
        (1 << 52, "3@60: alice* carol"),
    ] {
        assert_eq!(database.at(chat_id, seq).await, expected, "{seq}");
    }
    assert_eq!(database.at(ChatId(Uuid::nil()), 100).await, "unknown");
}

#[tokio::test]
async fn while_a_sequence_is_not_known_there_is_no_answer() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    assert_eq!(database.at(chat_id, 100).await, "unsent");
    assert_eq!(database.published_at(chat_id, 100).await, "unknown");
    database.publish(OutboxKey::Chat(chat_id), 40).await;
    assert_eq!(database.at(chat_id, 100).await, "1@40: alice* bob");
    // The second version may have been published below 100 by one who died before it said so.
    database.change(chat_id, "alice", Operation::Add, "carol").await;
    assert_eq!(database.at(chat_id, 100).await, "unsent");
    // Unless the caller knows that nobody published it, since the chat's subject was full.
    assert_eq!(database.published_at(chat_id, 100).await, "1@40: alice* bob");
    assert_eq!(database.published_at(chat_id, 40).await, "unknown");
    database.publish(OutboxKey::Chat(chat_id), 90).await;
    assert_eq!(database.at(chat_id, 100).await, "2@90: alice* bob carol");
    assert_eq!(database.at(chat_id, 90).await, "1@40: alice* bob");
}
