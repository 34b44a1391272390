//! `tidings explain`: where a message is, and what became of it for each client.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidings_nats::{Bus, CHATS, chat_subject, inbox_stream};
use tidings_protocol::{ChatId, MessageId, Operation, UserId};
use tidings_tests::{Device, Identity, System, SystemOptions, eventually};
use uuid::Uuid;

use crate::scene::{SAID, Scene};
use crate::shell::Shell;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Somebody says something; returns its id and its place in the chat.
async fn say(device: &mut Device, chat_id: ChatId) -> (MessageId, u64) {
    let message_id = MessageId(Uuid::new_v4());
    let reply = device.say_as(chat_id, message_id, SAID).await;
    let seq = reply.expect("it is accepted").seq;
    (message_id, seq.expect("a message has a place in its chat"))
}

async fn explain(shell: &Shell, chat_id: ChatId, message_id: MessageId) -> Value {
    let found = shell
        .json(&format!("tidings explain {chat_id} {message_id} --json"))
        .await;
    assert!(!found.to_string().contains(SAID));
    found
}

/// What became of it for the only client of a user.
fn of_user<'a>(found: &'a Value, user: &UserId) -> &'a Value {
    let mut recipients = found["recipients"].as_array().expect("a list").iter();
    let mine = recipients.find(|recipient| recipient["user_id"] == user.as_str());
    mine.unwrap_or_else(|| panic!("{user} is not in {found}"))
}

async fn until_state(
    shell: &Shell,
    chat_id: ChatId,
    message_id: MessageId,
    user: &UserId,
    state: &str,
) -> Value {
    eventually(&format!("it is {state} for {user}"), async || {
        let found = explain(shell, chat_id, message_id).await;
        if of_user(&found, user)["state"] == state {
            Ok(found)
        } else {
            Err(found)
        }
    })
    .await
}

/// Stored for all, and gone from CHATS: a worker deletes it only then.
async fn until_done(shell: &Shell, chat_id: ChatId, message_id: MessageId) -> Value {
    eventually("it has left CHATS", async || {
        let found = explain(shell, chat_id, message_id).await;
        let done = found["fan_out"]["state"] == "done";
        if done { Ok(found) } else { Err(found) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_from_its_inbox_to_its_end() {
    let system = System::shared().await;
    let shell = Shell::without_nats(system);
    let mut scene = Scene::new(system, 1).await;
    let (chat_id, bob) = (scene.chat_id, scene.bob.user_id.clone());
    let (alice, sender) = (scene.alice.user_id(), scene.alice.identity.client_id);
    let (message_id, seq) = say(&mut scene.alice, chat_id).await;

    // Stored, for a client that is away.
    until_state(&shell, chat_id, message_id, &bob, "stored").await;
    let found = until_done(&shell, chat_id, message_id).await;
    assert_eq!(
        (
            &found["seq"],
            &found["from"],
            &found["client_id"],
            &found["as_of_then"]
        ),
        (&json!(seq), &json!(alice), &json!(sender), &json!(true))
    );
    assert!(found["sent_at"].is_string() && found["fan_out"]["stored_last"].is_string());
    let at_bobs = of_user(&found, &bob);
    assert_eq!(at_bobs["client_id"], scene.bob.client_id.to_string());
    assert_eq!(at_bobs["session"], Value::Null);
    let place = at_bobs["sequence"].clone();
    let own = of_user(&found, &alice);
    assert_eq!(
        (&own["state"], &own["why"]),
        (&json!("not_for_it"), &json!("own"))
    );
    let text = shell
        .text(&format!("tidings explain {chat_id} {message_id}"))
        .await;
    for part in [
        &format!("seq {seq}, from {alice}"),
        "the client is not connected",
        "it sent it",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // Delivered and not confirmed.
    let (mut device, deliveries) = scene.bob_connects(system, 2).await;
    let found = explain(&shell, chat_id, message_id).await;
    let at_bobs = of_user(&found, &bob);
    assert_eq!(at_bobs["session"]["alive"], true);
    let text = shell
        .text(&format!("tidings explain {chat_id} {message_id}"))
        .await;
    assert!(text.contains("delivered and not confirmed"), "{text}");

    // Confirmed: nothing holds it any more, and CHATS remembers it for a while.
    device.confirm(deliveries[1]).await;
    let found = until_state(&shell, chat_id, message_id, &bob, "confirmed").await;
    assert_eq!(found["fan_out"]["state"], "done");
    assert_eq!((&found["seq"], &found["from"]), (&json!(seq), &json!(alice)));
    assert_eq!(of_user(&found, &bob)["sequence"], place);
    // The one before it is still there, and is not taken for it.
    let inbox = shell
        .json(&format!("tidings inbox {} --json", scene.bob.client_id))
        .await;
    assert_eq!(inbox["unconfirmed"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_it_was_for_and_whom_not() {
    let system = System::shared().await;
    let shell = Shell::without_nats(system);
    let mut alice = Device::fresh(system, "alice").await;
    let bob = Device::fresh(system, "bob").await;
    let (carol, dave) = (Identity::fresh("carol").user_id, Identity::fresh("dave").user_id);
    let chat_id = alice.create_group(&[bob.user_id(), carol.clone()]).await;
    let (early, _) = say(&mut alice, chat_id).await;
    alice
        .modify(chat_id, &dave, Operation::Add)
        .await
        .expect("alice is an admin");
    alice
        .modify(chat_id, &carol, Operation::Remove)
        .await
        .expect("alice is an admin");
    let (late, _) = say(&mut alice, chat_id).await;

    // Carol has never connected; she was in the chat then, and is not now. Dave came later.
    let found = until_state(&shell, chat_id, early, &carol, "stored").await;
    let at_carols = of_user(&found, &carol);
    assert_eq!(
        (&at_carols["first"], &at_carols["client_id"]),
        (&json!(true), &Value::Null)
    );
    let not = of_user(&found, &dave);
    assert_eq!(
        (&not["state"], &not["why"]),
        (&json!("not_for_it"), &json!("not_in_the_chat"))
    );
    let text = shell.text(&format!("tidings explain {chat_id} {early}")).await;
    assert!(text.contains("waits for the user's first client"), "{text}");

    let found = until_state(&shell, chat_id, late, &dave, "stored").await;
    let users: Vec<&Value> = found["recipients"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|recipient| &recipient["user_id"])
        .collect();
    assert!(!users.contains(&&json!(carol)), "{found}");

    // Dave's first device inherits what waited, and his second registers too late.
    let identity = Identity::new(&dave);
    let first = Device::of(system, &identity).await;
    let second = Device::of(system, &Identity::new(&dave)).await;
    // While somebody has yet to confirm it, or to have it stored, it may still come to others.
    let found = eventually("it has left CHATS", async || {
        let found = explain(&shell, chat_id, late).await;
        let mut recipients = found["recipients"].as_array().expect("a list").iter();
        if recipients.any(|recipient| recipient["state"] == "pending") {
            return Err(found);
        }
        Ok(found)
    })
    .await;
    let of_client = |client: &Device| {
        let id = json!(client.identity.client_id);
        let mut recipients = found["recipients"].as_array().expect("a list").iter();
        recipients.find(|recipient| recipient["client_id"] == id).cloned()
    };
    let inherited = of_client(&first).expect("it is active");
    assert_eq!(
        (&inherited["state"], &inherited["first"]),
        (&json!("stored"), &json!(true))
    );
    let too_late = of_client(&second).expect("it is active");
    assert_eq!(
        (&too_late["state"], &too_late["why"]),
        (&json!("gone"), &json!("just_registered")),
        "clocks are not believed to the minute"
    );

    // Of what nobody sent there is no trace.
    let nothing = MessageId(Uuid::now_v7());
    let found = explain(&shell, chat_id, nothing).await;
    assert_eq!(
        (&found["fan_out"]["state"], &found["recipients"]),
        (&json!("no_trace"), &json!([]))
    );
    let sentence = shell
        .failure(&format!("tidings explain {nothing} {nothing}"))
        .await;
    assert_eq!(sentence, format!("tidings: there is no chat {nothing}\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_what_is_refused_and_what_is_given_up() {
    // Of its own: its worker is stopped, and one of its streams is made small.
    let system = System::start(&SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    })
    .await;
    let shell = Shell::without_nats(&system);
    let bus = Bus::new(system.nats().await);
    let topology = tidings_nats::setup::check(&bus).await.expect("it is set up");
    let mut alice = Device::fresh(&system, "alice").await;
    let bob = Device::fresh(&system, "bob").await;
    let chat_id = alice.direct_chat(&bob.user_id()).await;
    let bob_id = bob.user_id();
    let (message_id, _) = say(&mut alice, chat_id).await;
    until_state(&shell, chat_id, message_id, &bob_id, "stored").await;
    // Or the worker may be stopped before it has deleted it.
    until_done(&shell, chat_id, message_id).await;

    system.signal("fanout-worker-1", Signal::SIGSTOP);
    let (before, _) = say(&mut alice, chat_id).await;
    let (waits, seq) = say(&mut alice, chat_id).await;
    let found = explain(&shell, chat_id, waits).await;
    let fan_out = &found["fan_out"];
    let state = fan_out["state"].as_str().expect("a state");
    assert!(["waiting", "working"].contains(&state), "{found}");
    assert_eq!(
        (&found["seq"], &fan_out["chat_events_before"]),
        (&json!(seq), &json!(1))
    );
    assert!(found["accepted_at"].is_string(), "{found}");
    assert_eq!(of_user(&found, &bob_id)["state"], "pending");
    let text = shell.text(&format!("tidings explain {chat_id} {waits}")).await;
    assert!(text.contains("not yet: it is in CHATS"), "{text}");
    assert!(text.contains("1 event of its chat comes before it"), "{text}");
    system.signal("fanout-worker-1", Signal::SIGCONT);
    for message_id in [before, waits] {
        until_state(&shell, chat_id, message_id, &bob_id, "stored").await;
    }

    // Bob's inbox is as full as it may be.
    let name = inbox_stream(topology.shard(&bob_id));
    let mut stream = bus.jetstream().get_stream(name).await.expect("it is there");
    let mut config = stream.info().await.expect("it answers").config.clone();
    config.max_messages_per_subject = 4;
    bus.jetstream()
        .update_stream(config)
        .await
        .expect("it may change");
    let (refused, _) = say(&mut alice, chat_id).await;
    let found = until_state(&shell, chat_id, refused, &bob_id, "refused").await;
    assert_eq!(found["fan_out"]["state"], "done");
    let text = shell.text(&format!("tidings explain {chat_id} {refused}")).await;
    assert!(text.contains("the inbox was full"), "{text}");
    // What is there is not taken for refused.
    let found = explain(&shell, chat_id, waits).await;
    assert_eq!(of_user(&found, &bob_id)["state"], "stored");

    // A dead letter says why.
    let (dead, seq) = (MessageId(Uuid::new_v4()), 1_000_000);
    let event = tidings_nats::Event::Message(tidings_nats::Message {
        chat_id,
        message_id: dead,
        user_id: alice.user_id(),
        client_id: alice.identity.client_id,
        sent_at: tidings_service::clock::now(),
        message: SAID.to_owned(),
        attachments: vec![],
    });
    let mut headers = tidings_nats::event_headers(&event, &format!("dead.{seq}"));
    headers.insert(tidings_nats::HEADER_REASON, "its handler panicked: on purpose");
    headers.insert(tidings_nats::HEADER_TRIES, "5");
    let subject = chat_subject(topology.partition(chat_id), chat_id);
    let subject = tidings_nats::dead_letter_subject(&subject);
    bus.publish(subject, headers, event.encode(), TIMEOUT)
        .await
        .expect("the stream takes it");
    let found = explain(&shell, chat_id, dead).await;
    assert_eq!(
        (
            &found["seq"],
            &found["fan_out"]["state"],
            &found["fan_out"]["tries"]
        ),
        (&json!(seq), &json!("dead_letter"), &json!(5))
    );
    assert_eq!(of_user(&found, &bob_id)["state"], "given_up");
    let text = shell.text(&format!("tidings explain {chat_id} {dead}")).await;
    assert!(
        text.contains("given up after 5 tries") && text.contains("on purpose"),
        "{text}"
    );

    // Asking has left nothing in CHATS.
    let bounds = bus.stream_bounds(CHATS, TIMEOUT).await.expect("it answers");
    assert_eq!(bounds.messages, 0);
}
