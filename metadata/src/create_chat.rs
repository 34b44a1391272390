//! A chat is created, or the direct chat of two people found.

use std::collections::HashSet;

use sqlx::{Postgres, Transaction};
use tidings_protocol::{ChatId, ChatKind, PARTICIPANTS_MAX, Participant, RequestId, Role, Timestamp, UserId};
use uuid::Uuid;

use crate::chat_change::{ChatChange, ChatOutcome};
use crate::database_error::{DatabaseError, Result};
use crate::metadata::Metadata;
use crate::outbox::write_chat_change;
use crate::requests::{Recalled, fingerprint, recall_or_claim, remember};
use crate::stored;

/// A `createChat`.
#[derive(Clone, Debug)]
pub struct NewChat {
    /// Who asks, and becomes admin.
    pub creator: UserId,
    /// The creator's id for this request.
    pub request_id: RequestId,
    /// The others, in the order in which they will stand; duplicates and the creator are folded.
    pub others: Vec<UserId>,
    /// A name of 1 to 100 characters. One other and no name is the direct chat of the two.
    pub name: Option<String>,
}

/// Why there is no chat.
#[derive(Debug, thiserror::Error)]
pub enum CreateChatError {
    /// There is nobody but the creator.
    #[error("a chat has at least one other participant")]
    Nobody,
    /// There would be more than 100, the creator included.
    #[error("a chat has at most {PARTICIPANTS_MAX} participants, this one would have {0}")]
    Full(usize),
    /// The request id was used for another request within 24 hours.
    #[error("this request id was used for another request")]
    RequestReused,
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for CreateChatError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Metadata {
    /// Creates the chat. The direct chat of two people that exists is answered with `done: false`, also when both
    /// ask at once. The same request again is answered as it was the first time.
    pub async fn create_chat(&self, new: NewChat) -> Result<ChatOutcome, CreateChatError> {
        let participants = fold(&new)?;
        let fingerprint = fingerprint_of(&new, &participants);
        let mut tx = self.begin().await?;
        match recall_or_claim(&mut tx, &new.creator, new.request_id, fingerprint).await? {
            Recalled::New => {}
            Recalled::Done(outcome) => return Ok(outcome),
            Recalled::OtherContent => return Err(CreateChatError::RequestReused),
        }
        let outcome = if let Some(pair) = direct_pair(&participants, new.name.as_deref()) {
            if let Some(chat) = insert_direct_chat(&mut tx, pair).await? {
                fill(&mut tx, &new, chat, ChatKind::Direct, &participants).await?
            } else {
                direct_chat(&mut tx, pair).await?
            }
        } else {
            let chat = insert_group_chat(&mut tx, new.name.as_deref()).await?;
            fill(&mut tx, &new, chat, ChatKind::Group, &participants).await?
        };
        remember(&mut tx, &new.creator, new.request_id, &outcome).await?;
        tx.commit().await?;
        Ok(outcome)
    }
}

/// The participants, each once, the creator first.
fn fold(new: &NewChat) -> Result<Vec<Participant>, CreateChatError> {
    let mut seen = HashSet::from([&new.creator]);
    let mut participants = vec![Participant {
        user_id: new.creator.clone(),
        role: Role::Admin,
    }];
    for other in &new.others {
        if seen.insert(other) {
            participants.push(Participant {
                user_id: other.clone(),
                role: Role::Member,
            });
        }
    }
    match participants.len() {
        1 => Err(CreateChatError::Nobody),
        count if count > PARTICIPANTS_MAX => Err(CreateChatError::Full(count)),
        _ => Ok(participants),
    }
}

/// The two of a direct chat, sorted; absent if this is a group.
fn direct_pair<'a>(participants: &'a [Participant], name: Option<&str>) -> Option<(&'a UserId, &'a UserId)> {
    match (participants, name) {
        ([one, other], None) if one.user_id < other.user_id => Some((&one.user_id, &other.user_id)),
        ([one, other], None) => Some((&other.user_id, &one.user_id)),
        _ => None,
    }
}

/// The same for the same people in another order.
fn fingerprint_of(new: &NewChat, participants: &[Participant]) -> i64 {
    let mut others: Vec<&str> = participants[1..]
        .iter()
        .map(|other| other.user_id.as_str())
        .collect();
    others.sort_unstable();
    let named = if new.name.is_some() { "named" } else { "unnamed" };
    fingerprint(
        ["createChat", named, new.name.as_deref().unwrap_or_default()]
            .into_iter()
            .chain(others),
    )
}

async fn insert_group_chat(
    tx: &mut Transaction<'static, Postgres>,
    name: Option<&str>,
) -> Result<(ChatId, Timestamp)> {
    let row = sqlx::query!(
        "INSERT INTO chats (chat_id, kind, name, version) VALUES ($1, 'group', $2, 1)
         RETURNING chat_id, created_at",
        Uuid::now_v7(),
        name
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok((row.chat_id.into(), row.created_at.into()))
}

/// Absent if there is one. Waits for a transaction that makes it at the same time.
async fn insert_direct_chat(
    tx: &mut Transaction<'static, Postgres>,
    (low, high): (&UserId, &UserId),
) -> Result<Option<(ChatId, Timestamp)>> {
    let row = sqlx::query!(
        "INSERT INTO chats (chat_id, kind, version, direct_low, direct_high) VALUES ($1, 'direct', 1, $2, $3)
         ON CONFLICT (direct_low, direct_high) DO NOTHING
         RETURNING chat_id, created_at",
        Uuid::now_v7(),
        low.as_str(),
        high.as_str()
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(row.map(|row| (row.chat_id.into(), row.created_at.into())))
}

/// The direct chat that exists.
async fn direct_chat(
    tx: &mut Transaction<'static, Postgres>,
    (low, high): (&UserId, &UserId),
) -> Result<ChatOutcome> {
    let row = sqlx::query!(
        r#"SELECT chat_id, version, seq AS "seq?" FROM chats LEFT JOIN outbox USING (chat_id, version)
           WHERE direct_low = $1 AND direct_high = $2"#,
        low.as_str(),
        high.as_str()
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(ChatOutcome {
        chat_id: row.chat_id.into(),
        version: row.version as u64,
        done: false,
        seq: row.seq.map(|seq| seq as u64),
    })
}

/// Writes the participants of a chat that was just made, and its first version to the outbox.
async fn fill(
    tx: &mut Transaction<'static, Postgres>,
    new: &NewChat,
    (chat_id, at): (ChatId, Timestamp),
    kind: ChatKind,
    participants: &[Participant],
) -> Result<ChatOutcome> {
    let users: Vec<String> = participants
        .iter()
        .map(|participant| participant.user_id.to_string())
        .collect();
    let roles: Vec<String> = participants
        .iter()
        .map(|participant| stored::role_text(participant.role).to_owned())
        .collect();
    sqlx::query!(
        "INSERT INTO participants (chat_id, user_id, role, standing)
         SELECT $1, user_id, role, standing
         FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS new (user_id, role, standing)",
        chat_id.0,
        &users,
        &roles
    )
    .execute(&mut **tx)
    .await?;
    let change = ChatChange {
        chat_id,
        version: 1,
        kind,
        name: new.name.clone(),
        by: new.creator.clone(),
        at,
        added: participants
            .iter()
            .map(|participant| participant.user_id.clone())
            .collect(),
        removed: Vec::new(),
        participants: participants.to_vec(),
        seq: None,
    };
    write_chat_change(tx, &change).await?;
    Ok(ChatOutcome {
        chat_id,
        version: 1,
        done: true,
        seq: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_chat(others: &[&str], name: Option<&str>) -> NewChat {
        let user = |id: &str| UserId::new(id).expect("printable");
        NewChat {
            creator: user("alice"),
            request_id: RequestId(Uuid::nil()),
            others: others.iter().map(|id| user(id)).collect(),
            name: name.map(str::to_owned),
        }
    }

    fn folded(others: &[&str]) -> String {
        match fold(&new_chat(others, None)) {
            Ok(all) => all
                .iter()
                .map(|one| one.user_id.as_str())
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn duplicates_and_the_creator_are_folded() {
        assert_eq!(folded(&["carol", "bob", "carol", "alice"]), "alice carol bob");
        assert_eq!(folded(&[]), "a chat has at least one other participant");
        assert_eq!(
            folded(&["alice", "alice"]),
            "a chat has at least one other participant"
        );
    }

    #[test]
    fn a_hundred_fit() {
        let ids: Vec<String> = (1..=100).map(|number| format!("user{number}")).collect();
        let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        assert_eq!(
            folded(&ids),
            "a chat has at most 100 participants, this one would have 101"
        );
        ids.pop();
        ids.extend(["user1", "alice"]);
        assert_eq!(
            fold(&new_chat(&ids, None))
                .expect("duplicates do not count")
                .len(),
            100
        );
    }

    #[test]
    fn a_request_is_the_same_in_another_order() {
        let print = |others: &[&str], name| {
            let new = new_chat(others, name);
            fingerprint_of(&new, &fold(&new).expect("a valid chat"))
        };
        assert_eq!(
            print(&["bob", "carol"], None),
            print(&["carol", "alice", "bob"], None)
        );
        assert_ne!(print(&["bob", "carol"], None), print(&["bob"], None));
        assert_ne!(print(&["bob"], None), print(&["bob"], Some("bob")));
        assert_ne!(print(&["bob"], Some("a")), print(&["bob"], Some("b")));
    }
}
