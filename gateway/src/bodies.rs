//! Large bodies, which entries of many inboxes refer to (adr/0026). A thousand clients may want the same one at the same
//! moment: it is fetched once, and kept for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tidings_nats::{ApiError, BODIES, BodyError, Bus, Entry, Reference};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// For one body, whoever fetches it. A stream without a leader answers nothing, and the reading is tried again.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Kept at most: 256 of the largest, and some thousand that are just large.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Readings that are waiting for bodies, each with a window of them in hand: 8 MiB. These are not places of readings of inboxes, so
/// that where BODIES does not answer, whoever has no large entry waits for nothing.
const READINGS_MAX: usize = 32;
/// Bodies of one reading that are asked for at once.
const AT_ONCE: usize = 16;
/// For so long after a failure BODIES is believed to be silent, unless it has answered since: longer than a reading waits
/// between two tries.
const SILENT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Bodies {
    bus: Bus,
    kept: Mutex<Kept<Bytes>>,
    readings: Semaphore,
    waits: Arc<AtomicUsize>,
    /// When it did not answer, if it has not since.
    failed: Mutex<Option<Instant>>,
}

/// What was found of some references, in their order.
#[derive(Debug)]
pub(crate) struct Followed {
    /// The entry of each, or why there is none; of as many as were found.
    pub(crate) entries: Vec<Result<Entry, BodyError>>,
    /// Why the next one was not, and those behind it neither.
    pub(crate) failure: Option<ApiError>,
}

/// A client waits for bodies, as long as this is there.
#[derive(Debug)]
pub(crate) struct Wait(Arc<AtomicUsize>);

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        tell_waits(&self.0);
    }
}

fn tell_waits(waits: &AtomicUsize) {
    metrics::gauge!("tidings_body_waits").set(waits.load(Ordering::Relaxed) as f64);
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
        let waits = Arc::default();
        // Whoever watches it sees it before anybody waits.
        tell_waits(&waits);
        Self {
            bus,
            kept: Mutex::default(),
            readings: Semaphore::new(READINGS_MAX),
            waits,
            failed: Mutex::default(),
        }
    }

    /// A place for a reading that is to follow references, if one is free.
    pub(crate) fn free_place(&self) -> Option<SemaphorePermit<'_>> {
        self.readings.try_acquire().ok()
    }

    /// The next place. While BODIES does not answer there are few, and many who wait: each holds little meanwhile.
    pub(crate) async fn place(&self) -> SemaphorePermit<'_> {
        self.readings.acquire().await.expect("it is never closed")
    }

    /// The entries that these refer to, until one is not known. The caller has a place, and bounds their bytes.
    pub(crate) async fn follow(&self, references: Vec<Reference>) -> Followed {
        let mut entries = Vec::with_capacity(references.len());
        let found = references
            .into_iter()
            .map(|reference| async move { self.entry(&reference).await });
        let mut found = futures::stream::iter(found).buffered(AT_ONCE);
        while let Some(found) = found.next().await {
            match found {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    metrics::counter!("tidings_body_failures_total").increment(1);
                    *self.failed.lock() = Some(Instant::now());
                    return Followed {
                        entries,
                        failure: Some(error),
                    };
                }
            }
        }
        Followed {
            entries,
            failure: None,
        }
    }

    /// Whether it has not answered lately.
    pub(crate) fn is_silent(&self) -> bool {
        self.failed.lock().is_some_and(|failed| failed.elapsed() < SILENT)
    }

    /// Says that a client waits.
    pub(crate) fn wait(&self) -> Wait {
        self.waits.fetch_add(1, Ordering::Relaxed);
        tell_waits(&self.waits);
        Wait(self.waits.clone())
    }

    async fn entry(&self, reference: &Reference) -> Result<Result<Entry, BodyError>, ApiError> {
        let sequence = reference.to.body;
        let cell = self.kept.lock().cell(sequence, reference.to.bytes as usize);
        let fetched = cell.get_or_try_init(|| self.fetch(sequence));
        let entry = match tokio::time::timeout(TIMEOUT, fetched).await {
            Ok(Ok(body)) => reference.follow(body),
            Ok(Err(Missing::Gone)) => Err(BodyError::Another),
            Ok(Err(Missing::Unknown(error))) => return Err(error),
            Err(_) => return Err(ApiError::Timeout),
        };
        if matches!(entry, Err(BodyError::Another)) {
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
        *self.failed.lock() = None;
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
