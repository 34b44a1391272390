//! Large bodies stay while an entry refers to them, and go with the last.

use bytes::Bytes;
use tidings_nats::{
    BODIES, BodyEntries, Entry, Event, Inbox, Message, Partition, Reference, Shard, body_entries_subject,
    body_headers, body_subject, event_headers, inbox_stream,
};
use tidings_protocol::{ClientId, MessageId, Timestamp, UserId};
use uuid::Uuid;

use crate::support::{System, TIMEOUT, chat, in_seconds, until, user};

/// A body and who refers to it, as a fan-out worker stores them.
struct Large {
    seq: u64,
    /// In BODIES.
    body: u64,
    /// In BODIES, once it is there.
    list: Option<u64>,
    entries: Vec<(Shard, u64)>,
}

/// All chats are in it.
const PARTITION: Partition = Partition(0);

impl Large {
    /// One for each of these inboxes, but no list.
    async fn store(system: &System, seq: u64, inboxes: &[(UserId, Inbox)], sent_at: Timestamp) -> Self {
        Self::store_as(system, seq, inboxes, sent_at, |entry| entry).await
    }

    /// The same, of a body that is written in another way.
    async fn store_as(
        system: &System,
        seq: u64,
        inboxes: &[(UserId, Inbox)],
        sent_at: Timestamp,
        write: impl FnOnce(Bytes) -> Bytes,
    ) -> Self {
        let event = Event::Message(Message {
            chat_id: chat(1),
            message_id: MessageId(Uuid::new_v4()),
            user_id: user("sender"),
            client_id: ClientId(Uuid::new_v4()),
            sent_at,
            message: "x".repeat(5_000),
            attachments: vec![],
        });
        let entry = Entry { seq, event };
        let bus = &system.context.bus;
        let headers = body_headers(&entry.event);
        let stored = bus
            .publish(body_subject(PARTITION), headers, write(entry.encode()), TIMEOUT)
            .await;
        let body = stored.expect("BODIES takes it").sequence;
        let reference = Reference::new(seq, &entry.event, body, entry.encode().len());
        let mut entries = Vec::new();
        for (user_id, inbox) in inboxes {
            let headers = event_headers(&entry.event, &Uuid::new_v4().to_string());
            let subject = system.subject(user_id, *inbox);
            let stored = bus.publish(subject, headers, reference.encode(), TIMEOUT).await;
            let sequence = stored.expect("the inbox takes it").sequence;
            entries.push((system.shard(user_id), sequence));
        }
        entries.sort_unstable();
        Self {
            seq,
            body,
            list: None,
            entries,
        }
    }

    async fn list(mut self, system: &System) -> Self {
        let list = BodyEntries {
            seq: self.seq,
            body: self.body,
            entries: self.entries.clone(),
        };
        let subject = body_entries_subject(PARTITION);
        let headers = async_nats::HeaderMap::new();
        let bus = &system.context.bus;
        let stored = bus.publish(subject, headers, list.encode(), TIMEOUT).await;
        self.list = Some(stored.expect("BODIES takes it").sequence);
        self
    }

    /// The client confirms one of them.
    async fn confirm(&self, system: &System, entry: usize) {
        let (shard, sequence) = self.entries[entry];
        let deleted = system
            .context
            .bus
            .delete_message(&inbox_stream(shard), sequence, TIMEOUT)
            .await;
        deleted.expect("the stream answers");
    }

    /// How many of body and list are there.
    async fn held(&self, system: &System) -> usize {
        let mut held = 0;
        for sequence in [Some(self.body), self.list].into_iter().flatten() {
            let found = system.context.bus.message_at(BODIES, sequence, TIMEOUT).await;
            held += usize::from(found.expect("BODIES answers").is_some());
        }
        held
    }

    async fn until_gone(&self, system: &System) {
        until("the body and its list are gone", async || {
            (self.held(system).await == 0).then_some(())
        })
        .await;
    }
}

/// Four clients of two users, and somebody's `first`.
fn inboxes() -> Vec<(UserId, Inbox)> {
    let mut inboxes = Vec::new();
    for name in ["alice", "bob", "alice", "bob"] {
        inboxes.push((user(name), Inbox::Client(ClientId(Uuid::new_v4()))));
    }
    inboxes.push((user("carol"), Inbox::First));
    inboxes
}

#[tokio::test]
async fn a_body_goes_with_the_last_entry_and_not_before() {
    let system = System::start().await;
    let now = in_seconds(0);
    let waited_for = Large::store(&system, 1, &inboxes(), now)
        .await
        .list(&system)
        .await;
    let in_work = Large::store(&system, 2, &inboxes(), now).await;
    for entry in 0..5 {
        in_work.confirm(&system, entry).await;
    }
    for entry in [0, 1, 3, 4] {
        waited_for.confirm(&system, entry).await;
    }
    let confirmed = Large::store(&system, 3, &inboxes(), now)
        .await
        .list(&system)
        .await;
    let full = Large::store(&system, 4, &[], now).await.list(&system).await;
    for entry in 0..5 {
        confirmed.confirm(&system, entry).await;
    }
    let worker = system.worker(&[]).await;
    // They are looked at in the order of their lists.
    confirmed.until_gone(&system).await;
    full.until_gone(&system).await;
    assert_eq!(waited_for.held(&system).await, 2);
    assert_eq!(in_work.held(&system).await, 1, "it has no list, and stays");
    waited_for.confirm(&system, 2).await;
    waited_for.until_gone(&system).await;
    assert_eq!(in_work.held(&system).await, 1);
    worker.stop().await;
}

#[tokio::test]
async fn what_a_newer_build_wrote_is_there() {
    let system = System::start().await;
    let now = in_seconds(0);
    let newer = |entry: Bytes| {
        let mut entry = entry.to_vec();
        entry[0] += 1;
        Bytes::from(entry)
    };
    let unread = Large::store_as(&system, 1, &[], now, newer).await;
    let unread = unread.list(&system).await;
    let worker = system.worker(&[]).await;
    // The second one is looked at seconds after the first.
    for seq in [2, 3] {
        let read = Large::store(&system, seq, &[], now).await.list(&system).await;
        read.until_gone(&system).await;
    }
    assert_eq!(unread.held(&system).await, 2, "a newer worker removes it");
    worker.stop().await;
}

#[tokio::test]
async fn another_worker_goes_on_where_one_died() {
    let system = System::start().await;
    let mut bodies = Vec::new();
    for seq in 1..=300 {
        let large = Large::store(&system, seq, &inboxes(), in_seconds(0)).await;
        let large = large.list(&system).await;
        for entry in 0..5 {
            // Of each tenth one stays.
            if seq % 10 != 0 || entry != 3 {
                large.confirm(&system, entry).await;
            }
        }
        bodies.push(large);
    }
    let held = async || {
        let bounds = system.context.bus.stream_bounds(BODIES, TIMEOUT).await;
        bounds.expect("BODIES answers").messages
    };
    let worker = system.worker(&[]).await;
    until("it is in the middle", async || (held().await < 600).then_some(())).await;
    worker.kill();
    let other = system.worker(&[]).await;
    until("all others are gone", async || (held().await <= 60).then_some(())).await;
    for large in &bodies {
        let expected = if large.seq % 10 == 0 { 2 } else { 0 };
        assert_eq!(large.held(&system).await, expected, "{}", large.seq);
    }
    other.stop().await;
}

#[tokio::test]
async fn what_expires_takes_its_body_along() {
    let system = System::start().await;
    let (alice, phone) = (user("alice"), Inbox::Client(ClientId(Uuid::new_v4())));
    let inboxes = [(alice.clone(), phone), (user("bob"), Inbox::First)];
    let large = Large::store(&system, 7, &inboxes, Timestamp(5)).await;
    let large = large.list(&system).await;
    let worker = system.worker(&["--retention", "1s"]).await;
    large.until_gone(&system).await;
    let marks = system.marks(&alice, phone).await;
    assert_eq!((marks[0].missed, &marks[0].chats), (Some(1), &vec![chat(1)]));
    assert_eq!((marks[0].since, marks[0].until), (Timestamp(5), Timestamp(5)));
    worker.stop().await;
}
