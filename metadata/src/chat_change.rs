//! A change of a chat's participants, as the outbox keeps it and the bus carries it on.

use serde::{Deserialize, Serialize};
use tidings_protocol::{ChatId, ChatKind, Participant, Timestamp, UserId};

/// A change of a chat: what changed, and everything that holds after it. The first version creates the chat.
///
/// Stored as JSON; rows outlive the build that wrote them, so new fields need a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatChange {
    /// Which chat.
    pub chat_id: ChatId,
    /// Grows by one with each change, from 1.
    pub version: u64,
    /// Two or many.
    pub kind: ChatKind,
    /// The chat's name; direct chats have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who asked for it.
    pub by: UserId,
    /// When, by Postgres' clock.
    pub at: Timestamp,
    /// Who came in; everybody, for the first version.
    pub added: Vec<UserId>,
    /// Who went out.
    pub removed: Vec<UserId>,
    /// Who is in it after the change, the longest-standing first. Nobody: the chat is closed.
    pub participants: Vec<Participant>,
    /// The sequence in CHATS; absent until it is published.
    #[serde(skip)]
    pub seq: Option<u64>,
}

/// What `createChat` or `modifyChatParticipants` came to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ChatOutcome {
    /// The chat.
    pub chat_id: ChatId,
    /// The version that this request made or, if it changed nothing, the one it found.
    pub version: u64,
    /// Whether this request, now or when it came first, created or changed something.
    pub done: bool,
    /// The sequence of `version` in CHATS. Absent: publish what the outbox holds of this chat, then it is known.
    pub seq: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_protocol::Role;

    #[test]
    fn what_was_stored_once_is_read_for_ever() {
        let stored = r#"{"chatId":"01900000-0000-7000-8000-000000000001","version":2,"kind":"group","name":"Lunch","by":"alice","at":"2026-11-25T03:00:00.123Z","added":["bob"],"removed":[],"participants":[{"userId":"alice","role":"admin"},{"userId":"bob","role":"member"}]}"#;
        let user = |id| UserId::new(id).expect("printable");
        let change = ChatChange {
            chat_id: "01900000-0000-7000-8000-000000000001".parse().expect("a UUID"),
            version: 2,
            kind: ChatKind::Group,
            name: Some("Lunch".to_owned()),
            by: user("alice"),
            at: Timestamp(1_795_575_600_123),
            added: vec![user("bob")],
            removed: vec![],
            participants: vec![
                Participant {
                    user_id: user("alice"),
                    role: Role::Admin,
                },
                Participant {
                    user_id: user("bob"),
                    role: Role::Member,
                },
            ],
            seq: None,
        };
        assert_eq!(
            serde_json::from_str::<ChatChange>(stored).expect("the stored form"),
            change
        );
        assert_eq!(serde_json::to_string(&change).expect("plain data"), stored);
    }
}
