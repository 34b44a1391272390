//! What JetStream holds, asked of JetStream: no code of ours stands between.

use async_nats::jetstream::{self, stream::Info};
use serde_json::{Value, json};
use tidings_nats::{Inbox, Topology, inbox_stream, inbox_subject};
use tidings_protocol::{ClientId, UserId};

use crate::eventually::eventually;
use crate::system::System;

/// An eye on JetStream.
#[derive(Clone, Debug)]
pub struct Stored {
    jetstream: jetstream::Context,
    topology: Topology,
}

impl Stored {
    /// Of a system.
    pub async fn of(system: &System) -> Self {
        Self {
            jetstream: jetstream::new(system.nats().await),
            topology: Topology::default(),
        }
    }

    /// How many entries a subject of an inbox holds.
    pub async fn entries(&self, user_id: &UserId, inbox: Inbox) -> u64 {
        let stream = inbox_stream(self.topology.shard(user_id));
        let subject = inbox_subject(&self.topology, user_id, inbox);
        let info: Value = self
            .jetstream
            .request(
                format!("STREAM.INFO.{stream}"),
                &json!({ "subjects_filter": subject }),
            )
            .await
            .expect("the stream exists");
        info["state"]["subjects"][&subject].as_u64().unwrap_or(0)
    }

    /// Waits until a client's inbox holds so many entries.
    pub async fn until(&self, user_id: &UserId, client_id: ClientId, entries: u64) {
        eventually(&format!("{user_id}'s inbox holds {entries}"), async || {
            let stored = self.entries(user_id, Inbox::Client(client_id)).await;
            if stored == entries { Ok(()) } else { Err(stored) }
        })
        .await;
    }

    /// The durable of a client: (unprocessed, outstanding).
    pub async fn durable(&self, user_id: &UserId, client_id: ClientId) -> (u64, u64) {
        let stream = inbox_stream(self.topology.shard(user_id));
        let info: Value = self
            .jetstream
            .request(format!("CONSUMER.INFO.{stream}.{client_id}"), &json!({}))
            .await
            .expect("JetStream answers");
        let number = |name: &str| {
            info[name]
                .as_u64()
                .unwrap_or_else(|| panic!("no {name} in {info}"))
        };
        (number("num_pending"), number("num_ack_pending"))
    }

    /// A stream.
    pub async fn stream(&self, name: &str) -> Info {
        let stream = self.jetstream.get_stream(name).await;
        stream.expect("the stream exists").cached_info().clone()
    }
}
