//! A chat, read.

use tidings_protocol::{Chat, ChatId};

use crate::database_error::Result;
use crate::metadata::Metadata;
use crate::stored;

/// A chat as Postgres knows it, which may be ahead of what is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRecord {
    /// The chat, with its participants.
    pub chat: Chat,
    /// Whether everybody has left.
    pub closed: bool,
    /// Whether the outbox holds changes of it that are not published yet.
    pub unsent: bool,
}

impl Metadata {
    /// The chat with its participants, and whether it has unsent changes, all of one moment.
    pub async fn chat(&self, chat_id: ChatId) -> Result<Option<ChatRecord>> {
        let row = sqlx::query!(
            r#"SELECT kind, name, version, closed_at IS NOT NULL AS "closed!",
                      EXISTS (SELECT FROM outbox WHERE chat_id = $1 AND seq IS NULL) AS "unsent!",
                      ARRAY(SELECT user_id FROM participants WHERE chat_id = $1 ORDER BY standing) AS "users!",
                      ARRAY(SELECT role FROM participants WHERE chat_id = $1 ORDER BY standing) AS "roles!"
               FROM chats WHERE chat_id = $1"#,
            chat_id.0
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            let chat = Chat {
                chat_id,
                kind: stored::kind(&row.kind)?,
                name: row.name,
                version: row.version as u64,
                participants: stored::participants(&row.users, &row.roles)?,
            };
            Ok(ChatRecord {
                chat,
                closed: row.closed,
                unsent: row.unsent,
            })
        })
        .transpose()
    }
}
