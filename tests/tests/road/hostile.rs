//! Whatever comes in: the documented answer, and nobody else notices.

use tidings_client::connection::{Connection, Incoming};
use tidings_client::tungstenite::protocol::frame::Frame;
use tidings_client::tungstenite::protocol::frame::coding::{Data, OpCode};
use tidings_client::tungstenite::{Bytes, Message};
use tidings_protocol::{CloseCode, Codec, EncodedFrame, Error, ErrorCode, ServerFrame, Status};
use tidings_tests::{Device, Identity, System, sign};

async fn connect(system: &System, codec: Codec) -> Connection {
    Connection::connect(&system.ws(0), codec, None)
        .await
        .expect("the gateway accepts sockets")
}

async fn frame(connection: &mut Connection) -> ServerFrame {
    match tokio::time::timeout(tidings_tests::PATIENCE, connection.next()).await {
        Ok(Ok(Incoming::Frame(frame))) => frame,
        other => panic!("expected a frame, not {other:?}"),
    }
}

/// The number and error of the next reply, which is a FAILURE.
async fn failure(connection: &mut Connection) -> (Option<u64>, Error) {
    match frame(connection).await {
        ServerFrame::Reply(reply) if reply.status == Status::Failure => {
            (reply.id, reply.error.expect("an error"))
        }
        other => panic!("expected a FAILURE, not {other:?}"),
    }
}

/// The codes of the closing frame and of the close.
async fn closing(connection: &mut Connection) -> (ErrorCode, Option<CloseCode>) {
    let code = match frame(connection).await {
        ServerFrame::Closing(closing) => closing.code,
        other => panic!("expected closing, not {other:?}"),
    };
    let closed = tokio::time::timeout(tidings_tests::PATIENCE, connection.next()).await;
    let closed = closed
        .expect("closing is followed by a close")
        .expect_err("nothing follows closing");
    (code, closed.close_code())
}

fn text(text: impl Into<String>) -> EncodedFrame {
    EncodedFrame::Text(text.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_frames_get_an_answer_and_the_connection_stays() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let deep = format!(
        "{{\"type\":\"ping\",\"id\":7,\"x\":{}{}}}",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let chat = r#""chatId":"018f4e2a-7c3b-7a10-8000-000000000001""#;
    for (sent, id, code, field) in [
        ("", None, ErrorCode::BadFrame, None),
        ("hello", None, ErrorCode::BadFrame, None),
        ("[1,2]", None, ErrorCode::BadFrame, None),
        ("{\"id\":1", None, ErrorCode::BadFrame, None),
        (r#"{"id":3}"#, Some(3), ErrorCode::BadFrame, Some("type")),
        (
            r#"{"type":"dance","id":4}"#,
            Some(4),
            ErrorCode::UnknownType,
            Some("type"),
        ),
        (r#"{"type":5,"id":4}"#, Some(4), ErrorCode::BadFrame, Some("type")),
        (r#"{"type":"ping"}"#, None, ErrorCode::BadRequest, Some("id")),
        (
            r#"{"type":"ping","id":"5"}"#,
            None,
            ErrorCode::BadRequest,
            Some("id"),
        ),
        (
            r#"{"type":"ping","id":-5}"#,
            None,
            ErrorCode::BadRequest,
            Some("id"),
        ),
        (
            r#"{"type":"getChat","id":6,"chatId":"nonsense"}"#,
            Some(6),
            ErrorCode::BadRequest,
            Some("chatId"),
        ),
        (
            r#"{"type":"getChat","id":6}"#,
            Some(6),
            ErrorCode::BadRequest,
            Some("chatId"),
        ),
        (
            r#"{"type":"createChat","id":8,"requestId":"018f4e2a-7c3b-7a10-8000-000000000001","participants":["a",3]}"#,
            Some(8),
            ErrorCode::BadRequest,
            Some("participants[1]"),
        ),
        (
            r#"{"type":"received"}"#,
            None,
            ErrorCode::BadRequest,
            Some("delivery"),
        ),
    ] {
        let connection = alice.connection();
        connection
            .send_raw(text(sent))
            .await
            .expect("the connection is open");
        let (answered, error) = failure(connection).await;
        assert_eq!(
            (answered, error.code, error.field.as_deref()),
            (id, code, field),
            "{sent}"
        );
    }
    let modify = format!(
        r#"{{"type":"modifyChatParticipants","id":9,"requestId":"018f4e2a-7c3b-7a10-8000-000000000001",{chat},"userId":"x","operation":"PROMOTE"}}"#
    );
    alice
        .connection()
        .send_raw(text(modify))
        .await
        .expect("the connection is open");
    let (id, error) = failure(alice.connection()).await;
    assert_eq!(
        (id, error.code, error.field.as_deref()),
        (Some(9), ErrorCode::BadRequest, Some("operation"))
    );
    // What is not known is ignored, however deep it is.
    alice
        .connection()
        .send_raw(text(deep))
        .await
        .expect("the connection is open");
    assert!(matches!(frame(alice.connection()).await, ServerFrame::Reply(reply) if reply.id == Some(7)));
    // A second hello is refused; nothing was lost over all this.
    let token = alice.identity.token(&system.secret());
    let hello = format!(r#"{{"type":"hello","id":10,"token":"{token}"}}"#);
    alice
        .connection()
        .send_raw(text(hello))
        .await
        .expect("the connection is open");
    assert_eq!(failure(alice.connection()).await.1.code, ErrorCode::NotHello);
    alice.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_ends_the_connection_and_nobody_else_notices() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let mut bob = Device::fresh(system, "bob").await;
    let chat_id = alice.direct_chat(&bob.user_id()).await;

    let not_utf8 = Message::Frame(Frame::message(
        vec![b'"', 0xff, 0xfe],
        OpCode::Data(Data::Text),
        true,
    ));
    let huge = Message::Text("x".repeat(10 << 20).into());
    let wrong_kind = Message::Binary(Bytes::from_static(b"\x0a\x01"));
    for (message, code) in [
        (not_utf8, CloseCode::NotTidings),
        (wrong_kind, CloseCode::NotTidings),
        (huge, CloseCode::FrameTooLarge),
    ] {
        for welcomed in [false, true] {
            let mut device = None;
            let mut bare = None;
            let connection = if welcomed {
                device.insert(Device::fresh(system, "hostile").await).connection()
            } else {
                bare.insert(connect(system, Codec::Json).await)
            };
            // The socket may be closed while ten megabytes are still being written.
            let _ = connection.send_message(message.clone()).await;
            let mut heard = None;
            let closed = loop {
                match tokio::time::timeout(tidings_tests::PATIENCE, connection.next())
                    .await
                    .expect("it is closed")
                {
                    Ok(Incoming::Frame(ServerFrame::Closing(closing))) => heard = Some(closing),
                    Ok(_) => {}
                    Err(closed) => break closed,
                }
            };
            // Who never reads what is on its way may only see the reset.
            if let Some(closed) = closed.close_code() {
                assert_eq!(closed, code);
                assert!(heard.is_some_and(|closing| !closing.reconnect));
            } else {
                assert_eq!(code, CloseCode::FrameTooLarge, "{closed}");
            }
        }
    }
    alice.say(chat_id, "still here").await;
    assert_eq!(bob.message().await.message, "still here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hello_comes_first_and_within_ten_seconds() {
    let system = System::shared().await;
    let mut impatient = connect(system, Codec::Json).await;
    impatient
        .send_raw(text(r#"{"type":"ping","id":1}"#))
        .await
        .expect("the connection is open");
    let (id, error) = failure(&mut impatient).await;
    assert_eq!((id, error.code), (Some(1), ErrorCode::NotHello));
    assert_eq!(
        closing(&mut impatient).await,
        (ErrorCode::NotHello, Some(CloseCode::Timeout))
    );

    let mut chatterbox = connect(system, Codec::Postcard).await;
    for _ in 0..16 {
        chatterbox
            .send_raw(EncodedFrame::Binary(vec![0xff]))
            .await
            .expect("the connection is open");
        failure(&mut chatterbox).await;
    }
    assert_eq!(
        closing(&mut chatterbox).await,
        (ErrorCode::NotHello, Some(CloseCode::NotTidings))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_not_good_are_refused() {
    let system = System::shared().await;
    let secret = system.secret();
    let identity = Identity::fresh("alice");
    let (sub, client) = (&identity.user_id, identity.client_id);
    let exp = i64::MAX >> 12;
    let without_client = sign(&secret, &serde_json::json!({ "sub": sub, "exp": exp }));
    let without_exp = sign(&secret, &serde_json::json!({ "sub": sub, "client": client }));
    let forged = identity.token("a secret that nobody configured, long enough");
    for (token, code) in [
        (identity.token_for(&secret, -60), ErrorCode::TokenExpired),
        (forged, ErrorCode::Unauthorized),
        (without_client, ErrorCode::Unauthorized),
        (without_exp, ErrorCode::Unauthorized),
        ("rubbish".to_owned(), ErrorCode::Unauthorized),
    ] {
        let mut connection = connect(system, Codec::Json).await;
        let hello = serde_json::json!({ "type": "hello", "id": 1, "token": token });
        connection
            .send_raw(text(hello.to_string()))
            .await
            .expect("the connection is open");
        let (id, error) = failure(&mut connection).await;
        assert_eq!(
            (id, &error.code, error.field.as_deref()),
            (Some(1), &code, Some("token"))
        );
        assert!(!error.message.contains(&token), "the token must not be repeated");
        assert_eq!(
            closing(&mut connection).await,
            (code, Some(CloseCode::Unauthorized))
        );
    }
    let mut connection = connect(system, Codec::Json).await;
    connection
        .send_raw(text(r#"{"type":"hello","id":1}"#))
        .await
        .expect("the connection is open");
    assert_eq!(failure(&mut connection).await.1.code, ErrorCode::Unauthorized);

    // In the header of the upgrade it is as good as in hello.
    let token = identity.token(&secret);
    let bearer = Connection::connect(&system.ws(0), Codec::Json, Some(&token)).await;
    let mut bearer = bearer.expect("the gateway accepts sockets");
    bearer
        .send_raw(text(r#"{"type":"hello","id":1}"#))
        .await
        .expect("the connection is open");
    assert!(
        matches!(frame(&mut bearer).await, ServerFrame::Welcome(welcome) if welcome.user_id == identity.user_id)
    );
}
