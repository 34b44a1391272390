//! Large bodies are stored once, and whoever works on an event says who refers to its body, or does not know it and says nothing.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tidings_nats::{
    BODIES, BODY_ENTRIES, BodyEntries, Entry, HEADER_KIND, Inbox, InboxEntry, Partition, Reference, Shard,
    body_subject, inbox_stream,
};
use tidings_protocol::ChatId;

use crate::support::{Person, System, TIMEOUT, eventually, texts};

/// A chat of alice and three who are away.
struct Scene {
    system: System,
    alice: Person,
    others: Vec<Person>,
    chat_id: ChatId,
}

/// What BODIES holds of an event.
struct Held {
    /// Sequences and whole entries.
    bodies: Vec<(u64, Entry)>,
    lists: Vec<BodyEntries>,
}

impl Scene {
    async fn start() -> Self {
        let system = System::start(2).await;
        let alice = system.register("alice").await;
        let mut others = Vec::new();
        for name in ["bob", "carol", "dave"] {
            others.push(system.register(name).await);
        }
        let users: Vec<_> = std::iter::once(&alice)
            .chain(&others)
            .map(|person| &person.user_id)
            .collect();
        let (chat_id, _) = system.chat(&users).await;
        Self {
            system,
            alice,
            others,
            chat_id,
        }
    }

    async fn say(&self, text: &str) -> u64 {
        self.system.send(self.chat_id, &self.alice, text).await
    }

    fn partition(&self) -> Partition {
        self.system.context.topology.partition(self.chat_id)
    }

    /// How many bytes a stream may have.
    async fn bound(&self, stream: &str, bytes: u64) {
        let change = |config: &mut Value| config["max_bytes"] = json!(bytes);
        self.system.update_stream(stream, change).await;
    }

    /// Fills BODIES with so many bytes of something else.
    async fn fill(&self, bytes: usize) {
        let (subject, payload) = ("body.filler".to_owned(), Bytes::from(vec![0; bytes]));
        let bus = &self.system.context.bus;
        let stored = bus.publish(subject, HeaderMap::new(), payload, TIMEOUT).await;
        stored.expect("BODIES takes it");
    }

    /// Whether everybody's last entry is whole.
    async fn is_whole(&self) -> bool {
        let mut whole = true;
        for person in &self.others {
            whole &= matches!(self.last(person).await.2, InboxEntry::Whole(_));
        }
        whole
    }

    /// The last entry of somebody's inbox, and where it is.
    async fn last(&self, person: &Person) -> (Shard, u64, InboxEntry) {
        let inbox = Inbox::Client(person.client_id);
        let mut entries = self.system.stored_inbox(&person.user_id, inbox).await;
        let (sequence, entry) = entries.pop().expect("the inbox holds something");
        (
            self.system.context.topology.shard(&person.user_id),
            sequence,
            entry,
        )
    }

    async fn held(&self, event: u64) -> Held {
        let bus = &self.system.context.bus;
        let subject = body_subject(self.partition());
        let bodies = bus.leader_all(BODIES, &subject, 1, 100, TIMEOUT).await;
        let bodies = bodies.expect("BODIES answers").into_iter();
        let lists = bus.leader_all(BODIES, BODY_ENTRIES, 1, 100, TIMEOUT).await;
        let lists = lists.expect("BODIES answers").into_iter();
        let lists = lists.map(|list| BodyEntries::decode(&list.payload).expect("a worker wrote it"));
        Held {
            bodies: bodies
                .map(|body| {
                    (
                        body.sequence,
                        Entry::decode(&body.payload).expect("a worker wrote it"),
                    )
                })
                .filter(|(_, entry)| entry.seq == event)
                .collect(),
            lists: lists.filter(|list| list.seq == event).collect(),
        }
    }

    /// Waits until all have so many entries of events; says the references that came last.
    async fn references(&self, entries: usize) -> Vec<(Shard, u64, Reference)> {
        let mut references = Vec::new();
        for person in &self.others {
            self.system.wait_for_entries(person, entries).await;
            let (shard, sequence, entry) = self.last(person).await;
            let InboxEntry::Reference(reference) = entry else {
                panic!("{} has all of it", person.user_id);
            };
            references.push((shard, sequence, reference));
        }
        references
    }

    /// The texts that everybody has.
    async fn texts(&self) -> Vec<String> {
        let mut all = Vec::new();
        for person in &self.others {
            let inbox = Inbox::Client(person.client_id);
            let entries = self.system.inbox(&person.user_id, inbox).await;
            all.push(texts(&entries).remove(&self.chat_id).unwrap_or_default());
        }
        assert!(
            all.windows(2).all(|two| two[0] == two[1]),
            "not all have the same"
        );
        all.remove(0)
    }
}

fn large(text: &str) -> String {
    text.repeat(10_000)
}

fn listed(references: &[(Shard, u64, Reference)]) -> Vec<(Shard, u64)> {
    let mut entries: Vec<_> = references
        .iter()
        .map(|(shard, sequence, _)| (*shard, *sequence))
        .collect();
    entries.sort_unstable();
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_is_stored_once_and_all_who_refer_to_it_are_listed() {
    let scene = Scene::start().await;
    let worker = scene.system.worker().await;
    scene.say("small").await;
    let event = scene.say(&large("x")).await;
    let references = scene.references(3).await;
    scene.system.wait_until_fanned_out().await;
    let held = scene.held(event).await;
    let [(body, entry)] = &held.bodies[..] else {
        panic!("{} bodies", held.bodies.len());
    };
    assert_eq!(entry.seq, event);
    for (_, _, reference) in &references {
        let expected = Reference::new(event, &entry.event, *body, entry.encode().len());
        assert_eq!(*reference, expected);
    }
    let expected = BodyEntries {
        seq: event,
        body: *body,
        entries: listed(&references),
    };
    assert_eq!(held.lists, [expected]);
    let kind = scene
        .system
        .context
        .bus
        .next_headed(BODIES, &body_subject(scene.partition()), 1, TIMEOUT)
        .await;
    let kind = kind.expect("BODIES answers").expect("it is there");
    assert_eq!(kind.header(HEADER_KIND), Some("message"));
    assert_eq!(scene.texts().await, ["small".to_owned(), large("x")]);
    // The small ones are whole: two messages of BODIES are all.
    assert_eq!(scene.system.stored(BODIES).await, 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_one_inbox_and_where_it_is_off_it_is_stored_whole() {
    let scene = Scene::start().await;
    let worker = scene.system.worker().await;
    let (two, _) = scene
        .system
        .chat(&[&scene.alice.user_id, &scene.others[0].user_id])
        .await;
    scene.system.send(two, &scene.alice, &large("x")).await;
    scene.system.wait_for_entries(&scene.others[0], 3).await;
    assert!(matches!(
        scene.last(&scene.others[0]).await.2,
        InboxEntry::Whole(_)
    ));
    scene.system.wait_until_fanned_out().await;
    worker.stop().await;
    let worker = scene.system.worker_with(&["--large-body-bytes", "off"]).await;
    scene.say(&large("y")).await;
    scene.system.wait_for_entries(&scene.others[1], 2).await;
    scene.system.wait_until_fanned_out().await;
    for person in &scene.others {
        assert!(matches!(scene.last(person).await.2, InboxEntry::Whole(_)));
    }
    assert_eq!(scene.system.stored(BODIES).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_dies_behind_the_body() {
    let scene = Scene::start().await;
    let worker = scene.system.worker_with(&["--fault", "stall-after-body:"]).await;
    let event = scene.say(&large("x")).await;
    while scene.held(event).await.bodies.is_empty() {
        tokio::task::yield_now().await;
    }
    worker.kill();
    let successor = scene.system.worker().await;
    let references = scene.references(2).await;
    scene.system.wait_until_fanned_out().await;
    let held = scene.held(event).await;
    // Nobody knows who might refer to the first one: it has no list, and stays.
    let bodies: Vec<u64> = held.bodies.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(bodies.len(), 2);
    assert_eq!(held.lists.len(), 1);
    assert_eq!(held.lists[0].body, bodies[1]);
    assert_eq!(held.lists[0].entries, listed(&references));
    assert!(references.iter().all(|(_, _, to)| to.to.body == bodies[1]));
    successor.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_dies_before_the_list() {
    let scene = Scene::start().await;
    let worker = scene.system.worker_with(&["--fault", "stall-before-list:"]).await;
    let event = scene.say(&large("x")).await;
    let before = scene.references(2).await;
    worker.kill();
    let successor = scene.system.worker().await;
    scene.system.wait_until_fanned_out().await;
    // The streams know the entries again, which refer to the first body. That one has no list.
    let references = scene.references(2).await;
    assert_eq!(references, before);
    let held = scene.held(event).await;
    let bodies: Vec<u64> = held.bodies.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(bodies.len(), 2);
    assert!(references.iter().all(|(_, _, to)| to.to.body == bodies[0]));
    assert_eq!(held.lists.len(), 1);
    assert_eq!(held.lists[0].body, bodies[1]);
    assert_eq!(scene.texts().await, [large("x")]);
    successor.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_bodies_is_full_entries_are_whole() {
    let scene = Scene::start().await;
    scene.bound(BODIES, 5_000).await;
    let worker = scene.system.worker().await;
    scene.say(&large("x")).await;
    scene.system.wait_until_fanned_out().await;
    assert!(scene.is_whole().await);
    assert_eq!(scene.texts().await, [large("x")]);
    assert_eq!(scene.system.stored(BODIES).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_eighth_of_bodies_is_for_lists() {
    let scene = Scene::start().await;
    scene.bound(BODIES, 200_000).await;
    scene.fill(180_000).await;
    let worker = scene.system.worker().await;
    // It would fit.
    let event = scene.say(&large("x")).await;
    scene.system.wait_until_fanned_out().await;
    assert!(scene.is_whole().await);
    assert_eq!(scene.texts().await, [large("x")]);
    assert!(scene.held(event).await.bodies.is_empty());
    worker.stop().await;
}

/// Something large, of which BODIES takes the body and not the list any more.
async fn say_with_no_room_for_its_list(scene: &Scene) -> u64 {
    let dave = scene.system.context.topology.shard(&scene.others[2].user_id);
    let dave = inbox_stream(dave);
    scene.system.wait_until_fanned_out().await;
    // The work on it goes on until dave's stream takes something again.
    scene.bound(&dave, 1).await;
    let event = scene.say(&large("x")).await;
    eventually("the body is stored", async || {
        !scene.held(event).await.bodies.is_empty()
    })
    .await;
    scene.bound(BODIES, 1).await;
    scene.bound(&dave, 100_000_000).await;
    scene.system.wait_until_fanned_out().await;
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_for_which_there_is_no_room_is_stored_when_there_is() {
    let scene = Scene::start().await;
    let worker = scene.system.worker().await;
    scene.say("small").await;
    let event = say_with_no_room_for_its_list(&scene).await;
    assert!(scene.held(event).await.lists.is_empty());
    let references = scene.references(3).await;
    scene.bound(BODIES, 100_000_000).await;
    eventually("the list is stored", async || {
        !scene.held(event).await.lists.is_empty()
    })
    .await;
    let held = scene.held(event).await;
    assert_eq!(held.lists.len(), 1);
    assert_eq!(held.lists[0].entries, listed(&references));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_stores_the_lists_that_wait() {
    let scene = Scene::start().await;
    let worker = scene.system.worker().await;
    let event = say_with_no_room_for_its_list(&scene).await;
    scene.bound(BODIES, 100_000_000).await;
    worker.stop().await;
    assert_eq!(scene.held(event).await.lists.len(), 1);
}

/// What BODIES takes.
async fn take(scene: &Scene, subjects: &[&str]) {
    let change = |config: &mut Value| config["subjects"] = json!(subjects);
    scene.system.update_stream(BODIES, change).await;
}

/// Nobody is answered who stores something in BODIES, and this hears what it is.
async fn silence(scene: &Scene) -> async_nats::Subscriber {
    take(scene, &["nobody.stores.this"]).await;
    let client = scene.system.context.nats.client();
    let heard = client.subscribe("body.>").await.expect("NATS is connected");
    client.flush().await.expect("NATS is connected");
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_waits_for_a_silent_bodies_and_no_other() {
    let scene = Scene::start().await;
    let worker = scene.system.worker().await;
    let mut heard = silence(&scene).await;
    let said: Vec<String> = ["a", "b", "c", "d"].map(large).to_vec();
    for text in &said {
        scene.say(text).await;
    }
    scene.system.wait_until_fanned_out().await;
    assert!(scene.is_whole().await);
    assert_eq!(scene.texts().await, said);
    // What was published after all of them.
    let client = scene.system.context.nats.client();
    let end = client.publish("body.end", Bytes::new()).await;
    end.expect("NATS is connected");
    let mut asked = 0;
    while heard.next().await.expect("it goes on").subject.as_str() != "body.end" {
        asked += 1;
    }
    assert_eq!(asked, 1, "it was left alone after that");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_waits_for_no_body() {
    let scene = Scene::start().await;
    let drain_timeout = Duration::from_millis(200);
    let worker = scene.system.worker_draining_for(drain_timeout).await;
    let mut heard = silence(&scene).await;
    let event = scene.say(&large("x")).await;
    heard.next().await.expect("the body is on its way");
    worker.stop().await;
    // It has left it to another one.
    assert_eq!(scene.system.stored("CHATS").await, 1);
    drop(heard);
    take(&scene, &["body.*", "body.*.entries"]).await;
    let successor = scene.system.worker().await;
    scene.system.wait_until_fanned_out().await;
    assert_eq!(scene.texts().await, [large("x")]);
    assert_eq!(scene.held(event).await.lists.len(), 1);
    successor.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_large_chat_is_large_too() {
    let scene = Scene::start().await;
    let worker = scene.system.worker_with(&["--large-body-bytes", "1024"]).await;
    let mut users = vec![&scene.alice.user_id];
    users.extend(scene.others.iter().map(|person| &person.user_id));
    let strangers: Vec<_> = (0..90)
        .map(|number| format!("somebody-who-has-never-connected-{number}"))
        .map(|name| tidings_protocol::UserId::new(&name).expect("printable"))
        .collect();
    users.extend(&strangers);
    let (_, event) = scene.system.chat(&users).await;
    let references = scene.references(2).await;
    assert!(
        references
            .iter()
            .all(|(_, _, to)| to.seq == event && to.to.message.is_none())
    );
    scene.system.wait_until_fanned_out().await;
    let held = scene.held(event).await;
    // Those who have never connected have one each, and so has alice.
    assert_eq!(held.lists[0].entries.len(), 3 + 90 + 1);
    worker.stop().await;
}
