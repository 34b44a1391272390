//! The raw connection against a scripted peer: what is on the wire, and how ends are told apart.

use futures::{SinkExt, StreamExt};
use tidings_client::connection::{ConnectError, Connection, Incoming};
use tidings_client::protocol::{ClientFrame, Codec, EncodedFrame, Ping, Reply, ServerFrame};
use tidings_client::tungstenite::Message;
use tidings_client::tungstenite::handshake::server::{Request, Response};
use tidings_client::tungstenite::protocol::CloseFrame;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;

/// Listens on a free port; the URL, and the first peer once it came, with its request's path and token.
async fn listen() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("a bound address"));
    (url, listener)
}

async fn accept(listener: &TcpListener) -> (WebSocketStream<TcpStream>, String, Option<String>) {
    let (tcp, _) = listener.accept().await.expect("a peer");
    let mut path = String::new();
    let mut bearer = None;
    #[expect(clippy::result_large_err, reason = "tungstenite's callback type")]
    let callback = |request: &Request, mut response: Response| {
        request.uri().path().clone_into(&mut path);
        let header = |name: &str| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
        bearer = header("authorization");
        let subprotocol = header("sec-websocket-protocol").expect("a subprotocol");
        let name = subprotocol.parse().expect("a header value");
        response.headers_mut().insert("sec-websocket-protocol", name);
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(tcp, callback)
        .await
        .expect("a handshake");
    (socket, path, bearer)
}

#[tokio::test]
async fn frames_travel_in_both_codecs_and_requests_find_their_replies() {
    for codec in Codec::ALL {
        let (url, listener) = listen().await;
        let peer = tokio::spawn(async move {
            let (mut socket, path, bearer) = accept(&listener).await;
            assert_eq!(path, "/v1/ws");
            assert_eq!(bearer.as_deref(), Some("Bearer secret"));
            let request = socket.next().await.expect("a frame").expect("no error");
            let frame = codec.decode_client(&request.into_data()).expect("a client frame");
            assert_eq!(frame, ClientFrame::from(Ping { id: 7 }));
            for reply in [Reply::success(6), Reply::success(7)] {
                let message = match codec.encode_server(&reply.into()) {
                    EncodedFrame::Text(text) => Message::text(text),
                    EncodedFrame::Binary(bytes) => Message::binary(bytes),
                };
                socket.send(message).await.expect("sent");
            }
            let reason = CloseFrame {
                code: 4409.into(),
                reason: "connected elsewhere".into(),
            };
            socket.close(Some(reason)).await.expect("closed");
            // The client's half of the handshake comes although it is not asked for anything more.
            while let Some(Ok(_)) = socket.next().await {}
        });
        let mut connection = Connection::connect(&url, codec, Some("secret"))
            .await
            .expect("connected");
        let reply = connection.request(&Ping { id: 7 }.into()).await.expect("a reply");
        assert_eq!(reply.id, Some(7));
        let earlier = connection.next().await.expect("the reply before");
        assert_eq!(earlier, Incoming::Frame(ServerFrame::Reply(Reply::success(6))));
        let closed = connection.next().await.expect_err("the close");
        assert_eq!(
            (closed.code, closed.reason.as_str()),
            (4409, "connected elsewhere")
        );
        peer.await.expect("the peer's checks");
    }
}

#[tokio::test]
async fn a_frame_of_a_newer_server_is_told_with_its_delivery() {
    let (url, listener) = listen().await;
    let peer = tokio::spawn(async move {
        let (mut socket, ..) = accept(&listener).await;
        for text in [
            r#"{"type":"poll","delivery":4,"question":"?"}"#,
            r#"{"type":"wave"}"#,
        ] {
            socket.send(Message::text(text)).await.expect("sent");
        }
        drop(socket);
    });
    let mut connection = Connection::connect(&url, Codec::Json, None)
        .await
        .expect("connected");
    assert_eq!(
        connection.next().await,
        Ok(Incoming::Unknown { delivery: Some(4) })
    );
    assert_eq!(connection.next().await, Ok(Incoming::Unknown { delivery: None }));
    assert_eq!(connection.next().await.expect_err("lost").code, 1006);
    peer.await.expect("the peer's checks");
}

#[tokio::test]
async fn what_is_not_a_gateway_is_said_plainly() {
    let nobody = Connection::connect("http://localhost", Codec::Json, None).await;
    assert!(matches!(nobody, Err(ConnectError::Url { .. })));
    let (url, listener) = listen().await;
    drop(listener);
    let nobody = Connection::connect(&url, Codec::Json, None).await;
    assert!(matches!(nobody, Err(ConnectError::Unreachable { .. })));
    let (url, listener) = listen().await;
    let peer = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("a peer");
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut tcp, answer)
            .await
            .expect("written");
        tokio::io::AsyncReadExt::read(&mut tcp, &mut [0; 1024]).await.ok();
        tcp
    });
    let refused = Connection::connect(&url, Codec::Json, None).await;
    assert!(
        matches!(&refused, Err(ConnectError::Refused { status: 503, retry_after: Some(after), .. }) if after.as_secs() == 3),
        "{:?}",
        refused.err()
    );
    peer.await.expect("the peer's checks");
}
