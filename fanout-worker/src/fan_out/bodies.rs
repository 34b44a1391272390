//! Large bodies on their way into BODIES, and the lists of who refers to them.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use tidings_nats::{
    BODY_ENTRIES_KIND, BodyEntries, HEADER_KIND, body_entries_subject, body_headers, body_subject,
};

use super::FanOut;
use super::entries::ToStore;
use crate::large_body::{Closed, LargeBody};

/// For one publish ack. Without it entries are whole, and only that much later.
const TIMEOUT: Duration = Duration::from_secs(2);
/// From so many inboxes on a body is stored once: for one, it and a reference are more than the entry.
const INBOXES_MIN: usize = 2;
/// Tries of a list. Without it a body stays for 32 days and no entry is missed, so the chat does not wait for long.
const LIST_TRIES: u32 = 2;

impl FanOut {
    /// Stores the body of what goes to so many inboxes, if that pays and nobody has done it.
    pub(super) async fn store_body(&self, what: ToStore<'_>, inboxes: usize) {
        let Some(large) = what.large else {
            return;
        };
        if inboxes < INBOXES_MIN || !large.is_wanted() {
            return;
        }
        let _once = large.storing.lock().await;
        if !large.is_wanted() {
            return;
        }
        // From before it is sent: it is as old as that at most.
        let began = Instant::now();
        let subject = body_subject(what.sequence);
        let published = self
            .bus
            .publish(subject, body_headers(what.event), what.entry.clone(), TIMEOUT)
            .await;
        let outcome = if published.is_ok() { "stored" } else { "failed" };
        metrics::counter!("tidings_fanout_bodies_total", "outcome" => outcome).increment(1);
        let stored = match published {
            Ok(accepted) => Some(accepted.sequence),
            Err(error) => {
                tracing::debug!(stream.sequence = what.sequence, %error, "a large body is stored in each inbox");
                None
            }
        };
        large.stored(stored, began);
        #[cfg(debug_assertions)]
        self.faults.stall("after-body").await;
    }

    /// Says who refers to a body, once nobody will any more.
    pub(super) async fn close_body(&self, sequence: u64, large: &LargeBody) {
        let closed = large.close();
        #[cfg(debug_assertions)]
        self.faults.stall("before-list").await;
        let outcome = match closed {
            Closed::Nothing => return,
            Closed::Unknown => "unknown",
            Closed::Known(body, entries) => {
                let list = BodyEntries {
                    seq: sequence,
                    body,
                    entries,
                };
                if self.store_list(&list).await {
                    "stored"
                } else {
                    "failed"
                }
            }
        };
        metrics::counter!("tidings_fanout_body_lists_total", "outcome" => outcome).increment(1);
        if outcome != "stored" {
            tracing::debug!(
                stream.sequence = sequence,
                outcome,
                "a large body stays until it is too old"
            );
        }
    }

    /// Twice does no harm.
    async fn store_list(&self, list: &BodyEntries) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_KIND, BODY_ENTRIES_KIND);
        for _ in 0..LIST_TRIES {
            let subject = body_entries_subject(list.seq);
            let published = self
                .bus
                .publish(subject, headers.clone(), list.encode(), TIMEOUT)
                .await;
            if published.is_ok() {
                return true;
            }
        }
        false
    }
}
