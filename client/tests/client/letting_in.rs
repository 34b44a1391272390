//! Tokens, and too many clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidings_client::protocol::{
    ClientFrame, ClientId, ClientInfo, Error, ErrorCode, Reply, Timestamp, TokenExpiring,
};
use tidings_client::{Client, Event, Stopped, TokenReason, Tokens};
use uuid::Uuid;

use crate::support::{Gateway, event, failure};

#[tokio::test]
async fn tokens_are_renewed_before_they_expire_and_after_they_are_refused() {
    let gateway = Gateway::start().await;
    let asked = Arc::new(AtomicU32::new(0));
    let mut options = gateway.options();
    let count = Arc::clone(&asked);
    options.tokens = Tokens::new(move |reason| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let expected = [TokenReason::First, TokenReason::Expiring, TokenReason::Refused];
        assert_eq!(reason, expected[number as usize - 1]);
        std::future::ready(Ok(format!("token-{number}")))
    });
    let (_client, _events) = Client::connect(options).expect("connected");
    let mut session = gateway.welcome().await;
    assert_eq!(session.bearer, "Bearer token-1");
    let expires_at = Timestamp(60_000);
    session.say(TokenExpiring { expires_at }).await;
    let ClientFrame::RenewToken(renewal) = session.next().await else {
        panic!("something else");
    };
    assert_eq!(renewal.token, "token-2");
    let renewed = Reply {
        token_expires_at: Some(Timestamp(7_200_000)),
        ..Reply::success(renewal.id)
    };
    session.say(renewed).await;
    drop(session);
    // What was renewed is presented, and not asked for again.
    let session = gateway.welcome().await;
    assert_eq!(session.bearer, "Bearer token-2");
    session.close(4401).await;
    let session = gateway.welcome().await;
    assert_eq!(session.bearer, "Bearer token-3");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_refused_token_without_another_ends_it() {
    let gateway = Gateway::start().await;
    let (_client, mut events) = gateway.connect();
    let mut session = gateway.accept().await;
    let hello = session.hello().await;
    session
        .say(failure(hello.id, Error::new(ErrorCode::TokenExpired, "old")))
        .await;
    let stopped = event(&mut events, |event| match event {
        Event::Stopped(reason) => Some(reason),
        _ => None,
    });
    assert!(matches!(stopped.await, Stopped::Unauthorized(_)));
}

#[tokio::test]
async fn the_application_chooses_which_client_goes() {
    let gateway = Gateway::start().await;
    let tablet = ClientId(Uuid::from_u128(7));
    let (client, mut events) = gateway.connect();
    let mut session = gateway.accept().await;
    let too_many = |id| {
        let mut error = Error::new(ErrorCode::TooManyClients, "three already");
        error.clients = Some(vec![ClientInfo {
            client_id: tablet,
            name: None,
            last_seen: Timestamp(1),
            online: false,
        }]);
        failure(id, error)
    };
    let hello = session.hello().await;
    session.say(too_many(hello.id)).await;
    let choice = event(&mut events, |event| match event {
        Event::TooManyClients(clients) => Some(clients),
        _ => None,
    });
    let choice = choice.await;
    assert_eq!(choice[0].client_id, tablet);
    // The server waits for a minute, the person for longer: the choice makes a new connection.
    session.close(4408).await;
    client.replace(tablet).await.expect("heard");
    let mut session = gateway.accept().await;
    let hello = session.hello().await;
    assert_eq!(hello.replace, None, "there may be room by now");
    session.say(too_many(hello.id)).await;
    let hello = session.greet().await;
    assert_eq!(hello.replace, Some(tablet));
    event(&mut events, |event| {
        matches!(event, Event::Connected(_)).then_some(())
    })
    .await;
}
