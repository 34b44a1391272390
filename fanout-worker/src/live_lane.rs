//! The worker's side of the live lane: what it tells gateways, numbered and in order.
//!
//! One lock holds together what must not be torn apart: looking up where clients are, taking the next number, and
//! handing the message to the connection. So a beacon that tells a revision of SESSIONS comes after every notice
//! that was addressed without it.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use tidings_nats::{Accepted, Beacon, Lane, LiveMessage, Notice, Recipient, Shard, live_subject};
use tidings_protocol::ClientId;
use tidings_service::TraceContext;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::horizon::Horizon;
use crate::sessions::Sessions;

/// See the module. Notices and beacons share one NATS connection, which keeps their order.
#[derive(Debug)]
pub(crate) struct LiveLane {
    client: async_nats::Client,
    worker: Uuid,
    sessions: Arc<Sessions>,
    horizon: Arc<Horizon>,
    /// The last number to each gateway. Never forgotten while the process lives: a number that came again would
    /// be taken for a copy.
    numbers: Mutex<HashMap<Arc<str>, u64>>,
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
            numbers: Mutex::default(),
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
        let mut numbers = self.numbers.lock().await;
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
            let subject = live_subject(&gateway);
            let number = numbers.entry(gateway).or_default();
            *number += 1;
            let notice = Notice {
                worker: self.worker,
                number: *number,
                lane: Some(lane),
                entry: entry.clone(),
                recipients,
            };
            self.send(subject, trace, LiveMessage::Notice(notice)).await;
        }
        true
    }

    /// Tells these gateways how far the worker is.
    pub(crate) async fn send_beacons(&self, gateways: impl Iterator<Item = Arc<str>>) {
        let numbers = self.numbers.lock().await;
        let sessions_revision = self.sessions.revision();
        let invalidations_sequence = self.horizon.sequence();
        for gateway in gateways {
            let beacon = Beacon {
                worker: self.worker,
                notices: numbers.get(&gateway).copied().unwrap_or_default(),
                sessions_revision,
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
