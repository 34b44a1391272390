//! Large bodies, which entries of many inboxes refer to (adr/0026). A thousand clients may want the same one at the same
//! moment: it is fetched once, and kept for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use tidings_nats::{ApiError, BODIES, Bus, Entry, Reference};
use tokio::sync::{OnceCell, Semaphore};

/// For one body, whoever fetches it. A stream without a leader answers nothing, and the reading is tried again.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Kept at most: 256 of the largest, and some thousand that are just large.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Readings that are waiting for bodies, each with a window of them in hand: 8 MiB. These are not places of readings of inboxes, so
/// that where BODIES does not answer, whoever has no large entry waits for nothing.
const READINGS_MAX: usize = 32;
/// Bodies of one reading that are asked for at once.
const AT_ONCE: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Bodies {
    bus: Bus,
    kept: Mutex<Kept<Bytes>>,
    readings: Semaphore,
}

/// What is kept, or being fetched, by its sequence in BODIES. The oldest go first.
#[derive(Debug)]
struct Kept<T> {
    by_sequence: HashMap<u64, (Arc<OnceCell<T>>, usize)>,
    order: VecDeque<u64>,
    bytes: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            by_sequence: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> Kept<T> {
    /// Where a body is, or will be.
    fn cell(&mut self, sequence: u64, bytes: usize) -> Arc<OnceCell<T>> {
        if let Some((cell, _)) = self.by_sequence.get(&sequence) {
            return cell.clone();
        }
        let cell = Arc::<OnceCell<T>>::default();
        self.by_sequence.insert(sequence, (cell.clone(), bytes));
        self.order.push_back(sequence);
        self.bytes += bytes;
        while self.bytes > KEPT_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some((_, bytes)) = self.by_sequence.remove(&oldest)
        {
            self.bytes -= bytes;
        }
        cell
    }

    /// It is not what somebody wanted.
    fn forget(&mut self, sequence: u64) {
        if let Some((_, bytes)) = self.by_sequence.remove(&sequence) {
            self.order.retain(|kept| *kept != sequence);
            self.bytes -= bytes;
        }
    }
}

/// Why a body was not fetched.
enum Missing {
    /// It is not there.
    Gone,
    /// Not known: ask again.
    Unknown(ApiError),
}

impl Bodies {
    pub(crate) fn new(bus: Bus) -> Self {
        Self {
            bus,
            kept: Mutex::default(),
            readings: Semaphore::new(READINGS_MAX),
        }
    }

    /// The entries that these refer to, in their order; None where the body is gone. The caller bounds their bytes.
    pub(crate) async fn entries(&self, references: Vec<Reference>) -> Result<Vec<Option<Entry>>, ApiError> {
        if references.is_empty() {
            return Ok(Vec::new());
        }
        let _place = self.readings.acquire().await.expect("it is never closed");
        let entries = references
            .into_iter()
            .map(|reference| async move { self.entry(&reference).await });
        futures::stream::iter(entries)
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn entry(&self, reference: &Reference) -> Result<Option<Entry>, ApiError> {
        let sequence = reference.to.body;
        let cell = self.kept.lock().cell(sequence, reference.to.bytes as usize);
        let fetched = cell.get_or_try_init(|| self.fetch(sequence));
        let entry = match tokio::time::timeout(TIMEOUT, fetched).await {
            Ok(Ok(body)) => reference.is_to(body),
            Ok(Err(Missing::Gone)) => None,
            Ok(Err(Missing::Unknown(error))) => return Err(error),
            Err(_) => return Err(ApiError::Timeout),
        };
        if entry.is_none() {
            self.kept.lock().forget(sequence);
        }
        Ok(entry)
    }

    async fn fetch(&self, sequence: u64) -> Result<Bytes, Missing> {
        metrics::counter!("tidings_bodies_fetched_total").increment(1);
        let found = self.bus.message_at(BODIES, sequence, TIMEOUT).await;
        let found = match found.map_err(Missing::Unknown)? {
            Some(found) => Some(found),
            // Whoever answered may be behind.
            None => self
                .bus
                .message_now(BODIES, sequence, TIMEOUT)
                .await
                .map_err(Missing::Unknown)?,
        };
        // Its own memory: what came from the network lies in a buffer with whatever else came.
        found
            .map(|found| Bytes::copy_from_slice(&found.payload))
            .ok_or(Missing::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes() {
        let mut kept = Kept::<()>::default();
        let size = KEPT_BYTES_MAX / 4;
        let first = kept.cell(1, size);
        assert!(
            Arc::ptr_eq(&first, &kept.cell(1, size)),
            "one for all who want it"
        );
        for sequence in 2..=5 {
            kept.cell(sequence, size);
        }
        assert_eq!((kept.order.len(), kept.bytes), (4, KEPT_BYTES_MAX));
        assert!(!Arc::ptr_eq(&first, &kept.cell(1, size)), "it was forgotten");
        assert_eq!(kept.order, [3, 4, 5, 1]);
        kept.forget(4);
        kept.forget(2);
        assert_eq!((kept.order.len(), kept.bytes), (3, 3 * size));
        assert_eq!(kept.by_sequence.len(), 3);
    }
}
