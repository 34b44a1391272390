//! Waits for what may take long, and says so when it does.

use std::time::Duration;

use tidings_nats::setup::Change;
use tidings_stack::Server;
use tokio::time::{Instant, timeout};

use super::say::say;

/// How long one process may take to answer at the first start. Postgres may have to replay much after a crash.
const READY_PATIENCE: Duration = Duration::from_mins(2);
/// Whoever waits longer than this is told for what.
const SLOW: Duration = Duration::from_secs(3);

/// Waits until a process answers, and says so when that is slow.
pub(crate) async fn ready(server: &mut Server) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let left = READY_PATIENCE.saturating_sub(began.elapsed());
        if let Ok(ready) = timeout(SLOW, server.ready(left)).await {
            return ready;
        }
        say(&format!(
            "waiting for {}: {}",
            server.spec().name,
            server.unready()
        ));
    }
}

/// Waits for a part of the setup and says how it goes when that takes long. `changes` are those among what it gives.
pub(crate) async fn with_progress<T>(
    what: &str,
    work: impl Future<Output = anyhow::Result<T>>,
    changes: impl FnOnce(&T) -> &[Change],
) -> anyhow::Result<T> {
    let began = Instant::now();
    tokio::pin!(work);
    let done = loop {
        if let Ok(done) = timeout(SLOW, &mut work).await {
            break done?;
        }
        say(&format!("{what} ({:.0} s)", began.elapsed().as_secs_f64()));
    };
    let changes = changes(&done);
    if !changes.is_empty() {
        let seconds = began.elapsed().as_secs_f64();
        say(&format!("{what}: {} changes ({seconds:.1} s)", changes.len()));
    }
    Ok(done)
}
