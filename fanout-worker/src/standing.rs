//! Whether this worker may work: others reckon with it, and it knows what they rely on.
//!
//! A gateway that lets a session go live waits for every worker whose key is in INSTANCES by then, and for nobody else.
//! So a worker may store an entry only once its key is there *and* it has caught up, after that, with SESSIONS and
//! INVALIDATIONS: whoever was not made to wait for it is then known to it. A worker whose key may have expired, since
//! it was stopped or cut off for a while, begins again in the same way, before it does anything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidings_nats::{ApiError, Bus, INVALIDATIONS, SESSIONS};
use tidings_service::{Applied, Registration};
use tokio::sync::watch;

use crate::sessions::Sessions;

/// A worker whose key in INSTANCES was not renewed for so long does nothing more: at 10 s others take it for dead.
const UNRENEWED_MAX: Duration = Duration::from_secs(8);
/// How often a worker that works looks whether it may, and one that may not whether it may again.
const INTERVAL: Duration = Duration::from_millis(200);
/// How often a worker that catches up looks how far it is.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(10);
/// For the end of a stream.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Of a worker that was never admitted.
const NEVER: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub(crate) struct Standing {
    bus: Bus,
    registration: Registration,
    sessions: Arc<Sessions>,
    invalidations: watch::Receiver<Applied>,
    /// How often the key had lapsed when the worker caught up last.
    admitted: AtomicU64,
}

impl Standing {
    /// Of a worker that has registered, and may not work yet.
    pub(crate) fn new(
        bus: Bus,
        registration: Registration,
        sessions: Arc<Sessions>,
        invalidations: watch::Receiver<Applied>,
    ) -> Self {
        Self {
            bus,
            registration,
            sessions,
            invalidations,
            admitted: AtomicU64::new(NEVER),
        }
    }

    /// Whether the worker may work at this moment. If so, then whatever it looked up before in SESSIONS or in its caches,
    /// since the last time that this was true, was good when it was looked up.
    pub(crate) fn is_good(&self) -> bool {
        self.registration.is_renewed_within(UNRENEWED_MAX)
            && self.registration.lapses() == self.admitted.load(Ordering::Acquire)
    }

    /// Ends once the worker may not work any more.
    pub(crate) async fn lost(&self) {
        while self.is_good() {
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Ends once the worker may work (again).
    pub(crate) async fn admit(&self) {
        loop {
            let lapses = self.registration.lapses();
            if self.registration.is_renewed_within(UNRENEWED_MAX) {
                match self.catch_up().await {
                    Ok(()) => {
                        // If the key has lapsed meanwhile, this admits nobody.
                        self.admitted.store(lapses, Ordering::Release);
                        if self.is_good() {
                            return;
                        }
                    }
                    Err(error) => tracing::debug!(%error, "not known how far others are; trying again"),
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Waits until everything is applied that the streams hold now.
    async fn catch_up(&self) -> anyhow::Result<()> {
        let sessions = self.bus.barrier(&format!("KV_{SESSIONS}"), TIMEOUT).await?;
        let invalidations = self.bus.last_sequence(INVALIDATIONS, TIMEOUT).await?;
        while self.sessions.revision() < sessions || self.invalidations.borrow().sequence < invalidations {
            if !self.registration.is_renewed_within(UNRENEWED_MAX) {
                return Err(ApiError::Timeout.into());
            }
            tokio::time::sleep(CATCH_UP_INTERVAL).await;
        }
        Ok(())
    }
}
