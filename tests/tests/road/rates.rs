//! Buckets: what is over the rate is told when to come back, and then accepted.

use std::time::Duration;

use tidings_client::connection::{ConnectError, Connection};
use tidings_protocol::{Codec, ErrorCode, ListClients, MessageId, Ping, SendMessage};
use tidings_tests::{Device, Identity, System, eventually};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_messages_at_once_are_enough() {
    let system = System::shared().await;
    let gateway = system.extra_gateway(&[("TIDINGS_RATE_LIMITS", "on")]).await;
    let alice = Identity::fresh("alice");
    let token = alice.token(&system.secret());
    let mut alice = Device::at(&gateway.ws, &alice, &token, Codec::Json).await;
    let mut bob = Device::on(system, 1, &Identity::fresh("bob"), Codec::Json).await;
    let chat_id = alice.direct_chat(&bob.user_id()).await;

    // A tenth of a second refills half a message, and a slow machine takes long for a hundred.
    let mut ids = Vec::new();
    for number in 0..100 {
        let id = alice.id();
        let message_id = MessageId(Uuid::new_v4());
        let message = number.to_string();
        alice
            .send(SendMessage {
                id,
                chat_id,
                message_id,
                message: message.clone(),
                attachments: vec![],
            })
            .await;
        ids.push((id, message_id, message));
    }
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (id, message_id, message) in ids {
        match alice.reply(id).await {
            Ok(_) => accepted.push(message),
            Err(error) => {
                assert_eq!((error.code, error.retryable), (ErrorCode::RateLimited, true));
                let wait = error.retry_after_ms.expect("when to come back");
                assert!((1..=300).contains(&wait), "{wait}");
                refused.push((message_id, message, wait));
            }
        }
    }
    assert!(accepted.len() >= 60, "{} were accepted", accepted.len());
    let (message_id, message, wait) = refused.swap_remove(0);
    // The one wait that is part of the contract.
    tokio::time::sleep(Duration::from_millis(wait)).await;
    alice
        .say_as(chat_id, message_id, &message)
        .await
        .expect("there is room again");
    accepted.push(message);
    for expected in accepted {
        assert_eq!(bob.message().await.message, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_questions_at_once_are_enough() {
    let system = System::shared().await;
    let gateway = system.extra_gateway(&[("TIDINGS_RATE_LIMITS", "on")]).await;
    let alice = Identity::fresh("alice");
    let token = alice.token(&system.secret());
    let mut alice = Device::at(&gateway.ws, &alice, &token, Codec::Json).await;
    // Eight are worked on at a time, each a question to Postgres: a machine that takes 100 ms for one refills one.
    let mut ids = Vec::new();
    for _ in 0..300 {
        let id = alice.id();
        alice.send(ListClients { id }).await;
        ids.push(id);
    }
    let mut refused = 0;
    for (number, id) in ids.into_iter().enumerate() {
        if let Err(error) = alice.reply(id).await {
            assert!(number >= 60, "the {number}th was refused");
            assert_eq!((error.code, error.retryable), (ErrorCode::RateLimited, true));
            let wait = error.retry_after_ms.expect("when to come back");
            assert!((1..=150).contains(&wait), "{wait}");
            refused += 1;
        }
    }
    assert!(refused > 0, "nothing was refused");
    let id = alice.id();
    alice.send(Ping { id }).await;
    alice.reply(id).await.expect("pings are not counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_too_many_without_hello_is_told_when_to_come_back() {
    let settings = [
        ("TIDINGS_RATE_LIMITS", "on"),
        ("TIDINGS_UNAUTHENTICATED_MAX", "1"),
    ];
    let gateway = System::shared().await.extra_gateway(&settings).await;
    let connect = || Connection::connect(&gateway.ws, Codec::Json, None);
    let silent = connect().await.expect("there is room for one");
    let refused = connect().await.err();
    let Some(ConnectError::Refused {
        status: 429,
        retry_after: Some(after),
        ..
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert!((1..=10).contains(&after.as_secs()), "{after:?}");
    drop(silent);
    eventually("there is room again", async || connect().await.map(drop)).await;
}
