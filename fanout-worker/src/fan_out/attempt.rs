//! One try to store the entries of an event, and what earlier ones have done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use tidings_nats::{Accepted, Entry, Event, Inbox, Lane, WireError, chat_subject};
use tidings_protocol::{ClientId, UserId};
use tidings_service::{Kind, Span, TraceContext};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::entries::ToStore;
use super::late_grant::late_grant;
use super::{FanOut, Incoming};
use crate::holds::Hold;
use crate::large_body::LargeBody;
use crate::live_lane;
use crate::participants::ParticipantsCache;
use crate::tries::Failure;

/// For finding out who gets it. Postgres ends its statements after 10 s; a machine that is gone ends nothing.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(15);

/// Where an entry goes.
pub(crate) type Target = (UserId, Inbox);

/// What earlier tries have stored: where in the inbox's stream, or nothing where the inbox was full and that is
/// marked.
pub(super) type Stored = HashMap<Target, Option<Accepted>>;

/// What earlier tries have done.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) stored: Stored,
    /// Whose `first` was written to. It may be there though nobody said so, and then it must not be stored a second
    /// time for the client that has registered since and inherits it.
    pub(super) first: HashSet<UserId>,
    /// Whether those who get it may read what it names, where that was to be done here.
    pub(super) granted: bool,
    /// The body that its entries may refer to, if it is large.
    pub(super) large: Option<Arc<LargeBody>>,
    /// What goes with its entries and notices, if it is traced.
    pub(super) trace: Option<TraceContext>,
    /// Who is to wait for the answers of those who are told before it is stored; None where nobody may be, or all who
    /// may be have been.
    pub(super) held: Option<oneshot::Sender<Arc<Hold>>>,
    /// Who was told before it was stored.
    pub(super) told: HashSet<ClientId>,
    /// It may be what kills workers, and is tried for a while: it queues for nothing meanwhile. There are few.
    pub(super) on_trial: bool,
    /// The work on it is to end. Events before it may have ended already, and nothing may take their place.
    pub(super) cancelled: CancellationToken,
}

impl Progress {
    /// Whether somebody was told directly.
    pub(super) fn is_told(&self, (_, inbox): &Target) -> bool {
        matches!(inbox, Inbox::Client(client_id) if self.told.contains(client_id))
    }
}

impl FanOut {
    /// One try. Says the event's kind once everything is stored and told.
    pub(super) async fn attempt(
        &self,
        incoming: &Incoming,
        participants: &ParticipantsCache,
        progress: &mut Progress,
    ) -> Result<&'static str, Failure> {
        if !self.standing.is_good() {
            return Err(not_renewed());
        }
        let Some(payload) = self.payload(incoming).await? else {
            return Ok("gone");
        };
        let event = Event::decode(&payload).map_err(|error| wire_failure(&error))?;
        if chat_subject(self.topology.partition(event.chat_id()), event.chat_id()) != incoming.subject {
            return Err(Failure::Poison("its subject is not that of its chat".to_owned()));
        }
        #[cfg(debug_assertions)]
        self.faults.strike(&event);
        let entry =
            Entry::encode_around(incoming.sequence, &payload).map_err(|error| wire_failure(&error))?;
        if self.large_body_bytes.is_reached(entry.len()) && progress.large.is_none() {
            progress.large = Some(Arc::default());
        }
        let recipients = self.recipients(&event, incoming.sequence, participants, progress);
        let Some(recipients) = recipients.await? else {
            // A copy of a change that was fanned out before a later one.
            return Ok("superseded");
        };
        if let Some(late) = late_grant(&event, &incoming.headers, recipients.version)
            && !progress.granted
        {
            // Boxed, since hardly any event needs it and every one has room for this.
            in_time(Box::pin(self.grant(late))).await?;
            progress.granted = true;
        }
        let users = recipients.users;
        let look = self.horizon.look();
        let targets = in_time(self.targets(&event, &users, progress)).await?;
        let targets = self
            .tell_directly(incoming, &event, &entry, targets, progress)
            .await?;
        let to_first = targets.iter().any(|(_, inbox)| *inbox == Inbox::First);
        // What goes to `first` must be stored before gateways believe that this worker knows of an heir.
        let _look = to_first.then_some(look);
        let late: Vec<UserId> = progress.first.iter().cloned().collect();
        let first = targets.iter().filter(|(_, inbox)| *inbox == Inbox::First);
        progress.first.extend(first.map(|(user_id, _)| user_id.clone()));
        self.make_way(event.chat_id(), incoming.sequence, &targets, &progress.cancelled)
            .await?;
        let what = ToStore {
            sequence: incoming.sequence,
            partition: incoming.lane.partition,
            event: &event,
            entry: &entry,
            trace: progress.trace,
            large: progress.large.as_deref(),
        };
        let stored = &mut progress.stored;
        let span = progress
            .trace
            .and_then(|trace| Span::child(trace, "store", Kind::Producer));
        let inboxes = targets.len();
        self.publish_all(what, targets, inboxes, stored, &progress.cancelled)
            .await?;
        drop(span);
        let heirs = in_time(self.heirs(&late, stored)).await?;
        let told = self.told_of(stored).chain(heirs);
        self.notify(incoming.lane, &entry, progress.trace, told).await?;
        Ok(event.kind())
    }

    /// Which clients are told of what was stored, and where that is.
    pub(super) fn told_of(&self, stored: &Stored) -> impl Iterator<Item = live_lane::Stored> {
        stored
            .iter()
            .filter_map(|((user_id, inbox), accepted)| match (inbox, accepted) {
                (Inbox::Client(client_id), Some(accepted)) => {
                    Some((*client_id, (self.topology.shard(user_id), *accepted)))
                }
                _ => None,
            })
    }

    /// Tells gateways of what was stored.
    pub(super) async fn notify(
        &self,
        lane: Lane,
        entry: &Bytes,
        trace: Option<TraceContext>,
        told: impl Iterator<Item = live_lane::Stored>,
    ) -> Result<(), Failure> {
        let in_standing = || self.standing.is_good();
        if self.live.notify(lane, entry, trace, told, in_standing).await {
            Ok(())
        } else {
            Err(not_renewed())
        }
    }
}

fn not_renewed() -> Failure {
    Failure::weather("the worker's own key is not renewed")
}

/// A look-up in Postgres, which is given up after some time.
pub(super) async fn in_time<T>(look_up: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(LOOK_UP_TIMEOUT, look_up)
        .await
        .unwrap_or_else(|_| Err(Failure::weather("Postgres does not answer")))
}

fn wire_failure(error: &WireError) -> Failure {
    match error {
        // A newer worker can read it.
        WireError::Newer(_) => Failure::Newer(error.to_string()),
        WireError::Malformed(_) => Failure::Poison(error.to_string()),
    }
}
