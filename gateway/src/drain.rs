//! Sending everybody elsewhere, a few at a time, so that a restart is no stampede.

use std::time::Duration;

use crate::mailbox::Ending;
use crate::sessions::Sessions;

/// Of the drain timeout, for telling clients to go; the rest is for what is under way.
const SHARE: f64 = 0.6;
/// Closed at once: fewer clients than this need no spreading.
const BATCH_MIN: usize = 50;
/// Between batches.
const INTERVAL: Duration = Duration::from_millis(100);

/// Closes every session with 1012, within a part of the time that a stop may take.
pub(crate) async fn drain(sessions: &Sessions, timeout: Duration) {
    close_all(sessions, timeout.mul_f64(SHARE)).await;
}

/// Closes every session with 1012, spread over a time. Those that have come in the meantime are closed too.
pub(crate) async fn close_all(sessions: &Sessions, spread: Duration) {
    let rounds = (spread.as_millis() / INTERVAL.as_millis()).max(1) as usize;
    let batch = sessions.len().div_ceil(rounds).max(BATCH_MIN);
    loop {
        let all = sessions.all();
        if all.is_empty() {
            return;
        }
        for session in all.iter().take(batch) {
            session.mailbox.close(Ending::Restart);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
