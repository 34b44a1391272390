//! What is large is stored once for all who are away; each gets it whole, in its place, and it goes with the last.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_nats::{
    BODIES, BODY_ENTRIES, BodyEntries, Bus, CHATS, Entry, Event, Inbox, InboxEntry, StoredMessage,
    inbox_stream, inbox_subject,
};
use tidings_protocol::{ChatId, Codec, NewMessage, ServerFrame, UserId, WINDOW_BYTES_MAX};
use tidings_tests::{Device, ExtraGateway, Identity, Stored, System, SystemOptions, eventually};
use tokio::time::Instant;

/// A body that waits for somebody is looked at ever less often: after five seconds, then twice as long each time.
const GONE_WITHIN: Duration = Duration::from_mins(3);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Who looks into streams.
struct Eye {
    bus: Bus,
    stored: Stored,
}

impl Eye {
    async fn of(system: &System) -> Self {
        Self {
            bus: Bus::new(system.nats().await),
            stored: Stored::of(system).await,
        }
    }

    async fn all(&self, stream: &str, subject: &str) -> Vec<StoredMessage> {
        let found = self.bus.leader_all(stream, subject, 1, 1_000, TIMEOUT).await;
        found.expect("the stream answers")
    }

    /// Bodies of an event.
    async fn bodies(&self, seq: u64) -> Vec<(StoredMessage, Entry)> {
        let bodies = self.all(BODIES, "body.*").await.into_iter();
        let bodies = bodies.map(|body| {
            let entry = Entry::decode(&body.payload).expect("a body is an entry");
            (body, entry)
        });
        bodies.filter(|(_, entry)| entry.seq == seq).collect()
    }

    /// How many bodies of an event there are, and lists.
    async fn held(&self, seq: u64) -> (usize, usize) {
        let lists = self.all(BODIES, BODY_ENTRIES).await.into_iter();
        let lists = lists.map(|list| BodyEntries::decode(&list.payload).expect("a worker wrote it"));
        let lists = lists.filter(|list| list.seq == seq).count();
        (self.bodies(seq).await.len(), lists)
    }

    /// Whether anybody is given what lies in BODIES.
    async fn answers(&self, answers: bool) {
        let info = self
            .bus
            .api::<Value>("STREAM.INFO.BODIES", &json!({}), TIMEOUT)
            .await;
        let mut info = info.expect("the stream is there");
        info["config"]["allow_direct"] = json!(answers);
        let subject = "STREAM.UPDATE.BODIES";
        let updated = self.bus.api::<Value>(subject, &info["config"], TIMEOUT).await;
        updated.expect("the stream can be changed");
    }

    /// What an inbox holds, as it is stored.
    async fn inbox(&self, user_id: &UserId, inbox: Inbox) -> Vec<(usize, InboxEntry)> {
        let topology = tidings_nats::Topology::default();
        let stream = inbox_stream(topology.shard(user_id));
        let messages = self.all(&stream, &inbox_subject(&topology, user_id, inbox)).await;
        let read = |message: &StoredMessage| {
            let entry = InboxEntry::decode(&message.payload).expect("it is an entry");
            (message.payload.len(), entry)
        };
        messages.iter().map(read).collect()
    }

    async fn until_gone(&self, what: &str, mut left: impl AsyncFnMut() -> usize) {
        let began = Instant::now();
        while left().await > 0 {
            assert!(began.elapsed() < GONE_WITHIN, "{what} is there still");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What a gateway counts, over all labels.
async fn counted(gateway: &ExtraGateway, name: &str) -> u64 {
    tidings_service::start::install_crypto_provider();
    let answer = reqwest::get(format!("{}/metrics", gateway.admin)).await;
    let text = answer.expect("it answers").text().await.expect("text");
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let numbers = lines
        .filter(|rest| rest.starts_with([' ', '{']))
        .filter_map(|rest| rest.rsplit(' ').next());
    let numbers = numbers.map(|number| number.parse::<f64>().expect("a number"));
    numbers.sum::<f64>() as u64
}

/// A text of so many bytes that no other is the beginning of.
fn text(number: usize, bytes: usize) -> String {
    format!("{number:04}").repeat(bytes / 4)
}

/// A group of alice and of clients who have gone.
async fn scene(system: &System, absent: usize) -> (Device, Vec<Identity>, ChatId) {
    let mut others = Vec::new();
    for _ in 0..absent {
        let identity = Identity::fresh("away");
        Device::of(system, &identity).await.close().await;
        others.push(identity);
    }
    let mut alice = Device::fresh(system, "alice").await;
    let users: Vec<UserId> = others.iter().map(|other| other.user_id.clone()).collect();
    let chat_id = alice.create_group(&users).await;
    (alice, others, chat_id)
}

/// Hears messages and confirms each.
async fn hear(device: &mut Device, count: usize) -> Vec<NewMessage> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let (delivery, message) = next(device).await;
        messages.extend(message);
        device.confirm_through(delivery).await;
    }
    messages
}

async fn next(device: &mut Device) -> (u64, Option<NewMessage>) {
    let wanted = |heard: &ServerFrame| match heard {
        ServerFrame::NewMessage(message) => Some((message.delivery, Some(message.clone()))),
        ServerFrame::ChatUpdate(update) => Some((update.delivery, None)),
        _ => None,
    };
    device.expect("a delivery", wanted).await
}

fn texts(messages: &[NewMessage]) -> Vec<&str> {
    messages.iter().map(|message| message.message.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_stored_once_and_goes_with_the_last_who_confirms() {
    let system = System::shared().await;
    let eye = Eye::of(system).await;
    let (mut alice, mut others, _) = scene(system, 4).await;
    // One has never connected, and inherits.
    let heir = Identity::fresh("heir");
    let mut users: Vec<UserId> = others.iter().map(|other| other.user_id.clone()).collect();
    users.push(heir.user_id.clone());
    let chat_id = alice.create_group(&users).await;
    let sizes = [8, 60_000, 12, 5_000, 65_536, 16];
    let said: Vec<String> = (0..)
        .zip(sizes)
        .map(|(number, bytes)| text(number, bytes))
        .collect();
    let mut seqs = Vec::new();
    for text in &said {
        let reply = alice.say(chat_id, text).await;
        seqs.push(reply.seq.expect("it is accepted"));
    }
    for other in &others {
        // Both groups' beginnings, and these.
        eye.stored.until(&other.user_id, other.client_id, 2 + 6).await;
        let entries = eye.inbox(&other.user_id, Inbox::Client(other.client_id)).await;
        for (bytes, entry) in &entries[2..] {
            let said = &said[seqs
                .iter()
                .position(|seq| *seq == entry.seq())
                .expect("one of these")];
            assert_eq!(matches!(entry, InboxEntry::Reference(_)), said.len() >= 4_096);
            assert!(*bytes < 300, "{bytes} bytes are stored");
        }
    }
    let large: Vec<u64> = seqs
        .iter()
        .zip(sizes)
        .filter(|(_, bytes)| *bytes >= 4_096)
        .map(|(seq, _)| *seq)
        .collect();
    for (seq, bytes) in large.iter().zip([60_000, 5_000, 65_536]) {
        let bodies = eye.bodies(*seq).await;
        assert_eq!(bodies.len(), 1);
        let (body, entry) = &bodies[0];
        assert!(body.payload.len() >= bytes);
        assert!(matches!(&entry.event, Event::Message(message) if message.message.len() == bytes));
    }

    others.push(heir);
    let last = others.remove(1);
    for (gateway, other) in others.iter().enumerate() {
        let mut device = Device::welcomed(system, gateway % 2, other, Codec::Json).await;
        let messages = hear(&mut device, 6).await;
        assert_eq!(texts(&messages), said);
        device.until_caught_up().await;
        assert!(device.settle().await.is_empty(), "nothing comes twice");
    }
    for other in &others[..3] {
        eye.stored.until(&other.user_id, other.client_id, 0).await;
    }
    for seq in &large {
        assert_eq!(eye.held(*seq).await, (1, 1), "one has not confirmed");
    }
    // It comes again to who has heard it and not confirmed it.
    let mut device = Device::welcomed(system, 0, &last, Codec::Json).await;
    for _ in 0..3 {
        next(&mut device).await;
    }
    device.close().await;
    let mut device = Device::welcomed(system, 1, &last, Codec::Postcard).await;
    assert_eq!(texts(&hear(&mut device, 6).await), said);
    for seq in large {
        eye.until_gone("a body", async || {
            let (bodies, lists) = eye.held(seq).await;
            bodies + lists
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_read_than_a_window_takes() {
    let system = System::shared().await;
    let (mut alice, others, chat_id) = scene(system, 2).await;
    let bytes = 60_000;
    // Behind what the window takes there is more than one request of the durable brings.
    let said: Vec<String> = (0..300)
        .map(|number| text(number, if number < 12 { bytes } else { 8 }))
        .collect();
    for text in &said {
        alice.say(chat_id, text).await;
    }
    for other in &others {
        Stored::of(system)
            .await
            .until(&other.user_id, other.client_id, 301)
            .await;
    }
    let gateway = system.extra_gateway(&[]).await;
    let token = others[0].token(&system.secret());
    let mut device = Device::at(&gateway.ws, &others[0], &token, Codec::Json).await;
    let mut heard = Vec::new();
    let mut delivery = 0;
    while heard.len() < WINDOW_BYTES_MAX / bytes {
        let (number, message) = next(&mut device).await;
        heard.extend(message);
        delivery = number;
    }
    let more = device.settle().await;
    assert!(
        more.is_empty(),
        "the window is full, and {} more came",
        more.len()
    );
    // Whoever is slow makes the gateway hold no more of the rest.
    let fetched = counted(&gateway, "tidings_bodies_fetched_total").await;
    assert!(
        fetched <= 1 + (WINDOW_BYTES_MAX / bytes) as u64,
        "{fetched} bodies were fetched"
    );
    device.confirm_through(delivery).await;
    heard.extend(hear(&mut device, said.len() - heard.len()).await);
    assert_eq!(texts(&heard), said);
    device.until_caught_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_bodies_is_silent_what_comes_before_is_heard_and_nothing_is_read_again() {
    let system = System::start(&SystemOptions::default()).await;
    let eye = Eye::of(&system).await;
    let (mut alice, others, chat_id) = scene(&system, 2).await;
    let said: Vec<String> = (0..)
        .zip([8, 12, 10_000, 16, 20_000, 20, 24])
        .map(|(number, bytes)| text(number, bytes))
        .collect();
    for text in &said[..6] {
        alice.say(chat_id, text).await;
    }
    for other in &others {
        eye.stored.until(&other.user_id, other.client_id, 1 + 6).await;
    }
    let gateway = system.extra_gateway(&[]).await;
    eye.answers(false).await;
    let token = others[0].token(&system.secret());
    let mut device = Device::at(&gateway.ws, &others[0], &token, Codec::Json).await;
    let mut heard = hear(&mut device, 2).await;
    eventually("it waits", async || {
        match counted(&gateway, "tidings_body_waits").await {
            1 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    // What is said meanwhile waits as well.
    alice.say(chat_id, &said[6]).await;
    eye.stored
        .until(&others[0].user_id, others[0].client_id, 4 + 1)
        .await;
    let failures = counted(&gateway, "tidings_body_failures_total").await;
    let checks = counted(&gateway, "tidings_end_checks_total").await;
    eventually("it is tried again", async || {
        match counted(&gateway, "tidings_body_failures_total").await {
            now if now >= failures + 3 => Ok(()),
            now => Err(now),
        }
    })
    .await;
    assert_eq!(
        counted(&gateway, "tidings_end_checks_total").await,
        checks,
        "it was read again"
    );
    let early = device.settle().await;
    assert!(early.is_empty(), "{} come before their time", early.len());
    eye.answers(true).await;
    heard.extend(hear(&mut device, 5).await);
    assert_eq!(texts(&heard), said);
    device.until_caught_up().await;
    assert!(device.settle().await.is_empty(), "nothing comes twice");
    assert_eq!(counted(&gateway, "tidings_body_waits").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_lost_its_body_is_passed_over_and_kept() {
    let system = System::shared().await;
    let eye = Eye::of(system).await;
    let (mut alice, others, chat_id) = scene(system, 2).await;
    let said: Vec<String> = (0..)
        .zip([8, 10_000, 12, 20_000])
        .map(|(number, bytes)| text(number, bytes))
        .collect();
    let mut seqs = Vec::new();
    for text in &said {
        seqs.push(alice.say(chat_id, text).await.seq.expect("it is accepted"));
    }
    for other in &others {
        eye.stored.until(&other.user_id, other.client_id, 1 + 4).await;
    }
    let (body, _) = eye.bodies(seqs[1]).await.remove(0);
    let deleted = eye.bus.delete_message(BODIES, body.sequence, TIMEOUT).await;
    deleted.expect("the stream answers");
    let gateway = system.extra_gateway(&[]).await;
    let token = others[0].token(&system.secret());
    let mut device = Device::at(&gateway.ws, &others[0], &token, Codec::Json).await;
    let heard = hear(&mut device, 3).await;
    assert_eq!(texts(&heard), [&said[0][..], &said[2], &said[3]]);
    device.until_caught_up().await;
    assert_eq!(counted(&gateway, "tidings_missing_bodies_total").await, 1);
    eye.stored.until(&others[0].user_id, others[0].client_id, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_die_and_everybody_gets_all_of_it() {
    let system = System::start(&SystemOptions::default()).await;
    let eye = Eye::of(&system).await;
    let (mut alice, others, chat_id) = scene(&system, 8).await;
    let mut chats = vec![chat_id];
    let users: Vec<UserId> = others.iter().map(|other| other.user_id.clone()).collect();
    for _ in 0..3 {
        chats.push(alice.create_group(&users).await);
    }
    let said: Vec<String> = (0..60)
        .map(|number| text(number, 4_000 + 1_000 * number))
        .collect();
    let mut victims = [
        "fanout-worker-1",
        "inbox-worker-1",
        "fanout-worker-2",
        "inbox-worker-2",
    ]
    .into_iter()
    .cycle();
    let mut deaths = 0;
    for (number, text) in said.iter().enumerate() {
        let victim = (number % 6 == 5).then(|| victims.next().expect("it has no end"));
        if victim.is_some_and(|victim| victim.starts_with("fanout")) {
            // So that no other event is in the middle.
            eventually("all are fanned out", async || {
                match eye.all(CHATS, "chat.>").await.len() {
                    0 => Ok(()),
                    left => Err(left),
                }
            })
            .await;
            deaths += 1;
        }
        alice.say(chats[number % 4], text).await;
        if let Some(victim) = victim {
            system.kill_and_wait(victim).await;
        }
    }
    for (number, other) in others.iter().enumerate() {
        let mut device = Device::welcomed(&system, number % 2, other, Codec::Json).await;
        let messages = hear(&mut device, said.len()).await;
        for (chat, chat_id) in chats.iter().enumerate() {
            let heard = messages.iter().filter(|message| message.chat_id == *chat_id);
            let heard: Vec<&str> = heard.map(|message| message.message.as_str()).collect();
            let expected: Vec<&String> = said.iter().skip(chat).step_by(4).collect();
            assert_eq!(heard, expected, "client {number}, chat {chat}");
        }
        device.until_caught_up().await;
        let rest = device.settle().await;
        let again = rest
            .iter()
            .filter(|heard| matches!(heard, ServerFrame::NewMessage(_)));
        assert_eq!(again.count(), 0, "something came twice to client {number}");
        system
            .kill_and_wait(["inbox-worker-1", "inbox-worker-2"][number % 2])
            .await;
    }
    // Bodies of who died are left, which nobody knows the entries of: one for each death at most.
    eye.until_gone("a list", async || eye.all(BODIES, BODY_ENTRIES).await.len())
        .await;
    let left = eye.all(BODIES, "body.*").await.len();
    assert!(left <= deaths, "{left} bodies are left of {deaths} deaths");
}
