//! The entries of an event, one an inbox, on their way into JetStream.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tidings_nats::{
    Accepted, ApiError, Entry, Event, FIRST, Inbox, Partition, PublishError, Reference, escape_user,
    event_headers, inbox_subject,
};
use tidings_service::TraceContext;
use tokio_util::sync::CancellationToken;

use super::FanOut;
use super::attempt::{Stored, Target};
use crate::large_body::LargeBody;
use crate::publish_permits::PublishPermit;
use crate::tries::Failure;

/// For one publish ack; an election of a stream takes about as long.
pub(super) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be stored.
#[derive(Copy, Clone, Debug)]
pub(super) struct ToStore<'a> {
    /// The event's sequence in CHATS.
    pub(super) sequence: u64,
    /// Of the event's chat.
    pub(super) partition: Partition,
    /// What it says.
    pub(super) event: &'a Event,
    /// The whole entry.
    pub(super) entry: &'a Bytes,
    /// What goes with it, if it is traced.
    pub(super) trace: Option<TraceContext>,
    /// The body that entries may refer to instead, if it is large.
    pub(super) large: Option<&'a LargeBody>,
}

impl FanOut {
    /// Publishes to all of them at once and notes what was stored. There may be others, so many `inboxes` together.
    pub(super) async fn publish_all(
        &self,
        what: ToStore<'_>,
        targets: Vec<Target>,
        inboxes: usize,
        stored: &mut Stored,
        cancelled: &CancellationToken,
    ) -> Result<(), Failure> {
        let count = targets.len();
        // Boxed, since few events are large and every one has room for this.
        if let Some(large) = what.large
            && !Box::pin(self.store_body(what, large, inboxes, cancelled)).await
        {
            return Err(Failure::weather("it is to end"));
        }
        let mut publishes: FuturesUnordered<_> = targets
            .into_iter()
            .map(|target| self.publish(&what, target))
            .collect();
        let (mut failure, mut missing) = (None, 0);
        while let Some((target, result)) = publishes.next().await {
            match result {
                Ok(sequence) => {
                    let entries = u64::from(sequence.is_some());
                    metrics::counter!("tidings_fanout_entries_total").increment(entries);
                    stored.insert(target, sequence);
                }
                Err(error) => {
                    missing += 1;
                    let poison = matches!(error, PublishError::TooLarge);
                    failure = Some((poison, error));
                }
            }
        }
        match failure {
            None => Ok(()),
            Some((true, error)) => Err(Failure::Poison(error.to_string())),
            Some((false, error)) => Err(Failure::Weather(format!(
                "{missing} of {count} entries were not stored: {error}"
            ))),
        }
    }

    /// One entry, as soon as there is a permit. In a backlog thousands of chats wait for one with all their entries: what a
    /// publish needs is made only then, so that as much of it is there as there are permits.
    pub(super) async fn publish(
        &self,
        what: &ToStore<'_>,
        target: Target,
    ) -> (Target, Result<Option<Accepted>, PublishError>) {
        let permit = self.publishes.acquire(self.topology.shard(&target.0)).await;
        let published = Box::pin(self.publish_with(permit, what, &target)).await;
        (target, published)
    }

    async fn publish_with(
        &self,
        permit: PublishPermit<'_>,
        what: &ToStore<'_>,
        target: &Target,
    ) -> Result<Option<Accepted>, PublishError> {
        if !self.standing.is_good() {
            // It was stopped meanwhile, for any time: another has worked on this, and perhaps on what comes after it.
            return Err(PublishError::Unknown(ApiError::Disconnected));
        }
        let (user_id, inbox) = target;
        let ToStore { sequence, event, .. } = *what;
        let message_id = match inbox {
            Inbox::Client(client_id) => Entry::message_id(sequence, &client_id.to_string()),
            // Users share a shard's stream, and all of them have a `first`.
            Inbox::First => Entry::message_id(sequence, &format!("{}.{FIRST}", escape_user(user_id))),
        };
        let mut headers = event_headers(event, &message_id);
        if let Some(trace) = what.trace {
            trace.put(&mut headers);
        }
        let subject = inbox_subject(&self.topology, user_id, *inbox);
        let under_way = what.large.and_then(|large| large.refer(Instant::now()));
        let payload = match &under_way {
            Some(under_way) => Reference::new(sequence, event, under_way.body, what.entry.len()).encode(),
            None => what.entry.clone(),
        };
        let published = self.bus.publish(subject, headers, payload, PUBLISH_TIMEOUT).await;
        if let Some(under_way) = under_way {
            let shard = self.topology.shard(user_id);
            under_way.done(target, shard, &published, Instant::now());
        }
        permit.done(&published);
        match published {
            Ok(accepted) => Ok(Some(accepted)),
            // Done, but only once it is marked.
            Err(PublishError::SubjectFull) => {
                metrics::counter!("tidings_fanout_inbox_full_total").increment(1);
                self.overflow.mark(user_id, *inbox, event).await.map(|()| None)
            }
            Err(error) => Err(error),
        }
    }
}
