//! What comes: handed over once, confirmed when the application has it.

use tidings_client::protocol::{CaughtUp, ChatKind, ChatUpdate, Codec, ServerFrame, Timestamp, You};
use tidings_client::tungstenite::Message;
use tidings_client::{Client, Content, Event};

use crate::support::{Gateway, delivery, event, lunch, message, seq, through, user};

#[tokio::test]
async fn what_comes_again_is_dropped_and_confirmed() {
    let gateway = Gateway::start().await;
    let (client, mut events) = gateway.connect();
    let mut session = gateway.welcome().await;
    for number in 1..=3 {
        session.say(message(number, number)).await;
    }
    let taken = delivery(&mut events).await;
    let held = delivery(&mut events).await;
    let let_go = delivery(&mut events).await;
    // Confirmed, but the connection breaks before it can be told.
    taken.confirm();
    drop(let_go);
    drop(session);

    let mut session = gateway.welcome().await;
    for number in 1..=4 {
        session.say(message(number, number)).await;
    }
    let again = delivery(&mut events).await;
    assert_eq!(seq(&again), 3, "let go without a word");
    let fresh = delivery(&mut events).await;
    assert_eq!(seq(&fresh), 4, "2 is still with the application");
    fresh.confirm();
    client.flush().await.expect("told");
    let one = |number| tidings_client::protocol::Received {
        delivery: Some(number),
        through: None,
    };
    assert_eq!(
        [session.received().await, session.received().await],
        [through(1), one(4)]
    );
    again.confirm();
    held.confirm();
    client.flush().await.expect("told");
    assert_eq!(session.received().await, through(3));
}

#[tokio::test]
async fn old_versions_and_unknown_frames_are_confirmed_and_not_shown() {
    let update = |delivery, version| ChatUpdate {
        delivery,
        chat_id: lunch(),
        seq: version,
        version,
        at: Timestamp(1),
        by: user("bob"),
        kind: ChatKind::Group,
        name: None,
        you: You::Member,
        added: Vec::new(),
        removed: Vec::new(),
        participants: Vec::new(),
    };
    let gateway = Gateway::start().await;
    let mut options = gateway.options();
    options.codec = Codec::Json;
    let (_client, mut events) = Client::connect(options).expect("connected");
    let mut session = gateway.welcome().await;
    session.say(update(1, 8)).await;
    session.say(update(2, 7)).await;
    session
        .send(Message::text(r#"{"type":"poll","delivery":3,"question":"?"}"#))
        .await;
    session.send(Message::text(r#"{"type":"wave"}"#)).await;
    session.say(update(4, 9)).await;
    for version in [8, 9] {
        let update = delivery(&mut events).await;
        assert!(matches!(update.content(), Content::Update(update) if update.version == version));
        update.confirm();
    }
    let mut told = 0;
    while told < 4 {
        told = session.received().await.through.expect("nothing is missing");
    }
}

#[tokio::test]
async fn an_application_that_does_not_read_makes_the_server_wait() {
    let gateway = Gateway::start().await;
    let mut options = gateway.options();
    options.codec = Codec::Json;
    let (client, mut events) = Client::connect(options).expect("connected");
    let mut session = gateway.accept().await;
    session.greet_with_pings(1).await;
    // Far more than is kept, from a server that minds no window.
    let flood = tokio::spawn(async move {
        for number in 1..=20_000 {
            session.say(message(number, number)).await;
        }
        session
    });
    // The client itself still listens to its application.
    client.flush().await.expect("heard");
    for expected in 1..=20_000 {
        let delivery = delivery(&mut events).await;
        assert_eq!(seq(&delivery), expected);
        delivery.confirm();
    }
    let mut session = flood.await.expect("no panic");
    let mut told = 0;
    while told < 20_000 {
        told = session.received().await.through.expect("nothing is missing");
    }
    let frame: ServerFrame = CaughtUp {}.into();
    session.say(frame).await;
    event(&mut events, |event| {
        matches!(event, Event::CaughtUp).then_some(())
    })
    .await;
}
