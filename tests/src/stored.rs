//! What JetStream holds, asked of JetStream: no code of ours stands between.

use std::time::Duration;

use async_nats::jetstream::{self, stream::Info};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};
use tidings_nats::{FIRST, Inbox, InboxEntry, Topology, inbox_stream, inbox_subject};
use tidings_protocol::{ClientId, UserId};
use tokio::time::Instant;

use crate::eventually::eventually;
use crate::history::StoredEntry;
use crate::system::System;
use crate::token::Identity;

/// Entries of one inbox that are told as left: the first few tell why.
const LEFT_MAX: usize = 20;
/// Deleting takes milliseconds; a gateway that lost NATS for a while tries again every second.
const DELETED_WITHIN: Duration = Duration::from_secs(15);

/// An eye on JetStream.
#[derive(Clone, Debug)]
pub struct Stored {
    jetstream: jetstream::Context,
    topology: Topology,
}

impl Stored {
    /// Of a system.
    pub async fn of(system: &System) -> Self {
        Self::at(system.nats().await)
    }

    /// Through a connection with an operator's rights.
    pub fn at(nats: async_nats::Client) -> Self {
        Self {
            jetstream: jetstream::new(nats),
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

    /// What the inboxes of these users hold now, marks aside; at most [`LEFT_MAX`] of each inbox.
    pub async fn held(&self, users: &[UserId]) -> Vec<StoredEntry> {
        let mut held = Vec::new();
        for user_id in users {
            held.extend(self.held_of(user_id).await);
        }
        held
    }

    /// What the inboxes of these users hold in the end, as [`Self::held`] tells it. Waits until the inboxes of `clients` are empty, since what was confirmed is deleted in the background, but at most [`DELETED_WITHIN`].
    pub async fn left(&self, users: &[UserId], clients: &[Identity]) -> Vec<StoredEntry> {
        let deadline = Instant::now() + DELETED_WITHIN;
        loop {
            let left = self.held(users).await;
            let unfinished = left.iter().any(|entry| {
                clients
                    .iter()
                    .any(|client| Some(client.client_id) == entry.client_id)
            });
            if !unfinished || Instant::now() >= deadline {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn held_of(&self, user_id: &UserId) -> Vec<StoredEntry> {
        let stream = inbox_stream(self.topology.shard(user_id));
        let of_first = inbox_subject(&self.topology, user_id, Inbox::First);
        let inboxes = of_first.strip_suffix(FIRST).expect("that is how it ends");
        let filter = json!({ "subjects_filter": format!("{inboxes}*") });
        let info: Value = self
            .jetstream
            .request(format!("STREAM.INFO.{stream}"), &filter)
            .await
            .expect("the stream exists");
        let subjects = info["state"]["subjects"].as_object().cloned().unwrap_or_default();
        let mut held = Vec::new();
        for subject in subjects.keys() {
            let client_id = subject.strip_prefix(inboxes).and_then(|token| token.parse().ok());
            let mut after = 0;
            for _ in 0..LEFT_MAX {
                let Some((sequence, entry)) = self.next(&stream, subject, after).await else {
                    break;
                };
                held.push(StoredEntry {
                    user_id: user_id.clone(),
                    client_id,
                    sequence,
                    chat_id: entry.chat_id(),
                    seq: entry.seq(),
                });
                after = sequence;
            }
        }
        held
    }

    /// The first entry of a subject behind a sequence.
    async fn next(&self, stream: &str, subject: &str, after: u64) -> Option<(u64, InboxEntry)> {
        let answer: Value = self
            .jetstream
            .request(
                format!("STREAM.MSG.GET.{stream}"),
                &json!({ "seq": after + 1, "next_by_subj": subject }),
            )
            .await
            .expect("JetStream answers");
        let message = answer.get("message")?;
        let payload = message["data"].as_str().expect("an entry has a payload");
        let payload = BASE64.decode(payload).expect("JetStream writes base64");
        let entry = InboxEntry::decode(&payload).expect("an inbox holds entries");
        Some((
            message["seq"].as_u64().expect("a stored message has a sequence"),
            entry,
        ))
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
