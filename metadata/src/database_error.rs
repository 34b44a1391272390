//! What Postgres could not do, told apart by what the caller can do about it.

/// The result of what fails only when Postgres does.
pub type Result<T, E = DatabaseError> = std::result::Result<T, E>;

/// What Postgres could not do.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It could not be reached, is overloaded or starting, or a lock took too long. Whether a change was made is
    /// not known: try again with the same ids.
    #[error("Postgres is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// It refused what was asked, or holds what this version cannot read. Trying again does not help.
    #[error("Postgres did not do what was asked: {0}")]
    Defect(#[source] sqlx::Error),
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        if passes(&error) {
            Self::Unavailable(error)
        } else {
            Self::Defect(error)
        }
    }
}

/// Whether waiting may cure it.
fn passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| state_passes(&code)),
        _ => false,
    }
}

/// Whether an SQLSTATE is about the server's state rather than about the statement.
fn state_passes(code: &str) -> bool {
    match code {
        // Lock not available, idle transaction ended, read-only (a standby after a failover).
        "55P03" | "25P03" | "25006" => true,
        // Connection, authorization (a password being rotated), rollback (deadlock, serialization), resources,
        // operator intervention, system error.
        _ => ["08", "28", "40", "53", "57", "58"]
            .iter()
            .any(|class| code.starts_with(class)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weather_and_defects_are_told_apart() {
        for code in [
            "08006", "40P01", "40001", "53300", "57P01", "57014", "55P03", "25P03", "25006",
        ] {
            assert!(state_passes(code), "{code}");
        }
        for code in ["23505", "42P01", "22023", "25001"] {
            assert!(!state_passes(code), "{code}");
        }
        assert!(passes(&sqlx::Error::PoolTimedOut));
        assert!(!passes(&sqlx::Error::RowNotFound));
    }
}
