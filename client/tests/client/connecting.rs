//! How a client finds a gateway, keeps it, and comes back.

use std::time::{Duration, Instant};

use tidings_client::protocol::{Closing, ErrorCode};
use tidings_client::tungstenite::Message;
use tidings_client::{Client, Event, RequestError, Stopped};

use crate::support::{Gateway, event, lunch};

#[tokio::test]
async fn a_restarting_gateway_is_left_alone_as_long_as_it_asks() {
    let gateway = Gateway::start().await;
    let (_client, mut events) = gateway.connect();
    let mut session = gateway.welcome().await;
    session
        .say(Closing {
            code: ErrorCode::Unavailable,
            reconnect: true,
            retry_after_ms: Some(700),
        })
        .await;
    session.close(1012).await;
    let closed = Instant::now();
    let retry_in = event(&mut events, |event| match event {
        Event::Disconnected { retry_in, .. } => Some(retry_in),
        _ => None,
    });
    assert!(retry_in.await >= Duration::from_millis(700));
    gateway.welcome().await;
    assert!(closed.elapsed() >= Duration::from_millis(650));
}

#[tokio::test]
async fn the_next_gateway_is_tried_when_one_does_not_answer() {
    let gateway = Gateway::start().await;
    let gone = Gateway::start().await.url;
    let mut options = gateway.options();
    options.urls = vec![gone, gateway.url.clone()];
    let (_client, _events) = Client::connect(options).expect("connected");
    gateway.welcome().await;
}

#[tokio::test]
async fn terminal_codes_end_it_and_say_why() {
    for (code, reason) in [
        (4409, Stopped::Replaced),
        (4403, Stopped::Forbidden("closed with 4403".to_owned())),
        (4400, Stopped::Protocol("closed with 4400".to_owned())),
        (4413, Stopped::Protocol("closed with 4413".to_owned())),
    ] {
        let gateway = Gateway::start().await;
        let (client, mut events) = gateway.connect();
        let session = gateway.welcome().await;
        let sending = client.send(lunch(), "hi").await.expect("queued");
        session.close(code).await;
        let stopped = event(&mut events, |event| match event {
            Event::Stopped(reason) => Some(reason),
            _ => None,
        });
        assert_eq!(stopped.await, reason);
        assert_eq!(
            sending.accepted().await,
            Err(RequestError::Stopped(reason.clone()))
        );
        assert_eq!(client.chats().await, Err(RequestError::Stopped(reason)));
    }
}

#[tokio::test]
async fn a_silent_server_is_pinged_and_then_given_up() {
    let gateway = Gateway::start().await;
    let (_client, mut events) = gateway.connect();
    let mut session = gateway.accept().await;
    session.greet_with_pings(1).await;
    let greeted = Instant::now();
    // Reading answers the ping, which is a sign of life.
    assert!(matches!(session.raw().await, Message::Ping(_)));
    assert!(greeted.elapsed() >= Duration::from_millis(900));
    let lost = event(&mut events, |event| match event {
        Event::Disconnected { ending, .. } => Some(ending.to_string()),
        _ => None,
    });
    assert_eq!(lost.await, "the server has been silent for 2 s");
    gateway.welcome().await;
}

#[tokio::test]
async fn letting_go_of_the_client_closes_it() {
    let gateway = Gateway::start().await;
    let (client, events) = gateway.connect();
    let session = gateway.welcome().await;
    drop(client);
    session.ended().await;
    drop(events);
    let (client, events) = gateway.connect();
    let session = gateway.welcome().await;
    drop(events);
    session.ended().await;
    assert!(matches!(
        client.chats().await,
        Err(RequestError::Stopped(Stopped::ByApplication))
    ));
}
