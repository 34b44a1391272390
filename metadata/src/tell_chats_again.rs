//! After a backup was restored: what clients know of their chats may be newer than the database is.
//!
//! Clients take a change of a chat only if its version is above the one that they know, and some know versions that
//! were made after the backup. So each chat gets a version above them all, which says who is in it now.

use sqlx::types::Uuid;

use crate::database_error::Result;
use crate::metadata::Metadata;

/// Chats of one statement. Each statement of ours may take ten seconds.
const CHATS_AT_ONCE: i64 = 1_000;

impl Metadata {
    /// Gives every open chat a new version that changes nothing, and that the outbox tells to everybody who is in it; says
    /// how many there are. Nobody else may use the database meanwhile. Done in pieces: given again after it broke off,
    /// it begins anew, and tells some chats twice.
    ///
    /// The version is the number of seconds since 1970, if that is higher than the next one: so it is above what a
    /// chat had reached before, and above those that restoring the same backup earlier has made, as long as no chat
    /// changes more than once a second. With a clock that is wrong it may not be.
    pub async fn tell_chats_again(&self) -> Result<u64> {
        let mut told = 0;
        let mut after = Uuid::nil();
        loop {
            let piece = self.tell_piece_again(after).await?;
            let Some(last) = piece.last() else {
                return Ok(told);
            };
            after = *last;
            told += piece.len() as u64;
        }
    }

    /// The chats of a piece, in their order. What a removed client had inherited ends at a sequence of its inbox's
    /// stream, which may have been restored from before it: nobody deletes up to there any more.
    async fn tell_piece_again(&self, after: Uuid) -> Result<Vec<Uuid>> {
        let mut tx = self.begin().await?;
        sqlx::query!(
            "UPDATE clients SET inherited_up_to = NULL WHERE inherited_up_to IS NOT NULL AND sweeps < 3"
        )
        .execute(&mut *tx)
        .await?;
        let mut chats = sqlx::query_scalar!(
            r#"WITH piece AS (
                   SELECT chat_id FROM chats WHERE chat_id > $1 AND closed_at IS NULL ORDER BY chat_id LIMIT $2
               ), told AS (
                   UPDATE chats SET version = greatest(version + 1, extract(epoch FROM clock_timestamp())::bigint)
                   FROM piece WHERE chats.chat_id = piece.chat_id
                   RETURNING chats.chat_id, version
               ), history AS (
                   UPDATE outbox SET superseded_at = clock_timestamp()
                   FROM piece WHERE outbox.chat_id = piece.chat_id AND superseded_at IS NULL AND seq IS NOT NULL
               )
               INSERT INTO outbox (chat_id, version, change)
               SELECT told.chat_id, told.version,
                      last.change || jsonb_build_object('version', told.version, 'added', '[]'::jsonb, 'removed', '[]'::jsonb)
               FROM told CROSS JOIN LATERAL (
                   SELECT change FROM outbox WHERE outbox.chat_id = told.chat_id ORDER BY version DESC LIMIT 1
               ) AS last
               RETURNING chat_id AS "chat_id!""#,
            after,
            CHATS_AT_ONCE
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        chats.sort_unstable();
        Ok(chats)
    }
}
