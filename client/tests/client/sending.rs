//! What is sent: once, in order, until it is answered.

use tidings_client::protocol::{CaughtUp, ClientFrame, Codec, Error, ErrorCode, Operation, Reply};
use tidings_client::{Client, Event, RequestError, State, Stopped};

use crate::support::{Gateway, delivery, event, failure, lunch, message, seq, through, user};

#[tokio::test]
async fn messages_go_out_and_come_in_and_are_confirmed_when_the_application_has_them() {
    for codec in Codec::ALL {
        let gateway = Gateway::start().await;
        let mut options = gateway.options();
        options.codec = codec;
        options.name = Some("Pixel".to_owned());
        let (client, mut events) = Client::connect(options).expect("connected");
        let mut session = gateway.accept().await;
        assert_eq!(session.bearer, "Bearer token");
        let hello = session.greet().await;
        assert_eq!(
            (hello.name.as_deref(), hello.token, hello.replace),
            (Some("Pixel"), None, None)
        );

        let sending = client.send(lunch(), "hi").await.expect("queued");
        let sent = session.message().await;
        assert_eq!(
            (sent.message.as_str(), sent.message_id),
            ("hi", sending.message_id())
        );
        session.accept(&sent, 41).await;
        assert_eq!(sending.accepted().await.expect("accepted").seq, 41);

        for number in 1..=3 {
            session.say(message(number, 50 + number)).await;
        }
        session.say(CaughtUp {}).await;
        let [first, second, third] = [
            delivery(&mut events).await,
            delivery(&mut events).await,
            delivery(&mut events).await,
        ];
        assert_eq!([&first, &second, &third].map(seq), [51, 52, 53]);
        event(&mut events, |event| {
            matches!(event, Event::CaughtUp).then_some(())
        })
        .await;
        first.confirm();
        second.confirm();
        client.flush().await.expect("told");
        assert_eq!(session.received().await, through(2));
        third.confirm();
        assert_eq!(session.received().await, through(3));

        let ((), unread) = tokio::join!(client.close(), session.ended());
        assert_eq!(client.state(), State::Stopped(Stopped::ByApplication));
        assert_eq!(unread, []);
        event(&mut events, |event| {
            matches!(event, Event::Stopped(Stopped::ByApplication)).then_some(())
        })
        .await;
        assert!(events.next().await.is_none());
    }
}

#[tokio::test]
async fn what_was_under_way_when_the_connection_broke_is_sent_again_as_the_same() {
    let gateway = Gateway::start().await;
    let (client, _events) = gateway.connect();
    let mut session = gateway.welcome().await;
    let first = client.send(lunch(), "first").await.expect("queued");
    let second = client.send(lunch(), "second").await.expect("queued");
    let sent = session.message().await;
    drop(session);

    let mut session = gateway.welcome().await;
    let again = session.message().await;
    assert_eq!(
        (again.message_id, again.message.as_str()),
        (sent.message_id, "first")
    );
    let duplicate = Reply {
        seq: Some(7),
        duplicate: Some(true),
        ..Reply::success(again.id)
    };
    session.say(duplicate).await;
    assert!(first.accepted().await.expect("accepted").duplicate);
    let next = session.message().await;
    assert_eq!(next.message, "second");
    session.accept(&next, 8).await;
    assert_eq!(second.accepted().await.expect("accepted").seq, 8);
}

#[tokio::test]
async fn weather_is_waited_out_in_order_and_refusals_surface() {
    let gateway = Gateway::start().await;
    let (client, mut events) = gateway.connect();
    let mut session = gateway.welcome().await;
    let first = client.send(lunch(), "first").await.expect("queued");
    let second = client.send(lunch(), "second").await.expect("queued");
    let mut ids = Vec::new();
    for code in [
        ErrorCode::Unavailable,
        ErrorCode::RateLimited,
        ErrorCode::ChatBusy,
    ] {
        let sent = session.message().await;
        assert_eq!(sent.message, "first");
        ids.push(sent.message_id);
        session
            .say(failure(
                sent.id,
                Error::new(code.clone(), "wait").retry_after_ms(5),
            ))
            .await;
        let delayed = event(&mut events, |event| match event {
            Event::Delayed { error, .. } => Some(error.code),
            _ => None,
        });
        assert_eq!(delayed.await, code);
    }
    let sent = session.message().await;
    ids.push(sent.message_id);
    ids.dedup();
    assert_eq!(ids.len(), 1, "always the same messageId");
    session.accept(&sent, 1).await;
    first.accepted().await.expect("accepted at last");
    let sent = session.message().await;
    session
        .say(failure(sent.id, Error::new(ErrorCode::NotAParticipant, "no")))
        .await;
    let refused = second.accepted().await.expect_err("refused");
    assert!(matches!(refused, RequestError::Refused(error) if error.code == ErrorCode::NotAParticipant));

    let changing = tokio::spawn({
        let client = client.clone();
        async move { client.modify(lunch(), user("dave"), Operation::Add).await }
    });
    let ClientFrame::ModifyChatParticipants(asked) = session.next().await else {
        panic!("something else");
    };
    session
        .say(failure(
            asked.id,
            Error::new(ErrorCode::Unavailable, "").retry_after_ms(1),
        ))
        .await;
    let ClientFrame::ModifyChatParticipants(again) = session.next().await else {
        panic!("something else");
    };
    assert_eq!(again.request_id, asked.request_id);
    let done = Reply {
        seq: Some(9),
        changed: Some(true),
        ..Reply::success(again.id)
    };
    session.say(done).await;
    assert!(changing.await.expect("no panic").expect("done").changed);
}

#[tokio::test]
async fn mistakes_do_not_reach_the_network_and_the_outbox_is_bounded() {
    let gateway = Gateway::start().await;
    let mut options = gateway.options();
    options.outbox_max = 1;
    let (client, _events) = Client::connect(options).expect("connected");
    let empty = client.send(lunch(), "").await.expect_err("empty");
    assert!(matches!(empty, RequestError::Refused(error) if error.code == ErrorCode::BadRequest));
    let _first = client
        .send(lunch(), "first")
        .await
        .expect("queued without a connection");
    let full = client.send(lunch(), "second").await.expect_err("full");
    assert_eq!(full, RequestError::OutboxFull { max: 1 });
}
