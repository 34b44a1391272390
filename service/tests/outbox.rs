//! What is committed in a real Postgres reaches the streams of a real NATS, once and in order, and from there the
//! caches.

mod support;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use support::System;
use tidings_metadata::{ModifyParticipants, NewChat, OutboxKey, ParticipantsAt, RegisterClient};
use tidings_nats::{Event, Invalidation};
use tidings_protocol::{ChatId, ClientId, Operation, RequestId, UserId};
use tidings_service::outbox::flush;
use tidings_service::{Context, Forget, Invalidations};
use tokio::time::timeout;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

async fn attach(system: &System) -> Context {
    Context::attach("test", &system.nats.url(), system.postgres.url())
        .await
        .expect("the system is set up")
}

fn user(id: &str) -> UserId {
    UserId::new(id).expect("a user id")
}

fn request() -> RequestId {
    RequestId(Uuid::new_v4())
}

async fn create_group(context: &Context) -> ChatId {
    let chat = NewChat {
        creator: user("alice"),
        request_id: request(),
        others: vec![user("bob")],
        name: Some("Lunch".to_owned()),
    };
    context
        .metadata
        .create_chat(chat)
        .await
        .expect("the chat is new")
        .chat_id
}

async fn modify(context: &Context, chat_id: ChatId, operation: Operation, other: &str) {
    let modification = ModifyParticipants {
        by: user("alice"),
        request_id: request(),
        chat_id,
        user: user(other),
        operation,
    };
    context
        .metadata
        .modify_participants(modification)
        .await
        .expect("alice is admin");
}

/// The events of a stream, as (sequence, payload).
async fn stored(context: &Context, stream: &str, filter: &str) -> Vec<(u64, bytes::Bytes)> {
    let read = context
        .bus
        .next_by_subject(stream, filter, 1, 100, 1 << 20, Duration::from_secs(5));
    let (messages, more) = read.await.expect("the stream is there");
    assert!(!more, "the test stores less than a batch");
    messages
        .into_iter()
        .map(|message| (message.sequence, message.payload))
        .collect()
}

async fn versions_of_chats(context: &Context) -> Vec<(u64, u64)> {
    let events = stored(context, tidings_nats::CHATS, "chat.>").await;
    let version = |payload: &[u8]| match Event::decode(payload).expect("this build wrote it") {
        Event::ChatUpdate(update) => update.version,
        Event::Message(_) => panic!("nobody sent a message"),
    };
    events
        .iter()
        .map(|(seq, payload)| (*seq, version(payload)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_chat_are_published_once_and_in_order() {
    let system = System::start().await;
    let (context, other) = (attach(&system).await, attach(&system).await);
    let chat_id = create_group(&context).await;
    for guest in ["carol", "dave", "erin"] {
        modify(&context, chat_id, Operation::Add, guest).await;
    }
    modify(&context, chat_id, Operation::Remove, "bob").await;
    assert_eq!(
        context
            .metadata
            .participants_at(chat_id, 1)
            .await
            .expect("Postgres answers"),
        ParticipantsAt::Unsent
    );

    let key = || OutboxKey::Chat(chat_id);
    let flushes = (0..8).map(|number| {
        let context = if number % 2 == 0 { &context } else { &other };
        flush(&context.metadata, &context.bus, &context.topology, key())
    });
    let flushes = futures::future::join_all(flushes).await;
    let flushed: Vec<(u64, u64)> = flushes
        .into_iter()
        .flat_map(|result| result.expect("both servers answer"))
        .map(|row| (row.seq, row.version))
        .collect();
    assert_eq!(
        flushed.iter().map(|(_, version)| *version).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(versions_of_chats(&context).await, flushed);

    let seq = flushed[1].0;
    let ParticipantsAt::Known(change) = context
        .metadata
        .participants_at(chat_id, seq + 1)
        .await
        .expect("Postgres answers")
    else {
        panic!("the sequence is known")
    };
    assert_eq!(
        (change.version, change.seq, &change.added),
        (2, Some(seq), &vec![user("carol")])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_between_the_two_is_published_once() {
    let mut system = System::start().await;
    let context = attach(&system).await;
    let chat_id = create_group(&context).await;
    let key = || OutboxKey::Chat(chat_id);

    // Published, but the row is not marked: the process died in between.
    let mut lock = context
        .metadata
        .lock_outbox(key())
        .await
        .expect("nobody else has it");
    let rows = lock.rows().await.expect("Postgres answers");
    let tidings_metadata::OutboxChange::Chat(change) = &rows[0].change else {
        panic!("a chat's row")
    };
    let event = Event::ChatUpdate(tidings_service::outbox::chat_update(change));
    let headers = tidings_nats::event_headers(&event, &event.message_id());
    let subject = tidings_nats::chat_subject(context.topology.partition(chat_id), chat_id);
    let publish = context
        .bus
        .publish(subject, headers, event.encode(), Duration::from_secs(5));
    let seq = publish.await.expect("NATS answers").sequence;
    drop(lock);

    // Not published, since NATS is away.
    system.nats.kill().await;
    let lost = timeout(PATIENCE, context.nats.state().wait_for(|state| !state.connected))
        .await
        .is_ok();
    assert!(lost, "the connection is gone");
    let error = flush(&context.metadata, &context.bus, &context.topology, key()).await;
    error.expect_err("NATS is away");
    system.nats.start().await.expect("nats-server starts again");
    let back = timeout(PATIENCE, context.nats.state().wait_for(|state| state.connected))
        .await
        .is_ok();
    assert!(back, "the connection is back");

    let flushed = flush(&context.metadata, &context.bus, &context.topology, key()).await;
    let flushed = flushed.expect("both servers answer");
    assert_eq!(
        flushed
            .iter()
            .map(|row| (row.seq, row.version))
            .collect::<Vec<_>>(),
        [(seq, 1)]
    );
    assert_eq!(versions_of_chats(&context).await, [(seq, 1)]);
    assert_eq!(
        stored(&context, tidings_nats::INVALIDATIONS, "invalidation.>")
            .await
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_hear_of_changes_also_after_a_reconnect() {
    let mut system = System::start().await;
    let context = attach(&system).await;
    let forgotten: Arc<Mutex<Vec<Forget>>> = Arc::default();
    let log = forgotten.clone();
    let reader = Invalidations::start(&context, move |forget| log.lock().push(forget)).await;
    let reader = reader.expect("the stream is there");
    assert_eq!(reader.applied().sequence, 0);

    let register = |name: &str| RegisterClient {
        user: user(name),
        client: ClientId(Uuid::new_v4()),
        name: None,
        replace: None,
        inbox_sequence: None,
    };
    let mut expected = Vec::new();
    let mut applied = reader.subscribe();
    for (number, name) in (1..).zip(["alice", "bob"]) {
        let chat_id = create_group(&context).await;
        let flushed = flush(
            &context.metadata,
            &context.bus,
            &context.topology,
            OutboxKey::Chat(chat_id),
        )
        .await;
        flushed.expect("both servers answer");
        context
            .metadata
            .register_client(register(name))
            .await
            .expect("the first client is let in");
        let flushed = flush(
            &context.metadata,
            &context.bus,
            &context.topology,
            OutboxKey::User(user(name)),
        )
        .await;
        assert_eq!(flushed.expect("both servers answer")[0].seq, number * 2);
        expected.push(Forget::One(Invalidation::Chat { chat_id, version: 1 }));
        expected.push(Forget::One(Invalidation::User { user_id: user(name) }));
        let wait = timeout(
            PATIENCE,
            applied.wait_for(|applied| applied.sequence == number * 2),
        )
        .await;
        wait.expect("it is applied").expect("the reader goes on");
        assert_eq!(*forgotten.lock(), expected);
        system.nats.restart().await.expect("nats-server starts again");
        let mut connection = context.nats.state();
        let back = connection.wait_for(|state| state.connects > number);
        timeout(PATIENCE, back)
            .await
            .expect("the connection comes back")
            .expect("the connection goes on");
    }
}
