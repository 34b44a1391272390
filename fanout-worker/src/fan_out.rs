//! Turns one event of a chat into one entry per client: stores them all, then tells the gateways.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tidings_metadata::Metadata;
use tidings_nats::{
    Accepted, ApiError, Bus, CHATS, Entry, Event, FIRST, Inbox, Lane, PublishError, Topology, WireError,
    chat_subject, escape_user, event_headers, inbox_subject,
};
use tidings_protocol::{ClientId, UserId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clients::Clients;
use crate::dead_letter::dead_letter;
use crate::horizon::Horizon;
use crate::live_lane::LiveLane;
use crate::overflow_marks::OverflowMarks;
use crate::participants::{Participants, ParticipantsCache, ParticipantsError};
use crate::partition_trials::Suspects;
use crate::payloads::Held;
use crate::publish_permits::PublishPermits;
use crate::standing::Standing;
use crate::trials::{Condemned, Trials};
use crate::tries::{Failure, Tries};
use crate::waits::Waits;

/// For one publish ack; an election of a stream takes about as long.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// For finding out who gets it. Postgres ends its statements after 10 s; a machine that is gone ends nothing.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(15);
/// Between looks at an event that this worker cannot read. It looks again only so that it can be cancelled in one way.
const NEWER_DELAY: Duration = Duration::from_mins(1);

/// An event as CHATS delivered it.
pub(crate) struct Incoming {
    /// Its stream sequence.
    pub(crate) sequence: u64,
    /// In which order it is told.
    pub(crate) lane: Lane,
    /// `chat.<partition>.<chat>`.
    pub(crate) subject: String,
    /// As the gateway wrote them.
    pub(crate) headers: HeaderMap,
    /// The event. Without it, it is read again when it is needed.
    pub(crate) payload: Option<(Bytes, Held)>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("sequence", &self.sequence)
            .field("subject", &self.subject)
            .field(
                "payload_bytes",
                &self.payload.as_ref().map(|(payload, _)| payload.len()),
            )
            .finish_non_exhaustive()
    }
}

/// How the work on an event ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that follows from it is stored: it may be acked.
    Finished,
    /// It was cancelled, and must be worked on again.
    Abandoned,
}

/// What the work needs; shared by all partitions.
#[derive(Debug)]
pub(crate) struct FanOut {
    pub(crate) bus: Bus,
    pub(crate) topology: Topology,
    pub(crate) metadata: Metadata,
    pub(crate) clients: Clients,
    pub(crate) horizon: Arc<Horizon>,
    pub(crate) live: LiveLane,
    pub(crate) overflow: OverflowMarks,
    pub(crate) standing: Standing,
    pub(crate) publishes: PublishPermits,
    pub(crate) trials: Trials,
    #[cfg(debug_assertions)]
    pub(crate) faults: crate::faults::Faults,
}

/// Where an entry goes.
type Target = (UserId, Inbox);

/// What earlier tries have stored: where in the inbox's stream, or nothing where the inbox was full and that is
/// marked.
type Stored = HashMap<Target, Option<Accepted>>;

/// What earlier tries have done.
#[derive(Debug, Default)]
struct Progress {
    stored: Stored,
    /// Whose `first` was written to. It may be there though nobody said so, and then it must not be stored a second
    /// time for the client that has registered since and inherits it.
    first: HashSet<UserId>,
}

impl FanOut {
    /// Works on an event until it is done, however long that takes, or until it is cancelled. A suspect is tried
    /// first, and given up if too many have died of it.
    pub(crate) async fn process(
        &self,
        incoming: &Incoming,
        participants: &ParticipantsCache,
        suspects: Option<&Arc<Suspects>>,
        cancelled: &CancellationToken,
    ) -> Outcome {
        let sequence = incoming.sequence;
        let Some(suspects) = suspects.filter(|suspects| suspects.contains(sequence)) else {
            return self.work(incoming, participants, false, cancelled).await;
        };
        // Boxed, since few events are tried and every one has room for this.
        let work = Box::pin(self.work(incoming, participants, true, cancelled));
        match Box::pin(self.trials.run(suspects, sequence, cancelled, work)).await {
            Ok(outcome) => outcome,
            Err(Condemned { deaths }) => {
                let reason = format!("{deaths} workers in a row died while they worked on it");
                let outcome = self.give_up(incoming, &reason, deaths, cancelled).await;
                if outcome == Outcome::Finished {
                    self.trials.close(suspects, sequence);
                    forget_chat(participants, incoming);
                }
                outcome
            }
        }
    }

    /// Makes a dead letter of an event, however long that takes.
    async fn give_up(
        &self,
        incoming: &Incoming,
        reason: &str,
        tries: u32,
        cancelled: &CancellationToken,
    ) -> Outcome {
        let mut attempts = Tries::default();
        while !cancelled.is_cancelled() {
            match self.bury(incoming, reason, tries).await {
                Ok(()) => return Outcome::Finished,
                Err(error) => tracing::debug!(error, "a dead letter was not stored; trying again"),
            }
            attempts.count_one();
            cancelled
                .run_until_cancelled(tokio::time::sleep(attempts.delay()))
                .await;
        }
        Outcome::Abandoned
    }

    /// One try of that. Says why not.
    async fn bury(&self, incoming: &Incoming, reason: &str, tries: u32) -> Result<(), String> {
        match self.payload(incoming).await {
            Ok(Some(payload)) => dead_letter(&self.bus, incoming, payload, reason, tries)
                .await
                .map_err(|error| error.to_string()),
            Ok(None) => Ok(()),
            Err(_) => Err("CHATS does not answer".to_owned()),
        }
    }

    /// What the event says; nothing, if it has left CHATS meanwhile: another worker has finished it.
    async fn payload(&self, incoming: &Incoming) -> Result<Option<Bytes>, Failure> {
        if let Some((payload, _)) = &incoming.payload {
            return Ok(Some(payload.clone()));
        }
        metrics::counter!("tidings_fanout_read_again_total").increment(1);
        let stored = self
            .bus
            .message_now(CHATS, incoming.sequence, PUBLISH_TIMEOUT)
            .await
            .map_err(|error| Failure::Weather(format!("CHATS does not answer: {error}")))?;
        Ok(stored.map(|stored| stored.payload))
    }

    async fn work(
        &self,
        incoming: &Incoming,
        participants: &ParticipantsCache,
        on_trial: bool,
        cancelled: &CancellationToken,
    ) -> Outcome {
        let started = Instant::now();
        let mut progress = Progress::default();
        let mut tries = Tries::default();
        let mut waits = Waits::default();
        while !cancelled.is_cancelled() {
            let running = if on_trial {
                None
            } else {
                Some(self.trials.running().await)
            };
            let tried = AssertUnwindSafe(self.attempt(incoming, participants, &mut progress))
                .catch_unwind()
                .await;
            drop(running);
            let reason = match tries.judge(tried) {
                Ok(kind) => {
                    metrics::counter!("tidings_fanout_events_total", "kind" => kind).increment(1);
                    metrics::histogram!("tidings_fanout_seconds").record(started.elapsed().as_secs_f64());
                    metrics::histogram!("tidings_fanout_recipients").record(progress.stored.len() as f64);
                    tracing::trace!(
                        stream.sequence = incoming.sequence,
                        kind,
                        tries = tries.count(),
                        stored = ?progress.stored,
                        "an event is fanned out"
                    );
                    return Outcome::Finished;
                }
                Err(Failure::Weather(reason)) => {
                    waits.wait_for("weather");
                    reason
                }
                Err(Failure::Newer(reason)) => {
                    if waits.wait_for("newer_worker") {
                        tracing::error!(
                            stream.sequence = incoming.sequence,
                            subject = incoming.subject,
                            reason,
                            "an event waits for a newer fan-out worker, and its chat with it"
                        );
                    }
                    // It may take a day, and nothing here can change meanwhile.
                    cancelled
                        .run_until_cancelled(tokio::time::sleep(NEWER_DELAY))
                        .await;
                    continue;
                }
                Err(Failure::Poison(reason)) => match self.bury(incoming, &reason, tries.count()).await {
                    Ok(()) => {
                        forget_chat(participants, incoming);
                        return Outcome::Finished;
                    }
                    Err(error) => format!("{reason}; and the dead letter was not stored: {error}"),
                },
            };
            metrics::counter!("tidings_fanout_retries_total").increment(1);
            if tries.is_news() {
                tracing::warn!(
                    stream.sequence = incoming.sequence,
                    subject = incoming.subject,
                    tries = tries.count(),
                    reason,
                    "an event waits"
                );
            }
            cancelled
                .run_until_cancelled(tokio::time::sleep(tries.delay()))
                .await;
        }
        Outcome::Abandoned
    }

    /// One try. Says the event's kind once everything is stored and told.
    async fn attempt(
        &self,
        incoming: &Incoming,
        participants: &ParticipantsCache,
        progress: &mut Progress,
    ) -> Result<&'static str, Failure> {
        if !self.standing.is_good() {
            return Err(Failure::Weather("the worker's own key is not renewed".to_owned()));
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
        let recipients = self.recipients(&event, incoming.sequence, participants);
        let Some(users) = in_time(recipients).await? else {
            // A copy of a change that was fanned out before a later one.
            return Ok("superseded");
        };
        let look = self.horizon.look();
        let targets = in_time(self.targets(&event, &users, progress)).await?;
        let to_first = targets.iter().any(|(_, inbox)| *inbox == Inbox::First);
        // What goes to `first` must be stored before gateways believe that this worker knows of an heir.
        let _look = to_first.then_some(look);
        let late: Vec<UserId> = progress.first.iter().cloned().collect();
        let first = targets.iter().filter(|(_, inbox)| *inbox == Inbox::First);
        progress.first.extend(first.map(|(user_id, _)| user_id.clone()));
        let stored = &mut progress.stored;
        self.publish_all(incoming.sequence, &event, &entry, targets, stored)
            .await?;
        let heirs = in_time(self.heirs(&late, stored)).await?;
        let told = stored
            .iter()
            .filter_map(|((user_id, inbox), accepted)| match (inbox, accepted) {
                (Inbox::Client(client_id), Some(accepted)) => {
                    Some((*client_id, (self.topology.shard(user_id), *accepted)))
                }
                _ => None,
            })
            .chain(heirs);
        let in_standing = || self.standing.is_good();
        if !self.live.notify(incoming.lane, &entry, told, in_standing).await {
            return Err(Failure::Weather("the worker's own key is not renewed".to_owned()));
        }
        Ok(event.kind())
    }

    /// Whose inboxes get it; nobody's, if it is a change that a later one has overtaken.
    async fn recipients(
        &self,
        event: &Event,
        sequence: u64,
        participants: &ParticipantsCache,
    ) -> Result<Option<Vec<UserId>>, Failure> {
        let chat_id = event.chat_id();
        let known = participants.get(chat_id);
        match event {
            Event::ChatUpdate(update) => {
                if known.is_some_and(|known| known.version > update.version) {
                    return Ok(None);
                }
                let now = Participants::of(update);
                let mut users = now.users.to_vec();
                users.extend(
                    update
                        .removed
                        .iter()
                        .filter(|user| !now.users.contains(user))
                        .cloned(),
                );
                participants.follow(chat_id, now);
                Ok(Some(users))
            }
            Event::Message(_) => {
                if let Some(known) = known {
                    return Ok(Some(known.users.to_vec()));
                }
                let (loaded, is_newest) =
                    Participants::load(&self.metadata, &self.bus, &self.topology, chat_id, sequence)
                        .await
                        .map_err(|error| participants_failure(&error))?;
                let users = loaded.users.to_vec();
                if is_newest {
                    participants.put(chat_id, loaded);
                }
                Ok(Some(users))
            }
        }
    }

    /// The inboxes that do not have it yet.
    async fn targets(
        &self,
        event: &Event,
        users: &[UserId],
        progress: &Progress,
    ) -> Result<Vec<Target>, Failure> {
        let sender: Option<ClientId> = match event {
            Event::Message(message) => Some(message.client_id),
            Event::ChatUpdate(_) => None,
        };
        let clients = self
            .clients
            .of(users)
            .await
            .map_err(|error| Failure::Weather(error.to_string()))?;
        let mut targets = Vec::new();
        for user in users {
            let clients: &[ClientId] = clients.get(user).map_or(&[], |clients| clients);
            if clients.is_empty() || progress.first.contains(user) {
                targets.push((user.clone(), Inbox::First));
                continue;
            }
            targets.extend(
                clients
                    .iter()
                    .filter(|client_id| Some(**client_id) != sender)
                    .map(|client_id| (user.clone(), Inbox::Client(*client_id))),
            );
        }
        targets.retain(|target| !progress.stored.contains_key(target));
        Ok(targets)
    }

    /// The clients of users whose `first` was written to by more than one try: one of them may have inherited it
    /// and read it between two tries, so it is told to read again.
    async fn heirs(
        &self,
        late: &[UserId],
        stored: &Stored,
    ) -> Result<Vec<crate::live_lane::Stored>, Failure> {
        if late.is_empty() {
            return Ok(Vec::new());
        }
        let clients = self
            .clients
            .of(late)
            .await
            .map_err(|error| Failure::Weather(error.to_string()))?;
        let mut heirs = Vec::new();
        for (user_id, clients) in &clients {
            let first = stored.get(&(user_id.clone(), Inbox::First));
            if let Some(Some(accepted)) = first {
                let place = Accepted {
                    duplicate: true,
                    ..*accepted
                };
                heirs.extend(
                    clients
                        .iter()
                        .map(|client| (*client, (self.topology.shard(user_id), place))),
                );
            }
        }
        Ok(heirs)
    }

    /// Publishes to all of them at once and notes what was stored.
    async fn publish_all(
        &self,
        sequence: u64,
        event: &Event,
        entry: &Bytes,
        targets: Vec<Target>,
        stored: &mut Stored,
    ) -> Result<(), Failure> {
        let count = targets.len();
        let mut publishes: FuturesUnordered<_> = targets
            .into_iter()
            .map(|target| self.publish(sequence, event, entry, target))
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

    async fn publish(
        &self,
        sequence: u64,
        event: &Event,
        entry: &Bytes,
        target: Target,
    ) -> (Target, Result<Option<Accepted>, PublishError>) {
        let (user_id, inbox) = &target;
        let message_id = match inbox {
            Inbox::Client(client_id) => Entry::message_id(sequence, &client_id.to_string()),
            // Users share a shard's stream, and all of them have a `first`.
            Inbox::First => Entry::message_id(sequence, &format!("{}.{FIRST}", escape_user(user_id))),
        };
        let headers = event_headers(event, &message_id);
        let subject = inbox_subject(&self.topology, user_id, *inbox);
        let shard = self.topology.shard(user_id);
        let permit = self.publishes.acquire(shard).await;
        if !self.standing.is_good() {
            // It was stopped meanwhile, for any time: another has worked on this, and perhaps on what comes after it.
            return (target, Err(PublishError::Unknown(ApiError::Disconnected)));
        }
        let published = self
            .bus
            .publish(subject, headers, entry.clone(), PUBLISH_TIMEOUT)
            .await;
        permit.done(&published);
        let published = match published {
            Ok(accepted) => Ok(Some(accepted)),
            // Done, but only once it is marked.
            Err(PublishError::SubjectFull) => {
                metrics::counter!("tidings_fanout_inbox_full_total").increment(1);
                self.overflow.mark(user_id, *inbox, event).await.map(|()| None)
            }
            Err(error) => Err(error),
        };
        (target, published)
    }
}

async fn in_time<T>(look_up: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(LOOK_UP_TIMEOUT, look_up)
        .await
        .unwrap_or_else(|_| Err(Failure::Weather("Postgres does not answer".to_owned())))
}

/// What was given up may have been a change of the chat: the next event finds out anew who is in it.
fn forget_chat(participants: &ParticipantsCache, incoming: &Incoming) {
    let chat = incoming.subject.rsplit('.').next().unwrap_or_default();
    if let Ok(chat_id) = chat.parse() {
        participants.forget(chat_id);
    }
}

fn wire_failure(error: &WireError) -> Failure {
    match error {
        // A newer worker can read it.
        WireError::Newer(_) => Failure::Newer(error.to_string()),
        WireError::Malformed(_) => Failure::Poison(error.to_string()),
    }
}

fn participants_failure(error: &ParticipantsError) -> Failure {
    match error {
        ParticipantsError::Unknown => Failure::Poison(error.to_string()),
        _ => Failure::Weather(error.to_string()),
    }
}
