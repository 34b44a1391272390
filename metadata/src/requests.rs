//! The memory of requests: what was asked under an id is done once.

use sqlx::{Postgres, Transaction};
use tidings_protocol::{RequestId, UserId};
use xxhash_rust::xxh3::xxh3_64;

use crate::chat_change::ChatOutcome;
use crate::database_error::Result;

/// What is remembered of a request.
pub(crate) enum Recalled {
    /// Nothing: it is this transaction's to do, and nobody else's until it ends.
    New,
    /// It was done, with this outcome.
    Done(ChatOutcome),
    /// The id was used for something else.
    OtherContent,
}

/// A stable hash of what is asked. The parts are told apart by their lengths.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a str>) -> i64 {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    xxh3_64(&bytes).cast_signed()
}

/// Claims the id for this transaction, or says what is known of it. Waits for another transaction that does the
/// same request at the same time. What is older than the memory counts as forgotten also before it is pruned.
pub(crate) async fn recall_or_claim(
    tx: &mut Transaction<'static, Postgres>,
    user: &UserId,
    request: RequestId,
    fingerprint: i64,
) -> Result<Recalled> {
    let claimed = sqlx::query!(
        "INSERT INTO requests (user_id, request_id, fingerprint) VALUES ($1, $2, $3)
         ON CONFLICT (user_id, request_id) DO UPDATE
         SET fingerprint = excluded.fingerprint, requested_at = clock_timestamp(),
             chat_id = NULL, version = NULL, done = NULL
         WHERE requests.requested_at < clock_timestamp() - interval '24 hours'",
        user.as_str(),
        request.0,
        fingerprint
    )
    .execute(&mut **tx)
    .await?;
    if claimed.rows_affected() == 1 {
        return Ok(Recalled::New);
    }
    let row = sqlx::query!(
        r#"SELECT r.fingerprint, r.chat_id AS "chat_id!", r.version AS "version!", r.done AS "done!",
                  o.seq AS "seq?"
           FROM requests r LEFT JOIN outbox o USING (chat_id, version)
           WHERE r.user_id = $1 AND r.request_id = $2"#,
        user.as_str(),
        request.0
    )
    .fetch_one(&mut **tx)
    .await?;
    if row.fingerprint != fingerprint {
        return Ok(Recalled::OtherContent);
    }
    Ok(Recalled::Done(ChatOutcome {
        chat_id: row.chat_id.into(),
        version: row.version as u64,
        done: row.done,
        seq: row.seq.map(|seq| seq as u64),
    }))
}

/// Notes the outcome of the request that this transaction claimed.
pub(crate) async fn remember(
    tx: &mut Transaction<'static, Postgres>,
    user: &UserId,
    request: RequestId,
    outcome: &ChatOutcome,
) -> Result<()> {
    sqlx::query!(
        "UPDATE requests SET chat_id = $3, version = $4, done = $5 WHERE user_id = $1 AND request_id = $2",
        user.as_str(),
        request.0,
        outcome.chat_id.0,
        outcome.version as i64,
        outcome.done
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_parts_apart_and_stays_what_it_is() {
        assert_ne!(fingerprint(["ab", "c"]), fingerprint(["a", "bc"]));
        assert_ne!(fingerprint(["a"]), fingerprint(["a", ""]));
        // Requests are remembered across a rolling upgrade.
        assert_eq!(fingerprint(["ADD", "bob"]), -957_592_703_978_351_917);
    }
}
