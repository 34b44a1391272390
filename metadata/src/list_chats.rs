//! The chats of a user, page by page.

use tidings_protocol::{Chat, ChatId, UserId};

use crate::database_error::Result;
use crate::metadata::Metadata;
use crate::stored;

impl Metadata {
    /// Up to `limit` (at least 1) of the chats that the user is in, in the order of their ids, those above `after`
    /// only; and where to go on, absent at the end. A chat that comes or goes between two pages moves no other.
    pub async fn list_chats(
        &self,
        user: &UserId,
        after: Option<ChatId>,
        limit: u32,
    ) -> Result<(Vec<Chat>, Option<ChatId>)> {
        let limit = limit.max(1) as usize;
        let rows = sqlx::query!(
            r#"SELECT c.chat_id, c.kind, c.name, c.version,
                      ARRAY(SELECT user_id FROM participants p WHERE p.chat_id = c.chat_id ORDER BY standing) AS "users!",
                      ARRAY(SELECT role FROM participants p WHERE p.chat_id = c.chat_id ORDER BY standing) AS "roles!"
               FROM participants mine JOIN chats c USING (chat_id)
               WHERE mine.user_id = $1 AND ($2::uuid IS NULL OR mine.chat_id > $2)
               ORDER BY mine.chat_id LIMIT $3"#,
            user.as_str(),
            after.map(|chat_id| chat_id.0),
            // One more, to know whether there is a next page.
            limit as i64 + 1
        )
        .fetch_all(&self.pool)
        .await?;
        let chats = rows.iter().take(limit).map(|row| {
            Ok(Chat {
                chat_id: row.chat_id.into(),
                kind: stored::kind(&row.kind)?,
                name: row.name.clone(),
                version: row.version as u64,
                participants: stored::participants(&row.users, &row.roles)?,
            })
        });
        let chats: Vec<Chat> = chats.collect::<Result<_>>()?;
        let next = chats
            .last()
            .filter(|_| rows.len() > limit)
            .map(|chat| chat.chat_id);
        Ok((chats, next))
    }
}
