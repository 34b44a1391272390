//! A server that forgets, and a gateway that stops while people come in.

use std::time::Duration;

use nix::sys::signal::Signal;
use tidings_client::connection::Connection;
use tidings_protocol::{CloseCode, Codec, Hello, MessageId};
use tidings_tests::{Device, Identity, Stored, System, SystemOptions, eventually};
use tokio::task::JoinSet;
use uuid::Uuid;

/// A system of one's own, since others would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_forgets_and_a_gateway_stops() {
    let options = SystemOptions {
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    };
    let system = System::start(&options).await;
    people_come_in_while_a_gateway_stops(&system).await;
    a_retry_after_the_server_forgot_it_is_recognised(&system).await;
}

/// Whoever was let in is told to go elsewhere, also the last one, and the gateway is gone in time.
async fn people_come_in_while_a_gateway_stops(system: &System) {
    const PEOPLE: usize = 40;
    let (ws, secret) = (system.ws(0), system.secret());
    let mut people = JoinSet::new();
    let (welcomed, mut welcomes) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..PEOPLE {
        let (ws, token, welcomed) = (
            ws.clone(),
            Identity::fresh("guest").token(&secret),
            welcomed.clone(),
        );
        people.spawn(async move {
            // Refused, or not let in any more: that is said at once and everybody knows what to do.
            let mut connection = Connection::connect(&ws, Codec::Json, None).await.ok()?;
            let hello = Hello {
                id: 1,
                token: Some(token),
                name: None,
                replace: None,
            };
            connection.hello(hello).await.ok()?;
            let _ = welcomed.send(());
            loop {
                if let Err(closed) = connection.next().await {
                    return closed.close_code().or(Some(CloseCode::NotTidings));
                }
            }
        });
    }
    welcomes.recv().await.expect("somebody is let in");
    system.signal("gateway-1", Signal::SIGTERM);
    let ends = tokio::time::timeout(Duration::from_mins(1), people.join_all());
    let ends = ends.await.expect("nobody is left on a gateway that stops");
    let others: Vec<_> = ends
        .iter()
        .flatten()
        .filter(|code| **code != CloseCode::Restart)
        .collect();
    assert!(others.is_empty(), "of {PEOPLE} some were closed with {others:?}");
    system.until_ready("gateway-1").await;
}

/// CHATS forgets the ids of what it handed on when its server is killed. A retry is a second event then, and its
/// readers know it by chat, sender's client and message id.
async fn a_retry_after_the_server_forgot_it_is_recognised(system: &System) {
    let stored = Stored::of(system).await;
    let mut alice = Device::on(system, 1, &Identity::fresh("alice"), Codec::Json).await;
    let mut bob = Device::on(system, 1, &Identity::fresh("bob"), Codec::Json).await;
    let chat_id = alice.direct_chat(&bob.user_id()).await;
    let message_id = MessageId(Uuid::new_v4());
    let first = alice.say_as(chat_id, message_id, "once").await;
    let first = first.expect("it is accepted");
    let heard = bob.message().await;
    assert_eq!(Some(heard.seq), first.seq);
    eventually("the event is handed on", async || {
        let left = stored.stream("CHATS").await.state.messages;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    bob.confirm_through(heard.delivery).await;
    stored.until(&bob.user_id(), bob.identity.client_id, 0).await;

    system.signal("nats-1", Signal::SIGKILL);
    let retry = eventually("the retry is accepted", async || {
        alice.say_as(chat_id, message_id, "once").await
    })
    .await;
    alice.say(chat_id, "after it").await;
    let next = bob.message().await;
    if retry.duplicate == Some(true) {
        assert_eq!(retry.seq, first.seq);
        assert_eq!(next.message, "after it");
    } else {
        // The server forgot: the same message under another number, before what came later.
        assert_eq!(
            (next.message_id, next.client_id),
            (message_id, alice.identity.client_id)
        );
        assert_eq!(bob.message().await.message, "after it");
    }
}
