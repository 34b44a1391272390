//! What a memory on disk is for.

use tidings_client::protocol::ClientFrame;
use tidings_client::{Client, DiskStore, Event, RequestError, Stopped};

use crate::support::{Gateway, delivery, event, lunch, message, phone, seq, through, user};

#[tokio::test]
async fn an_application_that_starts_again_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("alice-phone.redb");
    let gateway = Gateway::start().await;
    let options = || {
        let mut options = gateway.options();
        options.store = Box::new(DiskStore::open(&path).expect("opened"));
        options
    };
    let (client, mut events) = Client::connect(options()).expect("connected");
    let mut session = gateway.welcome().await;
    session.say(message(1, 1)).await;
    delivery(&mut events).await.confirm();
    assert_eq!(session.received().await, through(1));
    let sending = client.send(lunch(), "first").await.expect("queued");
    client.send(lunch(), "second").await.expect("queued");
    let sent = session.message().await;
    assert!(DiskStore::open(&path).is_err(), "one program at a time");
    tokio::join!(client.close(), session.ended());
    assert_eq!(
        sending.accepted().await,
        Err(RequestError::Stopped(Stopped::ByApplication))
    );

    let (client, mut events) = Client::connect(options()).expect("connected");
    assert_eq!(client.pending().await.expect("told").len(), 2);
    let mut session = gateway.welcome().await;
    let again = session.message().await;
    assert_eq!(
        (again.message_id, again.message.as_str()),
        (sent.message_id, "first")
    );
    session.accept(&again, 5).await;
    let settled = event(&mut events, |event| match event {
        Event::Settled { request, result } => Some((request, result)),
        _ => None,
    });
    let (request, result) = settled.await;
    assert!(matches!(*request, ClientFrame::SendMessage(message) if message.message == "first"));
    assert_eq!(result.expect("accepted").seq, Some(5));
    session.say(message(1, 1)).await;
    session.say(message(2, 2)).await;
    // Its own message, which a server that has forgotten it might send.
    let mut own = message(3, 6);
    (own.client_id, own.message_id) = (phone(), sent.message_id);
    session.say(own).await;
    let next = delivery(&mut events).await;
    assert_eq!(seq(&next), 2, "1 is known");
    next.confirm();
    let _second = session.message().await;
    let mut told = 0;
    while told < 3 {
        told = session.received().await.through.expect("nothing is missing");
    }
    tokio::join!(client.close(), session.ended());

    let (client, _events) = Client::connect(options()).expect("connected");
    let pending = client.pending().await.expect("told");
    assert!(matches!(&pending[..], [ClientFrame::SendMessage(message)] if message.message == "second"));
}

#[tokio::test]
async fn a_memory_of_somebody_else_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("memory.redb");
    let gateway = Gateway::start().await;
    for user_id in ["alice", "bob"] {
        let mut options = gateway.options();
        options.store = Box::new(DiskStore::open(&path).expect("opened"));
        let (client, mut events) = Client::connect(options).expect("connected");
        let mut session = gateway.accept().await;
        let hello = session.hello().await;
        let mut welcome = crate::support::welcome(hello.id, tidings_client::protocol::Limits::default());
        welcome.user_id = user(user_id);
        session.say(welcome).await;
        let closing = tokio::spawn(session.ended());
        let refused = event(&mut events, |event| match event {
            Event::Connected(_) => Some(false),
            Event::Stopped(Stopped::Store(_)) => Some(true),
            _ => None,
        });
        assert_eq!(refused.await, user_id == "bob");
        client.close().await;
        closing.await.expect("no panic");
    }
}
