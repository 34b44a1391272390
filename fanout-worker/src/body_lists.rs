//! Lists of who refers to large bodies, on their way into BODIES. Without its list a body stays for 32 days, so one that
//! could not be stored is tried again, and no event waits for that (adr/0026).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use parking_lot::Mutex;
use tidings_nats::{
    Accepted, BODY_ENTRIES_KIND, BodyEntries, Bus, HEADER_KIND, Partition, PublishError, body_entries_subject,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::body_room::BodyRoom;

/// For one publish ack.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Lists that wait at once, 5 KB each at most: so many large events a worker has in a few minutes.
const WAITING_MAX: usize = 4_096;
/// Before the first of them is tried again; doubles up to the other.
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct BodyLists {
    bus: Bus,
    room: Arc<BodyRoom>,
    waiting: Mutex<VecDeque<List>>,
    added: Notify,
}

/// The list of one body.
#[derive(Clone, Debug)]
pub(crate) struct List {
    /// Of the event's chat.
    pub(crate) partition: Partition,
    /// Who refers to it.
    pub(crate) entries: BodyEntries,
}

/// What a try came to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Tried {
    Stored,
    /// It will never be stored.
    Refused,
    Failed,
}

impl BodyLists {
    pub(crate) fn new(bus: Bus, room: Arc<BodyRoom>) -> Self {
        tell_waiting(0);
        Self {
            bus,
            room,
            waiting: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// Stores a list, now or later.
    pub(crate) async fn store(&self, list: List, cancelled: &CancellationToken) {
        if self.room.takes_lists(Instant::now())
            && let Some(Tried::Stored | Tried::Refused) =
                cancelled.run_until_cancelled(self.try_to_store(&list)).await
        {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            drop(waiting);
            return refused(&list, "too many lists wait");
        }
        waiting.push_back(list);
        tell_waiting(waiting.len());
        drop(waiting);
        self.added.notify_one();
    }

    /// Tries again those that wait, for ever. What is dropped in the middle is tried once more by [`Self::flush`].
    pub(crate) async fn run(&self) {
        let mut delay = DELAY_MIN;
        loop {
            let Some(list) = self.first() else {
                self.added.notified().await;
                tokio::time::sleep(DELAY_MIN).await;
                continue;
            };
            if self.try_to_store(&list).await == Tried::Failed {
                tokio::time::sleep(delay.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                delay = (delay * 2).min(DELAY_MAX);
            } else {
                self.remove_first();
                delay = DELAY_MIN;
            }
        }
    }

    /// The last try of all that wait, until one fails or the time is over: others would not be stored either. Nobody else
    /// may be at it.
    pub(crate) async fn flush(&self, within: Duration) {
        let end = Instant::now() + within;
        while Instant::now() < end
            && let Some(list) = self.first()
        {
            if self.try_to_store(&list).await == Tried::Failed {
                break;
            }
            self.remove_first();
        }
        let left = std::mem::take(&mut *self.waiting.lock());
        tell_waiting(0);
        for list in left {
            refused(&list, "the worker stops, and BODIES did not take it");
        }
    }

    fn first(&self) -> Option<List> {
        self.waiting.lock().front().cloned()
    }

    fn remove_first(&self) {
        let mut waiting = self.waiting.lock();
        waiting.pop_front();
        tell_waiting(waiting.len());
    }

    /// Twice does no harm: the second one is removed as the first is.
    async fn try_to_store(&self, list: &List) -> Tried {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_KIND, BODY_ENTRIES_KIND);
        let subject = body_entries_subject(list.partition);
        let payload = list.entries.encode();
        let published = self.bus.publish(subject, headers, payload, TIMEOUT).await;
        self.room.learn(&published, Instant::now());
        let tried = tried(&published);
        match (&published, tried) {
            (_, Tried::Stored) => count("stored"),
            (Err(error), Tried::Refused) => refused(list, &error.to_string()),
            _ => tracing::debug!(
                stream.sequence = list.entries.seq,
                ?published,
                "who refers to a large body is not stored yet"
            ),
        }
        tried
    }
}

const fn tried(published: &Result<Accepted, PublishError>) -> Tried {
    match published {
        Ok(_) => Tried::Stored,
        Err(PublishError::TooLarge) => Tried::Refused,
        Err(_) => Tried::Failed,
    }
}

/// Of a body that stays until it is too old.
fn refused(list: &List, reason: &str) {
    count("failed");
    tracing::warn!(
        stream.sequence = list.entries.seq,
        body.sequence = list.entries.body,
        reason,
        "who refers to a large body is not stored: it stays for 32 days"
    );
}

/// Counts what became of a list.
pub(crate) fn count(outcome: &'static str) {
    metrics::counter!("tidings_fanout_body_lists_total", "outcome" => outcome).increment(1);
}

fn tell_waiting(count: usize) {
    metrics::gauge!("tidings_fanout_body_lists_waiting").set(count as f64);
}
