//! What full inboxes refused is marked on their `.lost` subjects, before the event counts as done.
//!
//! Every refused entry waits for a mark that counts it. Entries that one inbox refuses at the same time share one:
//! while a mark is being written, the next ones are gathered for the mark after it.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use parking_lot::Mutex;
use tidings_nats::{Bus, Event, Inbox, Lost, PublishError, Shard, Topology, inbox_subject};
use tidings_protocol::{Timestamp, TrimReason, UserId};
use tokio::sync::oneshot;

/// For each of the three requests of a mark.
const TIMEOUT: Duration = Duration::from_secs(5);

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct OverflowMarks {
    bus: Bus,
    topology: Topology,
    /// The inboxes whose mark is being written, and what must be written after it. At most as many as entries that
    /// wait, whose number the fan-out bounds.
    inboxes: Arc<Mutex<HashMap<String, Option<Next>>>>,
}

/// A mark to be written, and who waits for it.
#[derive(Debug)]
struct Next {
    lost: Lost,
    waiting: Vec<oneshot::Sender<Result<(), PublishError>>>,
}

impl OverflowMarks {
    pub(crate) fn new(bus: Bus, topology: Topology) -> Self {
        Self {
            bus,
            topology,
            inboxes: Arc::default(),
        }
    }

    /// Marks that a full inbox refused an event. When it fails, the mark may be there all the same.
    pub(crate) async fn mark(
        &self,
        user_id: &UserId,
        inbox: Inbox,
        event: &Event,
    ) -> Result<(), PublishError> {
        let at = happened_at(event);
        let lost = Lost {
            reason: TrimReason::Full,
            missed: Some(1),
            since: at,
            until: at,
            chats: vec![event.chat_id()],
        };
        let shard = self.topology.shard(user_id);
        let subject = inbox_subject(&self.topology, user_id, inbox);
        let (done, written) = oneshot::channel();
        if self.add(&subject, lost, done) {
            // A task of its own: others may come to wait for it, whatever happens to this event.
            tokio::spawn(self.clone().write(shard, subject));
        }
        written
            .await
            .unwrap_or(Err(PublishError::Unknown(tidings_nats::ApiError::Timeout)))
    }

    /// Whether somebody must begin to write.
    fn add(&self, subject: &str, lost: Lost, done: oneshot::Sender<Result<(), PublishError>>) -> bool {
        let mut inboxes = self.inboxes.lock();
        let (next, idle) = match inboxes.entry(subject.to_owned()) {
            Entry::Occupied(entry) => (entry.into_mut(), false),
            Entry::Vacant(entry) => (entry.insert(None), true),
        };
        match next {
            Some(next) => {
                next.lost.merge(&lost);
                next.waiting.push(done);
            }
            None => {
                *next = Some(Next {
                    lost,
                    waiting: vec![done],
                });
            }
        }
        idle
    }

    /// Writes one mark after the other until nothing waits.
    async fn write(self, shard: Shard, subject: String) {
        while let Some(Next { lost, waiting }) = self.take(&subject) {
            let result = self
                .bus
                .mark_lost(shard, &subject, &lost, TIMEOUT)
                .await
                .map(|_| ());
            metrics::counter!("tidings_overflow_marks_total").increment(u64::from(result.is_ok()));
            for waits in waiting {
                // Whoever does not wait any more tries again.
                let _ = waits.send(result.clone());
            }
        }
    }

    fn take(&self, subject: &str) -> Option<Next> {
        let mut inboxes = self.inboxes.lock();
        let next = inboxes.get_mut(subject).and_then(Option::take);
        if next.is_none() {
            inboxes.remove(subject);
        }
        next
    }
}

fn happened_at(event: &Event) -> Timestamp {
    match event {
        Event::Message(message) => message.sent_at,
        Event::ChatUpdate(update) => update.at,
    }
}
