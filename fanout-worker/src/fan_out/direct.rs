//! Direct delivery: whoever is connected and takes events directly is told before anything is stored, and what is
//! stored later is only what was not confirmed soon (adr/0021).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};
use futures::FutureExt as _;
use tidings_nats::{Event, Inbox, Shard};
use tidings_protocol::{ChatId, ClientId, UserId};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{Progress, Stored, Target, in_time};
use super::entries::ToStore;
use super::giving_up::forget_chat;
use super::{FanOut, Incoming, Outcome, wait_to_try_again};
use crate::holds::{Due, Hold, Taker};
use crate::participants::ParticipantsCache;
use crate::tries::{Failure, Tries};

/// How long a client may take to confirm before the event is stored for it. Clients confirm at least every 200 ms
/// (PROTOCOL §4); the rest is the way there and back.
const HOLD_MAX: Duration = Duration::from_secs(1);

impl FanOut {
    /// Tells those who take it directly, and says for whom it must be stored.
    pub(super) async fn tell_directly(
        &self,
        incoming: &Incoming,
        event: &Event,
        entry: &Bytes,
        mut targets: Vec<Target>,
        progress: &mut Progress,
    ) -> Result<Vec<Target>, Failure> {
        let known = known_to(event, &targets);
        let rounds = &self.deletions.rounds;
        if !self
            .live
            .holds
            .admit(rounds, event.chat_id(), incoming.sequence, &known)
            .await
        {
            return Err(Failure::weather(
                "a client is new, and an earlier event is still in CHATS",
            ));
        }
        // Once: who is told later is told after it is stored.
        if progress.held.is_none() || !progress.told.is_empty() {
            return Ok(targets);
        }
        let hold = Arc::new(Hold {
            sequence: incoming.sequence,
            lane: incoming.lane,
            entry: entry.clone(),
            event: event.clone(),
            trace: progress.trace,
            large: progress.large.clone(),
            changed: Notify::new(),
        });
        let told = self
            .live
            .tell_directly(&hold, clients_of(&targets), &known, || {
                self.standing.is_good() && !progress.cancelled.is_cancelled()
            })
            .await
            .ok_or_else(|| Failure::weather("the worker may not work on it any more"))?;
        if told.is_empty() {
            progress.held = None;
        } else {
            progress.told = told;
            if let Some(held) = progress.held.take() {
                // Whoever waits for it is polled beside this.
                let _ = held.send(hold);
            }
            targets.retain(|target| !progress.is_told(target));
        }
        Ok(targets)
    }

    /// Stores what is held of a chat, before this event, for those that this event is to be stored for.
    pub(super) async fn make_way(
        &self,
        chat_id: ChatId,
        sequence: u64,
        targets: &[Target],
        cancelled: &CancellationToken,
    ) -> Result<(), Failure> {
        let clients = clients_of(targets);
        self.store_held(chat_id, sequence.saturating_sub(1), clients, cancelled)
            .await
    }

    /// Holds an event until all who were told of it have confirmed it, or it is stored for them.
    pub(super) async fn wait_for_answers(
        &self,
        incoming: &Incoming,
        participants: &ParticipantsCache,
        hold: &Hold,
        cancelled: &CancellationToken,
    ) -> Outcome {
        let mut tries = Tries::default();
        let deadline = Instant::now() + HOLD_MAX;
        loop {
            if cancelled.is_cancelled() {
                return Outcome::Abandoned;
            }
            match self.live.holds.due(hold.sequence) {
                Due::Nothing => return Outcome::Finished,
                Due::Wait => {
                    let answered = tokio::time::timeout_at(deadline, hold.changed.notified());
                    if let Some(Err(_)) = cancelled.run_until_cancelled(answered).await {
                        metrics::counter!("tidings_fanout_direct_late_total").increment(1);
                        self.live.holds.refuse_all(hold.sequence);
                    }
                }
                Due::Store(clients) => {
                    let clients = clients.into_iter();
                    let stored = self.store_held(hold.event.chat_id(), hold.sequence, clients, cancelled);
                    let stored = AssertUnwindSafe(stored).catch_unwind().await;
                    let failure =
                        match stored.unwrap_or_else(|_| Err(Failure::weather("its handler panicked"))) {
                            Ok(()) => continue,
                            Err(Failure::Poison(reason)) => {
                                // Boxed, since hardly any event needs it and every one has room for this.
                                match Box::pin(self.bury(incoming, &reason, tries.count())).await {
                                    Ok(()) => {
                                        forget_chat(participants, incoming);
                                        return Outcome::Finished;
                                    }
                                    Err(error) => error,
                                }
                            }
                            Err(Failure::Weather(reason) | Failure::Newer(reason)) => reason,
                        };
                    tries.count_one();
                    wait_to_try_again(incoming, &tries, &failure, cancelled).await;
                }
            }
        }
    }

    /// Stores what is held of a chat for these clients, up to an event, in the order of the chat.
    async fn store_held(
        &self,
        chat_id: ChatId,
        through: u64,
        clients: impl Iterator<Item = (ClientId, UserId)>,
        cancelled: &CancellationToken,
    ) -> Result<(), Failure> {
        let mut shards: HashMap<Shard, HashSet<ClientId>> = HashMap::new();
        let mut all = HashSet::new();
        for (client_id, user_id) in clients {
            all.insert(client_id);
            shards
                .entry(self.topology.shard(&user_id))
                .or_default()
                .insert(client_id);
        }
        // Each event for those of them alone that were told of it, and have not answered.
        let open = self.live.holds.open(chat_id, through, &all).into_iter();
        let inboxes: HashMap<u64, usize> = open.map(|(hold, takers)| (hold.sequence, takers.len())).collect();
        let inboxes = &inboxes;
        let shards = shards.into_iter().filter_map(|(shard, clients)| {
            let storing = self.live.holds.storing(chat_id, shard)?;
            Some(async move {
                let _one_at_a_time = storing.lock().await;
                let open = self.live.holds.open(chat_id, through, &clients);
                for (hold, takers) in open {
                    go_on(cancelled)?;
                    let inboxes = inboxes.get(&hold.sequence).copied().unwrap_or_default();
                    self.store_one(&hold, takers, inboxes, cancelled).await.map_err(
                        |failure| match failure {
                            // Whoever waits for that one says so.
                            Failure::Poison(reason) if hold.sequence != through => Failure::Weather(reason),
                            failure => failure,
                        },
                    )?;
                }
                // If an event was left out since the work on it has ended, then this is to end too.
                go_on(cancelled)
            })
        });
        // All of them, also where one has failed.
        let stored: Result<(), Failure> = futures::future::join_all(shards).await.into_iter().collect();
        stored?;
        go_on(cancelled)
    }

    /// For these takers, and perhaps for others at the same time, so many `inboxes` together.
    async fn store_one(
        &self,
        hold: &Hold,
        takers: Vec<Taker>,
        inboxes: usize,
        cancelled: &CancellationToken,
    ) -> Result<(), Failure> {
        let users: HashSet<UserId> = takers.iter().map(|taker| taker.user_id.clone()).collect();
        let users: Vec<UserId> = users.into_iter().collect();
        let active = in_time(async {
            let active = self.clients.of(&users).await;
            active.map_err(|error| Failure::Weather(error.to_string()))
        })
        .await?;
        let is_active = |taker: &Taker| {
            let clients = active.get(&taker.user_id);
            clients.is_some_and(|clients| clients.contains(&taker.client_id))
        };
        let (takers, gone): (Vec<_>, Vec<_>) = takers.into_iter().partition(is_active);
        // A client that was removed meanwhile has no inbox any more.
        for taker in gone {
            self.live.holds.settle(hold.sequence, taker.client_id);
        }
        let targets: Vec<Target> = takers
            .into_iter()
            .map(|taker| (taker.user_id, Inbox::Client(taker.client_id)))
            .collect();
        let mut stored: Stored = HashMap::new();
        let what = ToStore {
            sequence: hold.sequence,
            partition: hold.lane.partition,
            event: &hold.event,
            entry: &hold.entry,
            trace: hold.trace,
            large: hold.large.as_deref(),
        };
        let result = self
            .publish_all(what, targets, inboxes, &mut stored, cancelled)
            .await;
        let told = self.told_of(&stored);
        self.notify(hold.lane, &hold.entry, hold.trace, told).await?;
        for (_, inbox) in stored.keys() {
            if let Inbox::Client(client_id) = inbox {
                self.live.holds.settle(hold.sequence, *client_id);
            }
        }
        result
    }
}

/// The clients among those whose inboxes get it.
fn clients_of(targets: &[Target]) -> impl Iterator<Item = (ClientId, UserId)> {
    targets.iter().filter_map(|(user_id, inbox)| match inbox {
        Inbox::Client(client_id) => Some((*client_id, user_id.clone())),
        Inbox::First => None,
    })
}

/// Who hears of an event: those that it is for, and who has sent it.
fn known_to(event: &Event, targets: &[Target]) -> HashSet<ClientId> {
    let sender = match event {
        Event::Message(message) => Some(message.client_id),
        Event::ChatUpdate(_) => None,
    };
    let clients = clients_of(targets).map(|(client_id, _)| client_id);
    clients.chain(sender).collect()
}

/// Whether the work goes on.
fn go_on(cancelled: &CancellationToken) -> Result<(), Failure> {
    if cancelled.is_cancelled() {
        return Err(Failure::weather("it is to end"));
    }
    Ok(())
}
