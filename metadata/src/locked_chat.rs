//! A chat held by whoever is about to change it, so that its changes come one after another.

use sqlx::{Postgres, Transaction};
use tidings_protocol::{ChatId, ChatKind, Participant};

use crate::chat_change::ChatOutcome;
use crate::database_error::Result;
use crate::stored;

/// A chat whose row is locked until the end of the transaction.
pub(crate) struct LockedChat {
    pub(crate) kind: ChatKind,
    pub(crate) name: Option<String>,
    pub(crate) closed: bool,
    pub(crate) version: u64,
    /// Of `version`; absent while that is not published.
    pub(crate) seq: Option<u64>,
    /// The longest-standing first.
    pub(crate) participants: Vec<Participant>,
}

impl LockedChat {
    /// What a request that changes nothing comes to.
    pub(crate) const fn unchanged(&self, chat_id: ChatId) -> ChatOutcome {
        ChatOutcome {
            chat_id,
            version: self.version,
            done: false,
            seq: self.seq,
        }
    }
}

/// Locks the chat, if there is one, and reads it as its last holder left it.
pub(crate) async fn lock_chat(
    tx: &mut Transaction<'static, Postgres>,
    chat_id: ChatId,
) -> Result<Option<LockedChat>> {
    // Two statements: what a locking statement reads besides the locked row is from before its wait.
    let Some(chat) = sqlx::query!(
        r#"SELECT kind, name, closed_at IS NOT NULL AS "closed!", version FROM chats WHERE chat_id = $1 FOR UPDATE"#,
        chat_id.0
    )
    .fetch_optional(&mut **tx)
    .await?
    else {
        return Ok(None);
    };
    let rows = sqlx::query!(
        "SELECT user_id, role FROM participants WHERE chat_id = $1 ORDER BY standing",
        chat_id.0
    )
    .fetch_all(&mut **tx)
    .await?;
    let seq = sqlx::query_scalar!(
        "SELECT seq FROM outbox WHERE chat_id = $1 AND version = $2",
        chat_id.0,
        chat.version
    )
    .fetch_optional(&mut **tx)
    .await?;
    let participants = rows.iter().map(|row| {
        Ok(Participant {
            user_id: stored::user_id(&row.user_id)?,
            role: stored::role(&row.role)?,
        })
    });
    Ok(Some(LockedChat {
        kind: stored::kind(&chat.kind)?,
        name: chat.name,
        closed: chat.closed,
        version: chat.version as u64,
        seq: seq.flatten().map(|seq| seq as u64),
        participants: participants.collect::<Result<_>>()?,
    }))
}
