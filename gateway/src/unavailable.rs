//! Postgres' and JetStream's trouble, as clients hear of it.

use std::time::Duration;

use tidings_metadata::DatabaseError;
use tidings_nats::PublishError;
use tidings_protocol::{Error, ErrorCode};

/// How soon a full chat is worth another try: a few fan-outs.
pub(crate) const CHAT_BUSY_RETRY_MS: u64 = 500;
/// How soon to come back while something is down: reconnects and elections take seconds.
const UNAVAILABLE_RETRY_MS: u64 = 1000;

/// For what needs Postgres. It ends its own statements after 10 s and a caller waits 3 s for a connection; one that is
/// stopped, or cut off without a word, ends nothing.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(15);

/// What needs Postgres, or that it is unavailable. What was begun may have been done. Boxed: what speaks to Postgres
/// has tens of KB of state, which would stay in every caller's.
pub(crate) fn in_time<'a, T: 'a>(
    work: impl Future<Output = Result<T, Error>> + 'a,
) -> impl Future<Output = Result<T, Error>> + 'a {
    let work = Box::pin(work);
    async move {
        tokio::time::timeout(DATABASE_TIMEOUT, work)
            .await
            .unwrap_or_else(|_| Err(unavailable("the database does not answer")))
    }
}

/// Not known whether it was done.
pub(crate) fn unavailable(message: &str) -> Error {
    Error::new(ErrorCode::Unavailable, message).retry_after_ms(UNAVAILABLE_RETRY_MS)
}

/// Postgres' trouble. The sentence of a defect stays in the log; it is no client's business.
pub(crate) fn database_error(error: &DatabaseError) -> Error {
    match error {
        DatabaseError::Unavailable(error) => {
            tracing::debug!(%error, "Postgres is unavailable");
            unavailable("the database does not answer")
        }
        DatabaseError::Defect(error) => {
            tracing::error!(%error, "Postgres did not do what was asked");
            Error::new(ErrorCode::Internal, "the database did not do what was asked")
        }
    }
}

/// JetStream's trouble with an event.
pub(crate) fn publish_error(error: &PublishError) -> Error {
    match error {
        PublishError::SubjectFull => {
            Error::new(ErrorCode::ChatBusy, "the chat has too many messages under way")
                .retry_after_ms(CHAT_BUSY_RETRY_MS)
        }
        PublishError::TooLarge => Error::new(
            ErrorCode::MessageTooLarge,
            "the message is larger than the store takes",
        )
        .at("message"),
        PublishError::StreamFull(reason) => {
            tracing::warn!(reason, "CHATS takes no more");
            unavailable("the store is full")
        }
        PublishError::Unknown(error) => {
            tracing::debug!(%error, "no publish ack");
            unavailable("not known whether it was accepted; retry with the same messageId")
        }
    }
}
