//! The client library on a real system: what its application sees while gateways die and it starts again itself.

use std::collections::HashMap;
use std::path::Path;

use tidings_client::{Client, Content, DiskStore, Event, Events, Options, Tokens};
use tidings_protocol::MessageId;
use tidings_tests::{Identity, PATIENCE, System, SystemOptions};
use tokio::time::timeout;

const MESSAGES: usize = 300;

fn connect(system: &System, identity: &Identity, store: &Path) -> (Client, Events) {
    let tokens = Tokens::fixed(identity.token(&system.secret()));
    let mut options = Options::new(String::new(), tokens);
    options.urls = system.up_file().ws;
    options.store = Box::new(DiskStore::open(store).expect("a store"));
    Client::connect(options).expect("a store that can be read")
}

/// A message as its recipient sees it.
struct Taken {
    seq: u64,
    message_id: MessageId,
    text: String,
}

/// Takes messages until there are `count`. What else has come by then is let go of, and comes again.
async fn take(events: &mut Events, taken: &mut Vec<Taken>, count: usize) {
    while taken.len() < count {
        let next = timeout(PATIENCE, events.next()).await;
        let next = next.unwrap_or_else(|_| panic!("only {} of {count} came", taken.len()));
        let Event::Delivery(delivery) = next.expect("the client goes on") else {
            continue;
        };
        if let Content::Message(message) = delivery.content() {
            taken.push(Taken {
                seq: message.seq,
                message_id: message.message_id,
                text: message.message.clone(),
            });
        }
        delivery.confirm();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_sees_every_message_once_and_in_order_while_everything_restarts() {
    let system = System::start(&SystemOptions::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let [alice, bob] = ["alice", "bob"].map(Identity::fresh);
    let (hers, _her_events) = connect(&system, &alice, &folder.path().join("alice.redb"));
    let store = folder.path().join("bob.redb");
    let chat_id = hers
        .direct_chat(bob.user_id.clone())
        .await
        .expect("a chat")
        .chat_id;

    let sending = tokio::spawn({
        let hers = hers.clone();
        async move {
            let mut accepted = HashMap::new();
            for number in 0..MESSAGES {
                let sending = hers
                    .send(chat_id, format!("message {number}"))
                    .await
                    .expect("queued");
                let message_id = sending.message_id();
                let seq = sending.accepted().await.expect("accepted").seq;
                accepted.insert(message_id, seq);
            }
            accepted
        }
    });
    let mut taken = Vec::new();
    for (count, victim) in [
        (60, Some("gateway-1")),
        (120, Some("gateway-2")),
        (180, Some("fanout-worker-1")),
        (MESSAGES, None),
    ] {
        let (his, mut events) = connect(&system, &bob, &store);
        take(&mut events, &mut taken, count).await;
        if let Some(victim) = victim {
            system.kill_and_wait(victim).await;
        }
        his.close().await;
    }

    let accepted = sending.await.expect("no panic");
    let texts: Vec<&str> = taken.iter().map(|taken| taken.text.as_str()).collect();
    let expected: Vec<String> = (0..MESSAGES).map(|number| format!("message {number}")).collect();
    assert_eq!(texts, expected, "once, and in order");
    for Taken { seq, message_id, .. } in &taken {
        assert_eq!(
            accepted.get(message_id),
            Some(seq),
            "the recipient's seq is the one that was answered"
        );
    }
}
