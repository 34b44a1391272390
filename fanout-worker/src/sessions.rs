//! Where each client is connected: the whole bucket SESSIONS, followed.
//!
//! A reading that was interrupted begins again with everything the bucket holds and replaces the map, since a key
//! may have been deleted, and the mark of that expired, while nobody followed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use foldhash::{HashMap, HashSet};
use futures::StreamExt as _;
use parking_lot::RwLock;
use serde::Deserialize;
use tidings_nats::{Bus, SESSIONS, SessionKey};
use tidings_protocol::ClientId;
use tidings_service::{Context, NatsConnection};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How often the bucket is asked how far it is: a consumer that fell silent is noticed after two of these.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A question that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Between tries to follow on.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// A client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// The boot id of its gateway.
    pub(crate) gateway: Arc<str>,
    /// Which connection.
    pub(crate) connection: u64,
    /// The revision of its key.
    pub(crate) revision: u64,
    /// Under which grant it takes events directly; none where it does not.
    pub(crate) grant: Option<u32>,
}

/// Where clients have gone since somebody asked last, as of a revision.
#[derive(Debug)]
pub(crate) struct Moves {
    /// Up to which revision the map was right.
    pub(crate) revision: u64,
    /// Everything was read anew: any client may have moved.
    pub(crate) any: bool,
    /// Who has moved.
    pub(crate) clients: HashSet<ClientId>,
}

/// The clients that are connected somewhere. Shared by all who look up.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    map: RwLock<Map>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Map {
    clients: HashMap<ClientId, Session>,
    /// How many clients each gateway has; the names are shared by its sessions.
    gateways: HashMap<Arc<str>, usize>,
    /// Gateways that are to hear soon how far we are.
    waiting: HashSet<Arc<str>>,
    revision: u64,
    /// The clients whose keys have changed since [`Sessions::take_moves`]. No more than there are clients, and it is
    /// taken twice a second.
    moved: HashSet<ClientId>,
    /// The map was replaced since then.
    replaced: bool,
}

impl Sessions {
    /// Follows the bucket until `end`, and returns once all that it holds now is known, or when the service is
    /// asked to stop.
    pub(crate) async fn start(context: &Context, end: CancellationToken) -> anyhow::Result<Arc<Self>> {
        let sessions = Arc::new(Self::default());
        let (ready, mut is_ready) = watch::channel(false);
        let (task, bus, nats) = (sessions.clone(), context.bus.clone(), context.nats.clone());
        // Without it notices would go astray unnoticed: its panic stops the service.
        context.tasks.spawn_essential("sessions", async move {
            end.run_until_cancelled(task.read(&bus, &nats, &ready)).await;
            Ok(())
        });
        tokio::select! {
            result = is_ready.wait_for(|ready| *ready) => {
                result.context("the reader of SESSIONS has ended")?;
            }
            () = context.stopping.cancelled() => {}
        }
        Ok(sessions)
    }

    /// Where these clients are connected, those that are; read at one moment.
    pub(crate) fn look_up<T: Copy>(
        &self,
        clients: impl Iterator<Item = (ClientId, T)>,
    ) -> Vec<(ClientId, T, Session)> {
        let map = self.map.read();
        clients
            .filter_map(|(client_id, value)| {
                let session = map.clients.get(&client_id)?;
                Some((client_id, value, session.clone()))
            })
            .collect()
    }

    /// Where a client is connected.
    pub(crate) fn get(&self, client_id: ClientId) -> Option<Session> {
        self.map.read().clients.get(&client_id).cloned()
    }

    /// A connection takes events directly from now on. One that is not the client's is forgotten.
    pub(crate) fn grant(&self, client_id: ClientId, connection: u64, grant: u32) {
        let mut map = self.map.write();
        if let Some(session) = map.clients.get_mut(&client_id)
            && session.connection == connection
        {
            session.grant = Some(grant);
        }
    }

    /// Whatever connection a client has takes nothing directly any more.
    pub(crate) fn revoke(&self, client_id: ClientId) {
        if let Some(session) = self.map.write().clients.get_mut(&client_id) {
            session.grant = None;
        }
    }

    /// Who has moved since this was called last, read at one moment with the revision.
    pub(crate) fn take_moves(&self) -> Moves {
        let mut map = self.map.write();
        Moves {
            revision: map.revision,
            any: std::mem::take(&mut map.replaced),
            clients: std::mem::take(&mut map.moved),
        }
    }

    /// Up to which revision the map is right.
    pub(crate) fn revision(&self) -> u64 {
        self.map.read().revision
    }

    /// Every gateway that has sessions.
    pub(crate) fn gateways(&self) -> Vec<Arc<str>> {
        self.map.read().gateways.keys().cloned().collect()
    }

    /// Ends when gateways are to hear how far we are; [`Self::take_waiting`] says which.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The gateways whose sessions have changed since the last call.
    pub(crate) fn take_waiting(&self) -> HashSet<Arc<str>> {
        std::mem::take(&mut self.map.write().waiting)
    }

    async fn read(&self, bus: &Bus, nats: &NatsConnection, ready: &watch::Sender<bool>) {
        loop {
            match self.follow(bus, nats, ready).await {
                Ok(reason) => tracing::debug!(reason, "reading the sessions anew"),
                Err(error) => {
                    tracing::warn!("sessions cannot be read: {error:#}; trying again");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Reads everything, then what changes, until it is better to begin again; says why.
    async fn follow(
        &self,
        bus: &Bus,
        nats: &NatsConnection,
        ready: &watch::Sender<bool>,
    ) -> anyhow::Result<&'static str> {
        let mut connection = nats.state();
        let before = *connection.borrow_and_update();
        // The consumer may live on a replica that is behind, and be through with what that one has: only when it has
        // delivered this has it seen all that the revision promises.
        let end = bus.barrier(&format!("KV_{SESSIONS}"), TIMEOUT).await?;
        let mut messages = messages(bus).await?;
        let mut fresh = Some(Map::default());
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        let (mut seen, mut expected) = (0, 0);
        loop {
            tokio::select! {
                message = messages.next() => {
                    let message = message.context("the consumer ended")??;
                    let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
                    seen = info.stream_sequence;
                    let change = Change::of(&message);
                    match &mut fresh {
                        Some(map) => {
                            map.apply(change, seen);
                            if seen >= end {
                                self.replace(fresh.take().expect("it is there"), ready);
                            }
                        }
                        None => {
                            if self.map.write().apply(change, seen) {
                                self.changed.notify_one();
                            }
                        }
                    }
                }
                _ = checks.tick() => {
                    if seen < expected && self.revision() < expected {
                        return Ok("the consumer is silent");
                    }
                    expected = last_revision(bus).await?;
                    if fresh.is_none() && expected < self.revision() {
                        return Ok("the bucket was made anew");
                    }
                }
                changed = connection.changed() => {
                    changed.context("the connection is gone")?;
                    let now = *connection.borrow_and_update();
                    if now.connects != before.connects {
                        return Ok("NATS was reconnected");
                    }
                }
            }
        }
    }

    fn replace(&self, fresh: Map, ready: &watch::Sender<bool>) {
        let count = fresh.clients.len();
        {
            let mut map = self.map.write();
            *map = fresh;
            map.moved.clear();
            map.replaced = true;
            map.waiting = map.gateways.keys().cloned().collect();
        }
        self.changed.notify_one();
        ready.send_replace(true);
        tracing::debug!(count, "sessions are known");
    }
}

impl Map {
    /// Whether a gateway waits to hear of it.
    fn apply(&mut self, change: Option<Change>, revision: u64) -> bool {
        self.revision = self.revision.max(revision);
        match change {
            Some(Change::Connected(client_id, key)) => {
                let gateway = self.name(&key.gateway);
                *self.gateways.entry(gateway.clone()).or_default() += 1;
                self.moved.insert(client_id);
                let session = Session {
                    gateway: gateway.clone(),
                    connection: key.connection,
                    revision,
                    grant: None,
                };
                if let Some(old) = self.clients.insert(client_id, session) {
                    self.leave(&old.gateway);
                }
                self.waiting.insert(gateway);
                true
            }
            Some(Change::Gone(client_id)) => {
                self.moved.insert(client_id);
                if let Some(old) = self.clients.remove(&client_id) {
                    self.leave(&old.gateway);
                }
                false
            }
            None => false,
        }
    }

    fn name(&self, gateway: &str) -> Arc<str> {
        match self.gateways.get_key_value(gateway) {
            Some((name, _)) => name.clone(),
            None => gateway.into(),
        }
    }

    fn leave(&mut self, gateway: &Arc<str>) {
        if let Some(count) = self.gateways.get_mut(gateway) {
            *count -= 1;
            if *count == 0 {
                self.gateways.remove(gateway);
            }
        }
    }
}

/// What a message of the bucket says.
#[derive(Debug)]
enum Change {
    Connected(ClientId, SessionKey),
    Gone(ClientId),
}

impl Change {
    /// None for what no gateway wrote.
    fn of(message: &async_nats::Message) -> Option<Self> {
        let client_id: ClientId = message.subject.rsplit('.').next()?.parse().ok()?;
        // A mark of a deletion has an empty body, whoever made it.
        if message.payload.is_empty() {
            return Some(Self::Gone(client_id));
        }
        let Some(key) = SessionKey::decode(&message.payload) else {
            tracing::warn!(client.id = %client_id, "a key of SESSIONS cannot be read");
            return Some(Self::Gone(client_id));
        };
        Some(Self::Connected(client_id, key))
    }
}

/// The bucket's last revision, from the leader.
async fn last_revision(bus: &Bus) -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Info {
        state: State,
    }
    #[derive(Deserialize)]
    struct State {
        last_seq: u64,
    }
    let info: Info = bus
        .api(
            &format!("STREAM.INFO.KV_{SESSIONS}"),
            &serde_json::json!({}),
            TIMEOUT,
        )
        .await
        .with_context(|| format!("cannot ask the bucket {SESSIONS}"))?;
    Ok(info.state.last_seq)
}

/// The last message of each key and then all that come.
async fn messages(bus: &Bus) -> anyhow::Result<push::Ordered> {
    let stream = bus
        .jetstream()
        .get_stream_no_info(format!("KV_{SESSIONS}"))
        .await?;
    let config = push::OrderedConfig {
        deliver_subject: bus.client().new_inbox(),
        description: Some("a fan-out worker's place in the sessions".to_owned()),
        filter_subject: format!("$KV.{SESSIONS}.>"),
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..push::OrderedConfig::default()
    };
    let consumer = tokio::time::timeout(TIMEOUT, stream.create_consumer(config))
        .await
        .context("no answer to the creation of a consumer")??;
    Ok(consumer.messages().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_protocol::{Timestamp, UserId};
    use uuid::Uuid;

    fn connected(client: u128, gateway: &str, connection: u64) -> Change {
        let key = SessionKey {
            gateway: gateway.to_owned(),
            connection,
            user_id: UserId::new("alice").expect("a user id"),
            since: Timestamp(0),
        };
        Change::Connected(ClientId(Uuid::from_u128(client)), key)
    }

    #[test]
    fn a_grant_is_that_of_a_connection_and_ends_with_its_key() {
        let sessions = Sessions::default();
        let client = ClientId(Uuid::from_u128(1));
        let apply = |change, revision| sessions.map.write().apply(change, revision);
        let granted = || sessions.get(client).and_then(|session| session.grant);
        apply(Some(connected(1, "a", 10)), 5);
        sessions.grant(client, 9, 3);
        assert_eq!(granted(), None);
        sessions.grant(client, 10, 3);
        assert_eq!(granted(), Some(3));
        sessions.revoke(client);
        assert_eq!(granted(), None);
        sessions.grant(client, 10, 4);
        apply(Some(connected(1, "a", 11)), 6);
        assert_eq!(granted(), None);
        let moves = sessions.take_moves();
        assert_eq!(
            (moves.revision, moves.any, moves.clients),
            (6, false, HashSet::from_iter([client]))
        );
        apply(Some(Change::Gone(client)), 7);
        assert_eq!(sessions.take_moves().clients, HashSet::from_iter([client]));
        assert!(sessions.take_moves().clients.is_empty());
    }

    #[test]
    fn the_map_is_what_the_bucket_holds() {
        let sessions = Sessions::default();
        let apply = |change, revision| sessions.map.write().apply(change, revision);
        let found = |client| {
            let clients = [(ClientId(Uuid::from_u128(client)), ())];
            sessions
                .look_up(clients.into_iter())
                .pop()
                .map(|(_, (), session)| (session.gateway.to_string(), session.connection))
        };
        assert!(apply(Some(connected(1, "a", 10)), 5));
        assert!(apply(Some(connected(2, "b", 20)), 6));
        assert_eq!(found(1), Some(("a".to_owned(), 10)));
        assert!(apply(Some(connected(1, "b", 11)), 7));
        assert_eq!(found(1), Some(("b".to_owned(), 11)));
        assert_eq!(sessions.gateways(), ["b".into()]);
        assert!(!apply(Some(Change::Gone(ClientId(Uuid::from_u128(2)))), 8));
        assert_eq!((found(2), sessions.revision()), (None, 8));
        assert_eq!(
            sessions.take_waiting(),
            HashSet::from_iter(["a".into(), "b".into()])
        );
        assert!(!apply(None, 9), "what cannot be read counts as applied");
        assert_eq!(sessions.revision(), 9);
    }
}
