//! What was accepted keeps its place until the weather is better, and holds nobody else up.

use std::process::Command;

use serde_json::{Value, json};
use tidings_metadata::ModifyParticipants;
use tidings_nats::{Inbox, chat_subject, inbox_stream};
use tidings_protocol::{ChatId, ClientId, Operation, RequestId, UserId};
use uuid::Uuid;

use crate::support::{Gateway, Person, System, TIMEOUT, Worker, changes, eventually, texts};

/// Changes a setting of the stream in which a person's inbox is.
async fn set_inbox_stream(system: &System, person: &Person, setting: &str, value: Value) {
    let stream = inbox_stream(system.context.topology.shard(&person.user_id));
    system
        .update_stream(&stream, |config| config[setting] = value)
        .await;
}

/// Writes a change of a chat to Postgres alone, as a gateway that dies before it publishes.
async fn change_without_publishing(system: &System, chat_id: ChatId, by: &Person, removed: &Person) {
    let modify = ModifyParticipants {
        by: by.user_id.clone(),
        request_id: RequestId(Uuid::new_v4()),
        chat_id,
        user: removed.user_id.clone(),
        operation: Operation::Remove,
    };
    let changed = system.context.metadata.modify_participants(modify).await;
    assert!(changed.expect("the chat is changed").seq.is_none());
}

/// Has everything fanned out by a worker that takes what it learned with it.
async fn forget(system: &System) {
    let worker = system.worker().await;
    system.wait_until_fanned_out().await;
    worker.stop().await;
}

/// Whether a worker's condition holds.
fn holds(worker: &Worker, condition: &str) -> bool {
    worker
        .context
        .conditions
        .states()
        .get(condition)
        .is_some_and(|state| state.ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_not_published_comes_after_what_was_accepted_before() {
    let system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let carol = system.register("carol").await;
    let users = [&alice.user_id, &bob.user_id, &carol.user_id];
    let (chat_id, _) = system.chat(&users).await;
    forget(&system).await;
    change_without_publishing(&system, chat_id, &alice, &bob).await;
    system.send(chat_id, &alice, "hello").await;
    let worker = system.worker().await;
    let entries = system.wait_for_entries(&bob, 3).await;
    assert_eq!(texts(&entries)[&chat_id], ["hello"]);
    let published = &changes(&entries)[1].removed;
    assert_eq!(*published, std::slice::from_ref(&bob.user_id));
    system.send(chat_id, &alice, "without bob").await;
    system.wait_for_entries(&carol, 4).await;
    system.wait_until_fanned_out().await;
    let inbox = Inbox::Client(bob.client_id);
    assert_eq!(system.inbox(&bob.user_id, inbox).await.len(), 3);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_chat_with_a_change_that_does_not_fit_is_emptied() {
    let system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    forget(&system).await;
    for number in 1..=500 {
        system.send(chat_id, &alice, &number.to_string()).await;
    }
    change_without_publishing(&system, chat_id, &alice, &bob).await;
    let worker = system.worker().await;
    let entries = system.wait_for_entries(&bob, 501).await;
    let expected: Vec<String> = (1..=500).map(|number| number.to_string()).collect();
    assert_eq!(texts(&entries)[&chat_id], expected);
    system.wait_until_fanned_out().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_stored_under_first_is_not_stored_again_for_the_heir() {
    let system = System::start(1).await;
    let bob = system.register("bob").await;
    let dave = UserId::new("dave").expect("a user id");
    let before = Person {
        user_id: dave.clone(),
        client_id: ClientId(Uuid::new_v4()),
    };
    set_inbox_stream(&system, &before, "max_bytes", json!(1)).await;
    system.chat(&[&bob.user_id, &dave]).await;
    let worker = system.worker().await;
    // All are written to at once: the answer for dave is on its way, or there.
    system.wait_for_entries(&bob, 1).await;
    let heir = system.register("dave").await;
    set_inbox_stream(&system, &heir, "max_bytes", json!(1 << 26)).await;
    system.wait_until_fanned_out().await;
    assert_eq!(system.inbox(&dave, Inbox::First).await.len(), 1);
    let inbox = Inbox::Client(heir.client_id);
    assert_eq!(system.inbox(&dave, inbox).await.len(), 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_inbox_stops_nobody() {
    let system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    set_inbox_stream(&system, &bob, "max_msgs_per_subject", json!(5)).await;
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    for number in 1..=20 {
        system.send(chat_id, &alice, &number.to_string()).await;
    }
    let worker = system.worker().await;
    system.wait_until_fanned_out().await;
    let entries = system.wait_for_entries(&bob, 5).await;
    assert_eq!(texts(&entries)[&chat_id], ["1", "2", "3", "4"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_weather() {
    let system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let (other, _) = system
        .chat(&[&alice.user_id, &alice_friend(&system, &bob).await.user_id])
        .await;
    set_inbox_stream(&system, &bob, "max_bytes", json!(1)).await;
    for number in 1..=20 {
        system.send(chat_id, &alice, &number.to_string()).await;
    }
    system.send(other, &alice, "hello").await;
    let worker = system.worker().await;
    // The other chat goes on, and nothing of this one is given up.
    eventually("only the chat waits", async || system.stored("CHATS").await == 21).await;
    set_inbox_stream(&system, &bob, "max_bytes", json!(1 << 26)).await;
    let entries = system.wait_for_entries(&bob, 21).await;
    let expected: Vec<String> = (1..=20).map(|number| number.to_string()).collect();
    assert_eq!(texts(&entries)[&chat_id], expected);
    system.wait_until_fanned_out().await;
    worker.stop().await;
}

/// Somebody whose inbox is in another stream than this person's and Alice's.
async fn alice_friend(system: &System, not_with: &Person) -> Person {
    let topology = &system.context.topology;
    for number in 0.. {
        let name = format!("friend-{number}");
        let user_id = tidings_protocol::UserId::new(&name).expect("a user id");
        if topology.shard(&user_id) != topology.shard(&not_with.user_id) {
            return system.register(&name).await;
        }
    }
    unreachable!("some user is elsewhere")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_newer_version_keeps_its_place() {
    let system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let (other, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let subject = chat_subject(system.context.topology.partition(chat_id), chat_id);
    system
        .context
        .bus
        .publish_with_id(subject, "newer", vec![2, 0].into(), TIMEOUT)
        .await
        .expect("CHATS takes it");
    system.send(chat_id, &alice, "behind it").await;
    system.send(other, &alice, "beside it").await;
    let worker = system.worker().await;
    let entries = system.wait_for_entries(&bob, 3).await;
    assert_eq!(texts(&entries)[&other], ["beside it"]);
    eventually("only the chat waits", async || system.stored("CHATS").await == 2).await;
    assert_eq!(system.stored("DEAD_LETTERS").await, 0);
    // A stop does not wait for it.
    worker.stop().await;
    assert_eq!(system.stored("CHATS").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_known_chats_go_on_and_others_wait() {
    let mut system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let (known, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let (unknown, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    forget(&system).await;
    let worker = system.worker().await;
    system.send(known, &alice, "1").await;
    system.wait_until_fanned_out().await;
    system.postgres.stop().await;
    system.send(unknown, &alice, "waits").await;
    system.send(known, &alice, "2").await;
    let entries = system.wait_for_entries(&bob, 4).await;
    assert_eq!(texts(&entries)[&known], ["1", "2"]);
    eventually("only one waits", async || system.stored("CHATS").await == 1).await;
    system.postgres.start().await.expect("Postgres starts again");
    let entries = system.wait_for_entries(&bob, 5).await;
    assert_eq!(texts(&entries)[&unknown], ["waits"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_others_take_for_dead_stops_until_it_is_seen_again() {
    let mut system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let worker = system.worker().await;
    system.send(chat_id, &alice, "before").await;
    system.wait_until_fanned_out().await;
    let pid = system.nats.server().pid().expect("it runs").to_string();
    let signal = |signal: &str| {
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("there is a kill").success());
    };
    // The server hangs: connections stay, and nothing answers.
    signal("-STOP");
    eventually("it stops working", async || !holds(&worker, "reading")).await;
    signal("-CONT");
    eventually("it works again", async || holds(&worker, "reading")).await;
    let mut state = system.context.nats.state();
    let connected = state.wait_for(|state| state.connected);
    connected.await.expect("the connection lives");
    eventually("NATS takes a message", async || {
        let subject = chat_subject(system.context.topology.partition(chat_id), chat_id);
        let bus = &system.context.bus;
        bus.publish_with_id(subject, "probe", vec![0].into(), TIMEOUT)
            .await
            .is_ok()
    })
    .await;
    system.send(chat_id, &alice, "after").await;
    let entries = system.wait_for_entries(&bob, 3).await;
    assert_eq!(texts(&entries)[&chat_id], ["before", "after"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_unseen_gets_no_notices() {
    let system = System::start(1).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let carol = system.register("carol").await;
    let users = [&alice.user_id, &bob.user_id, &carol.user_id];
    let mut gateway = Gateway::listen(&system, "g1").await;
    let worker = system.worker().await;
    system.connect(&bob, "g1", 1).await;
    let carols = system.connect(&carol, "g1", 2).await;
    gateway.beacon(|beacon| beacon.sessions_revision >= carols).await;
    // The key is gone without a mark, as after a deletion whose mark has expired.
    let key = json!({ "filter": format!("$KV.SESSIONS.{}", bob.client_id) });
    let purged: Value = system
        .context
        .bus
        .api("STREAM.PURGE.KV_SESSIONS", &key, TIMEOUT)
        .await
        .expect("the bucket answers");
    assert_eq!(purged["purged"], 1);
    crate::two_workers::kick(&system, &worker).await;
    let mut state = worker.context.nats.state();
    state
        .wait_for(|state| state.connects > 1 && state.connected)
        .await
        .expect("the connection lives");
    let later = system.connect(&carol, "g1", 3).await;
    gateway.beacon(|beacon| beacon.sessions_revision >= later).await;
    let (chat_id, _) = system.chat(&users).await;
    system.send(chat_id, &alice, "hello").await;
    let notice = gateway.notice().await;
    let recipients: Vec<_> = notice
        .recipients
        .iter()
        .map(|recipient| (recipient.client_id, recipient.connection))
        .collect();
    assert_eq!(recipients, [(carol.client_id, 3)]);
    worker.stop().await;
}
