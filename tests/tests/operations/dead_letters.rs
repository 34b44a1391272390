//! `tidings dead-letters`: listed without what people wrote, retried, dropped.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_nats::{Bus, DEAD_LETTERS, chat_subject};
use tidings_protocol::{ChatId, MessageId, Timestamp};
use tidings_tests::{Device, Identity, System, SystemOptions, eventually};
use uuid::Uuid;

use crate::scene::SAID;
use crate::shell::Shell;

const TIMEOUT: Duration = Duration::from_secs(5);

async fn list(shell: &Shell) -> Vec<Value> {
    let found = shell.json("tidings dead-letters --json").await;
    found["letters"].as_array().expect("a list").clone()
}

/// Puts a message of alice's into `DEAD_LETTERS`, as a worker does that gives it up.
async fn bury(system: &System, chat_id: ChatId, alice: &Identity, payload: Option<Vec<u8>>) {
    let bus = Bus::new(system.nats().await);
    let topology = tidings_nats::setup::check(&bus).await.expect("it is set up");
    let event = tidings_nats::Event::Message(tidings_nats::Message {
        chat_id,
        message_id: MessageId(Uuid::new_v4()),
        user_id: alice.user_id.clone(),
        client_id: alice.client_id,
        sent_at: Timestamp(0),
        message: SAID.to_owned(),
        attachments: vec![],
    });
    let id = format!("dead.{}", Uuid::new_v4());
    let mut headers = tidings_nats::event_headers(&event, &id);
    headers.insert(
        tidings_nats::HEADER_REASON,
        "its handler panicked 5 times: on purpose",
    );
    headers.insert(tidings_nats::HEADER_TRIES, "5");
    let subject = chat_subject(topology.partition(chat_id), chat_id);
    let payload = payload.map_or_else(|| event.encode(), Into::into);
    bus.publish(
        tidings_nats::dead_letter_subject(&subject),
        headers,
        payload,
        TIMEOUT,
    )
    .await
    .expect("the stream takes it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_retried_and_dropped() {
    // Of its own: the guide's system has none.
    let system = System::start(&SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    })
    .await;
    let shell = Shell::of(&system).await;
    assert_eq!(shell.text("tidings dead-letters").await, "no dead letters\n");
    let mut alice = Device::fresh(&system, "alice").await;
    let mut bob = Device::fresh(&system, "bob").await;
    let chat_id = alice.direct_chat(&bob.user_id()).await;
    for payload in [None, Some(vec![1, 9, 9]), None] {
        bury(&system, chat_id, &alice.identity, payload).await;
    }

    let letters = list(&shell).await;
    assert_eq!(letters.len(), 3);
    let letter = &letters[0];
    assert_eq!(letter["chat"], chat_id.to_string());
    assert_eq!(
        (&letter["sequence"], &letter["kind"], &letter["tries"]),
        (&json!(1), &json!("message"), &json!(5))
    );
    assert_eq!(letter["reason"], "its handler panicked 5 times: on purpose");
    assert_eq!(
        (&letters[1]["kind"], &letters[1]["bytes"]),
        (&json!("unreadable message"), &json!(3))
    );
    let text = shell.text("tidings dead-letters list").await;
    assert!(
        text.contains(&chat_id.to_string()) && !text.contains(SAID),
        "{text}"
    );

    // Retried, it arrives, once, and the letter is gone.
    let text = shell.text("tidings dead-letters retry 1").await;
    assert_eq!(text, "1 dead letter published again\n");
    assert_eq!(bob.message().await.message, SAID);
    assert_eq!(list(&shell).await.len(), 2);
    let sentence = shell.failure("tidings dead-letters retry 1").await;
    assert_eq!(sentence, "tidings: there is no dead letter 1\n");

    // What still cannot be processed comes back, as another letter.
    shell.text("tidings dead-letters retry 2").await;
    eventually("it is a dead letter again", async || {
        let letters = list(&shell).await;
        let reasons: Vec<&Value> = letters.iter().map(|letter| &letter["reason"]).collect();
        match reasons.last().and_then(|reason| reason.as_str()) {
            Some(reason) if reason.starts_with("malformed") && letters.len() == 2 => Ok(()),
            _ => Err(letters),
        }
    })
    .await;

    // Dropping asks; without a terminal it says how to go on.
    let sentence = shell.failure("tidings dead-letters drop --all").await;
    assert!(sentence.contains("--yes"), "{sentence}");
    assert_eq!(list(&shell).await.len(), 2);
    let text = shell.text("tidings dead-letters drop --all --yes").await;
    assert_eq!(text, "2 dead letters dropped\n");
    assert_eq!(shell.text("tidings dead-letters").await, "no dead letters\n");
    let bus = Bus::new(system.nats().await);
    assert!(
        bus.letter_from(1, TIMEOUT).await.expect("it answers").is_none(),
        "{DEAD_LETTERS} is empty"
    );
}
