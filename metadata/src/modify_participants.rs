//! Somebody is added to a chat, removed from it, or leaves.

use sqlx::{Postgres, Transaction};
use tidings_protocol::{ChatId, ChatKind, Operation, PARTICIPANTS_MAX, Participant, RequestId, Role, UserId};

use crate::chat_change::{ChatChange, ChatOutcome};
use crate::database_error::{DatabaseError, Result};
use crate::locked_chat::{LockedChat, lock_chat};
use crate::metadata::Metadata;
use crate::outbox::write_chat_change;
use crate::requests::{Recalled, fingerprint, recall_or_claim, remember};
use crate::stored;

/// A `modifyChatParticipants`.
#[derive(Clone, Debug)]
pub struct ModifyParticipants {
    /// Who asks.
    pub by: UserId,
    /// The asker's id for this request.
    pub request_id: RequestId,
    /// Which chat.
    pub chat_id: ChatId,
    /// Whom.
    pub user: UserId,
    /// In or out.
    pub operation: Operation,
}

/// Why nothing changed. What is said to one who may not know of the chat is the same whatever it holds.
#[derive(Debug, thiserror::Error)]
pub enum ModifyError {
    /// There is no such chat.
    #[error("there is no such chat")]
    NotFound,
    /// The asker is not in the chat.
    #[error("the user is not in the chat")]
    NotAParticipant,
    /// The asker is no admin, and this is not leaving.
    #[error("only admins add and remove others")]
    NotAdmin,
    /// It is a direct chat.
    #[error("the participants of a direct chat do not change")]
    DirectChat,
    /// Everybody has left.
    #[error("everybody has left the chat")]
    Closed,
    /// There are 100 already.
    #[error("a chat has at most {PARTICIPANTS_MAX} participants")]
    Full,
    /// The request id was used for another request within 24 hours.
    #[error("this request id was used for another request")]
    RequestReused,
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for ModifyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Metadata {
    /// Adds or removes. ADD of someone who is in and REMOVE of someone who is not change nothing (`done: false`).
    /// When the last admin leaves, the longest-standing member becomes admin; when the last participant leaves,
    /// the chat is closed. The same request again is answered as it was the first time, also to one who has left
    /// since.
    pub async fn modify_participants(&self, asked: ModifyParticipants) -> Result<ChatOutcome, ModifyError> {
        let mut tx = self.begin().await?;
        match recall_or_claim(&mut tx, &asked.by, asked.request_id, fingerprint_of(&asked)).await? {
            Recalled::New => {}
            Recalled::Done(outcome) => return Ok(outcome),
            Recalled::OtherContent => return Err(ModifyError::RequestReused),
        }
        let chat = lock_chat(&mut tx, asked.chat_id)
            .await?
            .ok_or(ModifyError::NotFound)?;
        let outcome = match decide(&chat, &asked)? {
            None => chat.unchanged(asked.chat_id),
            Some(participants) => change(&mut tx, &asked, chat, participants).await?,
        };
        remember(&mut tx, &asked.by, asked.request_id, &outcome).await?;
        tx.commit().await?;
        Ok(outcome)
    }
}

fn fingerprint_of(asked: &ModifyParticipants) -> i64 {
    let operation = match asked.operation {
        Operation::Add => "ADD",
        Operation::Remove => "REMOVE",
    };
    fingerprint([
        "modifyChatParticipants",
        &asked.chat_id.to_string(),
        operation,
        asked.user.as_str(),
    ])
}

/// Who is in the chat afterwards, the longest-standing first; absent if that is no change.
fn decide(chat: &LockedChat, asked: &ModifyParticipants) -> Result<Option<Vec<Participant>>, ModifyError> {
    if chat.closed {
        return Err(ModifyError::Closed);
    }
    let of = |user: &UserId| {
        chat.participants
            .iter()
            .find(|participant| participant.user_id == *user)
    };
    let by = of(&asked.by).ok_or(ModifyError::NotAParticipant)?;
    if chat.kind == ChatKind::Direct {
        return Err(ModifyError::DirectChat);
    }
    let leaves = asked.operation == Operation::Remove && asked.by == asked.user;
    if by.role != Role::Admin && !leaves {
        return Err(ModifyError::NotAdmin);
    }
    if of(&asked.user).is_some() == (asked.operation == Operation::Add) {
        return Ok(None);
    }

    let mut participants = chat.participants.clone();
    match asked.operation {
        Operation::Add if participants.len() >= PARTICIPANTS_MAX => return Err(ModifyError::Full),
        Operation::Add => {
            participants.push(Participant {
                user_id: asked.user.clone(),
                role: Role::Member,
            });
        }
        Operation::Remove => participants.retain(|participant| participant.user_id != asked.user),
    }
    if !participants
        .iter()
        .any(|participant| participant.role == Role::Admin)
        && let Some(longest_standing) = participants.first_mut()
    {
        longest_standing.role = Role::Admin;
    }
    Ok(Some(participants))
}

/// Writes the next version of the chat.
async fn change(
    tx: &mut Transaction<'static, Postgres>,
    asked: &ModifyParticipants,
    chat: LockedChat,
    participants: Vec<Participant>,
) -> Result<ChatOutcome> {
    let chat_id = asked.chat_id;
    let row = sqlx::query!(
        r#"UPDATE chats SET version = version + 1, closed_at = CASE WHEN $2 THEN clock_timestamp() END
           WHERE chat_id = $1
           RETURNING version, clock_timestamp() AS "at!""#,
        chat_id.0,
        participants.is_empty()
    )
    .fetch_one(&mut **tx)
    .await?;
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    match asked.operation {
        Operation::Add => {
            insert_participant(tx, chat_id, &asked.user).await?;
            added.push(asked.user.clone());
        }
        Operation::Remove => {
            delete_participant(tx, chat_id, &asked.user).await?;
            removed.push(asked.user.clone());
        }
    }
    for (after, before) in participants.iter().filter_map(|after| {
        let before = chat
            .participants
            .iter()
            .find(|before| before.user_id == after.user_id)?;
        Some((after, before))
    }) {
        if after.role != before.role {
            update_role(tx, chat_id, after).await?;
        }
    }
    let change = ChatChange {
        chat_id,
        version: row.version as u64,
        kind: chat.kind,
        name: chat.name,
        by: asked.by.clone(),
        at: row.at.into(),
        added,
        removed,
        participants,
        seq: None,
    };
    write_chat_change(tx, &change).await?;
    Ok(ChatOutcome {
        chat_id,
        version: change.version,
        done: true,
        seq: None,
    })
}

async fn insert_participant(
    tx: &mut Transaction<'static, Postgres>,
    chat_id: ChatId,
    user: &UserId,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO participants (chat_id, user_id, role, standing)
         SELECT $1, $2, 'member', coalesce(max(standing), 0) + 1 FROM participants WHERE chat_id = $1",
        chat_id.0,
        user.as_str()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn delete_participant(
    tx: &mut Transaction<'static, Postgres>,
    chat_id: ChatId,
    user: &UserId,
) -> Result<()> {
    sqlx::query!(
        "DELETE FROM participants WHERE chat_id = $1 AND user_id = $2",
        chat_id.0,
        user.as_str()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn update_role(
    tx: &mut Transaction<'static, Postgres>,
    chat_id: ChatId,
    participant: &Participant,
) -> Result<()> {
    sqlx::query!(
        "UPDATE participants SET role = $3 WHERE chat_id = $1 AND user_id = $2",
        chat_id.0,
        participant.user_id.as_str(),
        stored::role_text(participant.role)
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn user(id: &str) -> UserId {
        UserId::new(id).expect("printable")
    }

    /// A chat from a text: admins are written with a star, the longest-standing first.
    fn chat(kind: ChatKind, participants: &str) -> LockedChat {
        let participants: Vec<_> = participants
            .split_whitespace()
            .map(|text| Participant {
                user_id: user(text.trim_end_matches('*')),
                role: if text.ends_with('*') {
                    Role::Admin
                } else {
                    Role::Member
                },
            })
            .collect();
        let closed = participants.is_empty();
        LockedChat {
            kind,
            name: None,
            closed,
            version: 1,
            seq: None,
            participants,
        }
    }

    fn decided(chat: &LockedChat, by: &str, operation: Operation, whom: &str) -> String {
        let asked = ModifyParticipants {
            by: user(by),
            request_id: RequestId(Uuid::nil()),
            chat_id: ChatId(Uuid::nil()),
            user: user(whom),
            operation,
        };
        match decide(chat, &asked) {
            Ok(None) => "unchanged".to_owned(),
            Ok(Some(participants)) => {
                let star = |role| if role == Role::Admin { "*" } else { "" };
                let texts = participants
                    .iter()
                    .map(|one| format!("{}{}", one.user_id, star(one.role)));
                texts.collect::<Vec<_>>().join(" ")
            }
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn the_rules() {
        use Operation::{Add, Remove};
        let script = [
            ("alice* bob", "alice", Add, "carol", "alice* bob carol"),
            ("alice* bob", "alice", Add, "bob", "unchanged"),
            ("alice* bob", "alice", Remove, "carol", "unchanged"),
            ("alice* bob", "alice", Remove, "bob", "alice*"),
            // Admins only, whether or not it would change something.
            ("alice* bob carol", "bob", Add, "dave", "NotAdmin"),
            ("alice* bob carol", "bob", Add, "carol", "NotAdmin"),
            ("alice* bob carol", "bob", Remove, "carol", "NotAdmin"),
            ("alice* bob carol", "bob", Remove, "dave", "NotAdmin"),
            // Anyone may leave.
            ("alice* bob carol", "bob", Remove, "bob", "alice* carol"),
            // The last admin leaves, or is removed by nobody but themself.
            ("alice* bob carol", "alice", Remove, "alice", "bob* carol"),
            ("bob alice* carol", "alice", Remove, "alice", "bob* carol"),
            ("alice* bob carol*", "alice", Remove, "alice", "bob carol*"),
            // The last leaver.
            ("alice*", "alice", Remove, "alice", ""),
            // Strangers learn nothing.
            ("alice* bob", "eve", Add, "eve", "NotAParticipant"),
            ("alice* bob", "eve", Remove, "eve", "NotAParticipant"),
            ("alice* bob", "eve", Remove, "bob", "NotAParticipant"),
            ("", "alice", Add, "alice", "Closed"),
        ];
        for (participants, by, operation, whom, expected) in script {
            let chat = chat(ChatKind::Group, participants);
            assert_eq!(
                decided(&chat, by, operation, whom),
                expected,
                "{participants}: {by} {operation:?} {whom}"
            );
        }
    }

    #[test]
    fn a_direct_chat_does_not_change() {
        let chat = chat(ChatKind::Direct, "alice* bob");
        for (by, operation, whom, expected) in [
            ("alice", Operation::Add, "carol", "DirectChat"),
            ("alice", Operation::Add, "bob", "DirectChat"),
            ("bob", Operation::Remove, "bob", "DirectChat"),
            ("eve", Operation::Add, "eve", "NotAParticipant"),
        ] {
            assert_eq!(decided(&chat, by, operation, whom), expected);
        }
    }

    #[test]
    fn the_hundred_and_first_does_not_fit() {
        let members: Vec<String> = (1..100).map(|number| format!("user{number}")).collect();
        let full = chat(ChatKind::Group, &format!("alice* {}", members.join(" ")));
        assert_eq!(decided(&full, "alice", Operation::Add, "carol"), "Full");
        assert_eq!(decided(&full, "alice", Operation::Add, "user7"), "unchanged");
        let fits = chat(ChatKind::Group, &format!("alice* {}", members[1..].join(" ")));
        assert!(decided(&fits, "alice", Operation::Add, "carol").ends_with(" user99 carol"));
    }
}
