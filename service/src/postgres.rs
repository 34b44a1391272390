//! Whether Postgres answers, asked now and then.

use std::time::Duration;

use tidings_metadata::{DatabaseError, Metadata, SchemaError};
use tokio::time::Instant;

use crate::conditions::Condition;
use crate::tls_failure::TlsFailure;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(2);
/// After this without an answer the condition does not hold. A failover of a managed Postgres takes about as long,
/// and is no reason to send everybody elsewhere, where it is the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps a condition, and the gauge `tidings_postgres_up`, at what Postgres answers.
pub(crate) async fn watch(metadata: Metadata, condition: Condition) {
    let mut answered = Instant::now();
    loop {
        // One that is stopped, or cut off without a word, does not even say that it fails.
        let clock = tokio::time::timeout(PATIENCE, metadata.clock()).await;
        let failure = match clock {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(reason(&error)),
            Err(_) => Some("Postgres is silent".to_owned()),
        };
        if let Some(error) = failure {
            metrics::gauge!("tidings_postgres_up").set(0);
            tracing::debug!(error, "Postgres does not answer");
            if answered.elapsed() >= PATIENCE {
                condition.fails(error);
            }
        } else {
            answered = Instant::now();
            metrics::gauge!("tidings_postgres_up").set(1);
            condition.holds();
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Waits until Postgres answers and has the tables of this version. Fails when it has others.
pub(crate) async fn wait_for_schema(metadata: &Metadata, condition: &Condition) -> Result<(), SchemaError> {
    loop {
        match metadata.check_schema().await {
            Err(SchemaError::Database(error @ DatabaseError::Unavailable(_))) => {
                condition.fails(reason(&error));
                tokio::time::sleep(INTERVAL).await;
            }
            result => {
                if result.is_ok() {
                    condition.holds();
                }
                return result;
            }
        }
    }
}

/// With the setting to look at, where the error is about one.
fn reason(error: &DatabaseError) -> String {
    let advice = match TlsFailure::of(error) {
        Some(TlsFailure::Authority) => {
            "sslrootcert of --postgres-url is not of the authority that signed the server's certificate"
        }
        Some(TlsFailure::Host) => "--postgres-url names another host than the server's certificate is for",
        Some(TlsFailure::Ours) => "sslcert of --postgres-url is not what the server wants",
        Some(TlsFailure::None) | None => return error.to_string(),
    };
    format!("{advice}: {error}")
}
