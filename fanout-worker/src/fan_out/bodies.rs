//! Large bodies on their way into BODIES, and the lists of who refers to them.

use std::time::{Duration, Instant};

use tidings_nats::{BodyEntries, body_headers, body_subject};
use tokio_util::sync::CancellationToken;

use super::entries::ToStore;
use super::{FanOut, Incoming};
use crate::body_lists::{self, List};
use crate::large_body::{Closed, LargeBody};

/// For one publish ack. Without it entries are whole, and only that much later.
const TIMEOUT: Duration = Duration::from_secs(2);
/// From so many inboxes on a body is stored once: for one, it and a reference are more than the entry.
const INBOXES_MIN: usize = 2;

impl FanOut {
    /// Stores the body of what goes to so many inboxes, if that pays and nobody has done it. False if the work was to end
    /// meanwhile: then nothing that follows may be stored, for what comes before may have been left out.
    pub(super) async fn store_body(
        &self,
        what: ToStore<'_>,
        large: &LargeBody,
        inboxes: usize,
        cancelled: &CancellationToken,
    ) -> bool {
        if inboxes < INBOXES_MIN || !large.is_wanted() {
            return true;
        }
        let stored = cancelled.run_until_cancelled(self.store_body_once(what, large));
        let is_known = stored.await.is_some();
        if !is_known {
            // It may be there, and then nobody refers to it and no list says so.
            count("failed");
        }
        is_known
    }

    async fn store_body_once(&self, what: ToStore<'_>, large: &LargeBody) {
        let _once = large.storing.lock().await;
        if !large.is_wanted() {
            return;
        }
        let _place = self.room.place().await;
        // From before it is sent: it is as old as that at most.
        let began = Instant::now();
        if !self.room.takes_bodies(began) {
            count("unasked");
            return large.stored(None, began);
        }
        let (subject, headers) = (body_subject(what.partition), body_headers(what.event));
        let published = self
            .bus
            .publish(subject, headers, what.entry.clone(), TIMEOUT)
            .await;
        self.room.learn(&published, Instant::now());
        count(if published.is_ok() { "stored" } else { "failed" });
        if let Err(error) = &published {
            tracing::debug!(stream.sequence = what.sequence, %error, "a large body is stored in each inbox");
        }
        large.stored(published.ok().map(|accepted| accepted.sequence), began);
        #[cfg(debug_assertions)]
        self.faults.stall("after-body").await;
    }

    /// Says who refers to a body, once nobody will any more.
    pub(super) async fn close_body(
        &self,
        incoming: &Incoming,
        large: &LargeBody,
        cancelled: &CancellationToken,
    ) {
        let closed = large.close();
        #[cfg(debug_assertions)]
        self.faults.stall("before-list").await;
        match closed {
            Closed::Nothing => {}
            Closed::Unknown => {
                body_lists::count("unknown");
                tracing::debug!(
                    stream.sequence = incoming.sequence,
                    "not known who refers to a large body: it stays until it is too old"
                );
            }
            Closed::Known(body, entries) => {
                let entries = BodyEntries {
                    seq: incoming.sequence,
                    body,
                    entries,
                };
                let partition = incoming.lane.partition;
                self.lists.store(List { partition, entries }, cancelled).await;
            }
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("tidings_fanout_bodies_total", "outcome" => outcome).increment(1);
}
