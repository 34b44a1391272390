//! A time limit around what asks Postgres.
//!
//! Postgres ends its own statements after 10 s, and whoever wants a connection waits 3 s for one. A Postgres that is
//! stopped, or whose machine is gone without a word, ends nothing: the question would wait for hours.

use std::time::Duration;

use crate::database_error::DatabaseError;

/// Does the work, or gives it up and says that Postgres is unavailable. What was begun may have been done.
pub async fn in_time<T, E: From<DatabaseError>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(DatabaseError::Unavailable(sqlx::Error::PoolTimedOut).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn who_is_not_answered_goes_on() {
        let silent = in_time::<(), DatabaseError>(LIMIT, std::future::pending()).await;
        assert!(matches!(silent, Err(DatabaseError::Unavailable(_))));
        let answered = in_time::<_, DatabaseError>(LIMIT, async { Ok(1) }).await;
        assert!(matches!(answered, Ok(1)));
    }
}
