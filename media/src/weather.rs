//! Postgres' trouble, as clients hear of it.

use std::time::Duration;

use tidings_metadata::DatabaseError;
use tidings_protocol::ErrorCode;

use crate::refusal::Refusal;

/// For one question. Postgres ends its own statements after 10 s and a caller waits 3 s for a connection; one that is
/// stopped, or cut off without a word, ends nothing.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(15);

/// Postgres has said nothing in time.
#[derive(Debug)]
pub(crate) struct Silent;

/// What needs Postgres, or that it is away. What was begun may have been done.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, Silent> {
    // Boxed: what speaks to Postgres has tens of KB of state, which would be part of every request's.
    let answer = tokio::time::timeout(DATABASE_TIMEOUT, Box::pin(work)).await;
    answer.map_err(|_| Silent)
}

impl From<Silent> for Refusal {
    fn from(Silent: Silent) -> Self {
        Self::unavailable("the database does not answer")
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Unavailable(error) => {
                tracing::debug!(%error, "Postgres is unavailable");
                Silent.into()
            }
            DatabaseError::Defect(error) => {
                tracing::error!(%error, "Postgres did not do what was asked");
                Self::new(ErrorCode::Internal, "the database did not do what was asked")
            }
        }
    }
}
