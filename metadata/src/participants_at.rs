//! Who was in a chat at a sequence: what the fan-out asks for each message whose chat it does not have at hand.

use sqlx::types::Json;
use tidings_protocol::ChatId;

use crate::chat_change::ChatChange;
use crate::database_error::Result;
use crate::metadata::Metadata;

/// Who was in a chat at a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParticipantsAt {
    /// The last change below the sequence, with everybody who was in then; `seq` is present.
    Known(ChatChange),
    /// The chat has changes whose sequences are not known: publish what the outbox holds of it, and ask again.
    Unsent,
    /// There is no such chat, or the sequence is older than what is kept of it (7 days after the next change).
    Unknown,
}

impl Metadata {
    /// Who was in the chat when CHATS gave out `seq`: the change with the highest sequence below it. Whatever is
    /// committed later is published above `seq`, so the answer is final once it is `Known`.
    pub async fn participants_at(&self, chat_id: ChatId, seq: u64) -> Result<ParticipantsAt> {
        match self.published_at(chat_id, seq).await? {
            (true, _) => Ok(ParticipantsAt::Unsent),
            (false, Some(change)) => Ok(ParticipantsAt::Known(change)),
            (false, None) => Ok(ParticipantsAt::Unknown),
        }
    }

    /// [`Metadata::participants_at`] for whoever knows that the changes whose sequences are not known are not
    /// published yet, since the chat's subject was full when they were to be. Never `Unsent`.
    pub async fn published_participants_at(&self, chat_id: ChatId, seq: u64) -> Result<ParticipantsAt> {
        let (_, change) = self.published_at(chat_id, seq).await?;
        Ok(change.map_or(ParticipantsAt::Unknown, ParticipantsAt::Known))
    }

    /// Whether the chat has unsent changes, and the last change below the sequence.
    async fn published_at(&self, chat_id: ChatId, seq: u64) -> Result<(bool, Option<ChatChange>)> {
        let row = sqlx::query!(
            r#"SELECT EXISTS (SELECT FROM outbox WHERE chat_id = $1 AND seq IS NULL) AS "unsent!",
                      o.change AS "change?: Json<ChatChange>", o.seq AS "seq?"
               FROM (SELECT) AS always
               LEFT JOIN LATERAL (
                   SELECT change, seq FROM outbox WHERE chat_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT 1
               ) AS o ON true"#,
            chat_id.0,
            seq as i64
        )
        .fetch_one(&self.pool)
        .await?;
        let change = row.change.map(|Json(change)| ChatChange {
            seq: row.seq.map(|seq| seq as u64),
            ..change
        });
        Ok((row.unsent, change))
    }
}
