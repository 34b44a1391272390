//! The worker's side of the live lane: what it tells gateways, numbered and in order.
//!
//! One lock holds together what must not be torn apart: looking up where clients are, taking the next number, and
//! handing the message to the connection. So a beacon that tells a revision of SESSIONS comes after every notice
//! that was addressed without it. And of what was told directly, a beacon tells no revision at which its client was
//! elsewhere already, until that is stored: whoever waits for the beacon reads it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};
use tidings_nats::{
    Accepted, Beacon, DirectNotice, DirectRecipient, Lane, LiveMessage, Notice, Recipient, Shard,
    live_subject,
};
use tidings_protocol::{ClientId, UserId};
use tidings_service::TraceContext;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::holds::{Hold, Holds, Taker};
use crate::horizon::Horizon;
use crate::sessions::Sessions;

/// How long beacons wait until what a client was told elsewhere is stored: an election of its stream takes about as long.
const MOVING_MAX: Duration = Duration::from_secs(5);

/// See the module. Notices and beacons share one NATS connection, which keeps their order.
#[derive(Debug)]
pub(crate) struct LiveLane {
    client: async_nats::Client,
    worker: Uuid,
    sessions: Arc<Sessions>,
    horizon: Arc<Horizon>,
    /// What was told directly.
    pub(crate) holds: Arc<Holds>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last number to each gateway. Never forgotten while the process lives: a number that came again would
    /// be taken for a copy.
    numbers: HashMap<Arc<str>, u64>,
    /// The clients that have moved while something was told directly to where they were before, and since when.
    moving: HashMap<ClientId, Instant>,
}

/// Where an entry was stored for a client.
pub(crate) type Stored = (ClientId, (Shard, Accepted));

impl LiveLane {
    pub(crate) fn new(
        client: async_nats::Client,
        worker: Uuid,
        sessions: Arc<Sessions>,
        horizon: Arc<Horizon>,
    ) -> Self {
        Self {
            client,
            worker,
            sessions,
            horizon,
            holds: Arc::default(),
            state: Mutex::default(),
        }
    }

    /// Tells the gateways of those clients that are connected. A notice that gets lost leaves a gap in the
    /// numbers, which the gateway notices; so only this stands in the way: `in_standing` is asked once it is known
    /// where the clients are, and if it says no then nobody is told, and false is returned. Between the look and
    /// the telling a process may have been stopped for any time.
    pub(crate) async fn notify(
        &self,
        lane: Lane,
        entry: &Bytes,
        trace: Option<TraceContext>,
        stored: impl Iterator<Item = Stored>,
        in_standing: impl Fn() -> bool,
    ) -> bool {
        let numbers = &mut self.state.lock().await.numbers;
        let mut by_gateway: HashMap<Arc<str>, Vec<Recipient>> = HashMap::new();
        let found = self.sessions.look_up(stored);
        if !in_standing() {
            return false;
        }
        for (client_id, (shard, accepted), session) in found {
            by_gateway.entry(session.gateway).or_default().push(Recipient {
                client_id,
                connection: session.connection,
                shard,
                sequence: accepted.sequence,
                stored_before: accepted.duplicate,
            });
        }
        metrics::counter!("tidings_fanout_notices_total").increment(by_gateway.len() as u64);
        for (gateway, recipients) in by_gateway {
            let (subject, number) = next(numbers, gateway);
            let notice = Notice {
                worker: self.worker,
                number,
                lane: Some(lane),
                entry: entry.clone(),
                recipients,
            };
            self.send(subject, trace, LiveMessage::Notice(notice)).await;
        }
        true
    }

    /// Tells an event, before it is stored, to those of these clients who take it directly, and begins to hold it; says
    /// who they are. `known` are all who hear of it in whatever way. As with [`Self::notify`], nobody is told if
    /// `in_standing` says no, and None is returned.
    pub(crate) async fn tell_directly(
        &self,
        hold: &Arc<Hold>,
        clients: impl Iterator<Item = (ClientId, UserId)>,
        known: &HashSet<ClientId>,
        in_standing: impl Fn() -> bool,
    ) -> Option<HashSet<ClientId>> {
        let numbers = &mut self.state.lock().await.numbers;
        let mut by_gateway: HashMap<Arc<str>, Vec<DirectRecipient>> = HashMap::new();
        let mut takers = Vec::new();
        for (client_id, user_id) in clients {
            let Some(session) = self.sessions.get(client_id) else {
                continue;
            };
            let (connection, Some(grant)) = (session.connection, session.grant) else {
                continue;
            };
            if !self
                .holds
                .may_follow(hold.event.chat_id(), client_id, connection, grant)
            {
                continue;
            }
            by_gateway
                .entry(session.gateway)
                .or_default()
                .push(DirectRecipient {
                    client_id,
                    connection,
                    grant,
                });
            takers.push(Taker {
                client_id,
                user_id,
                connection,
                grant,
            });
        }
        if !in_standing() {
            return None;
        }
        let told = takers.iter().map(|taker| taker.client_id).collect();
        if takers.is_empty() || !self.holds.hold(hold, takers, known) {
            return Some(HashSet::new());
        }
        metrics::counter!("tidings_fanout_notices_total").increment(by_gateway.len() as u64);
        for (gateway, recipients) in by_gateway {
            let (subject, number) = next(numbers, gateway);
            let notice = DirectNotice {
                worker: self.worker,
                number,
                lane: hold.lane,
                entry: hold.entry.clone(),
                recipients,
            };
            self.send(subject, hold.trace, LiveMessage::Direct(notice)).await;
        }
        Some(told)
    }

    /// Ends when a beacon can tell more than the last one, since what was told directly to clients that have moved is
    /// stored.
    pub(crate) async fn settled(&self) {
        loop {
            self.holds.moved.notified().await;
            let state = self.state.lock().await;
            if state.moving.keys().any(|client_id| !self.is_moving(*client_id)) {
                return;
            }
        }
    }

    fn is_moving(&self, client_id: ClientId) -> bool {
        let connection = self.sessions.get(client_id).map(|session| session.connection);
        self.holds.is_moving(client_id, connection)
    }

    /// Up to which revision of SESSIONS the clients of each gateway that have moved there have everything stored that they
    /// were told elsewhere: all that is known, or what stands here for a gateway.
    fn settled_revision(&self, moving: &mut HashMap<ClientId, Instant>) -> (u64, HashMap<Arc<str>, u64>) {
        let now = Instant::now();
        let moves = self.sessions.take_moves();
        let moved = if moves.any {
            self.holds.clients()
        } else {
            moves.clients
        };
        for client_id in moved {
            moving.entry(client_id).or_insert(now);
        }
        moving.retain(|client_id, _| self.is_moving(*client_id));
        let mut settled: HashMap<Arc<str>, u64> = HashMap::new();
        for (client_id, since) in moving {
            // Who is nowhere waits for nothing. Where it cannot be stored for long, nor can the client be read to, and the
            // others there do not wait for its shard.
            if let Some(session) = self.sessions.get(*client_id)
                && now < *since + MOVING_MAX
            {
                let before = session.revision.saturating_sub(1);
                let least = settled.entry(session.gateway).or_insert(before);
                *least = before.min(*least);
            }
        }
        (moves.revision, settled)
    }

    /// Tells these gateways how far the worker is.
    pub(crate) async fn send_beacons(&self, gateways: impl Iterator<Item = Arc<str>>) {
        let mut state = self.state.lock().await;
        let State { numbers, moving } = &mut *state;
        let (revision, settled) = self.settled_revision(moving);
        let invalidations_sequence = self.horizon.sequence();
        for gateway in gateways {
            let beacon = Beacon {
                worker: self.worker,
                notices: numbers.get(&gateway).copied().unwrap_or_default(),
                sessions_revision: settled
                    .get(&gateway)
                    .map_or(revision, |settled| revision.min(*settled)),
                invalidations_sequence,
            };
            self.send(live_subject(&gateway), None, LiveMessage::Beacon(beacon))
                .await;
        }
    }

    async fn send(&self, subject: String, trace: Option<TraceContext>, message: LiveMessage) {
        let payload = message.encode();
        let sent = match trace {
            None => self.client.publish(subject, payload).await,
            Some(trace) => {
                let mut headers = HeaderMap::new();
                trace.put(&mut headers);
                self.client.publish_with_headers(subject, headers, payload).await
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a live message was not sent");
        }
    }
}

/// Where the next notice to a gateway goes, and its number.
fn next(numbers: &mut HashMap<Arc<str>, u64>, gateway: Arc<str>) -> (String, u64) {
    let subject = live_subject(&gateway);
    let number = numbers.entry(gateway).or_default();
    *number += 1;
    (subject, *number)
}
