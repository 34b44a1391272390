//! From columns to the protocol's types and back.

use tidings_protocol::{ChatKind, ContentHash, Participant, Role, UserId};

use crate::database_error::{DatabaseError, Result};

/// A column that holds what no version of this crate wrote.
fn unreadable(what: &str, text: &str) -> DatabaseError {
    DatabaseError::Defect(sqlx::Error::Decode(format!("not {what}: {text:?}").into()))
}

pub(crate) fn user_id(text: &str) -> Result<UserId> {
    UserId::new(text).map_err(|_| unreadable("a user id", text))
}

pub(crate) fn content_hash(bytes: &[u8]) -> Result<ContentHash> {
    let hash = bytes.try_into().map(ContentHash);
    hash.map_err(|_| unreadable("a SHA-256", &format!("{} bytes", bytes.len())))
}

pub(crate) const fn role_text(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Member => "member",
    }
}

pub(crate) fn role(text: &str) -> Result<Role> {
    match text {
        "admin" => Ok(Role::Admin),
        "member" => Ok(Role::Member),
        _ => Err(unreadable("a role", text)),
    }
}

pub(crate) fn kind(text: &str) -> Result<ChatKind> {
    match text {
        "direct" => Ok(ChatKind::Direct),
        "group" => Ok(ChatKind::Group),
        _ => Err(unreadable("a kind of chat", text)),
    }
}

/// Two columns of arrays, as `array_agg` makes them, to participants.
pub(crate) fn participants(user_ids: &[String], roles: &[String]) -> Result<Vec<Participant>> {
    user_ids
        .iter()
        .zip(roles)
        .map(|(user, text)| {
            Ok(Participant {
                user_id: user_id(user)?,
                role: role(text)?,
            })
        })
        .collect()
}
