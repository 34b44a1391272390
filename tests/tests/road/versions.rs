//! Clients of later versions: they name what they speak, and the gateway takes what it knows of it.

use tidings_tests::System;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The status and the subprotocol of the answer to a handshake that names these.
async fn handshake(system: &System, named: Option<&str>) -> (String, Option<String>) {
    let url = system.ws(0);
    let address = url.trim_start_matches("ws://").split('/').next().expect("a host");
    let mut socket = TcpStream::connect(address).await.expect("the gateway listens");
    let named = named.map_or_else(String::new, |named| {
        format!("Sec-WebSocket-Protocol: {named}\r\n")
    });
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{named}\r\n"
    );
    socket
        .write_all(request.as_bytes())
        .await
        .expect("it can be sent");
    let mut answer = Vec::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = tokio::time::timeout(tidings_tests::PATIENCE, socket.read_buf(&mut answer)).await;
        assert_ne!(
            read.expect("an answer in time").expect("an answer"),
            0,
            "the gateway hung up"
        );
    }
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    let status = answer.split(' ').nth(1).expect("a status").to_owned();
    let header = answer
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-protocol:"));
    (status, header.map(|name| name.trim().to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_later_and_known_subprotocols_a_known_one_is_spoken() {
    let system = System::shared().await;
    for (named, taken) in [
        (
            Some("tidings.v9.postcard, tidings.v1.postcard"),
            Some("tidings.v1.postcard"),
        ),
        (Some("tidings.v2.json, tidings.v1.json"), Some("tidings.v1.json")),
        // Nothing in common: the client sees that none was taken, and leaves.
        (Some("tidings.v9.postcard"), None),
        (None, None),
    ] {
        let expected = ("101".to_owned(), taken.map(str::to_owned));
        assert_eq!(handshake(system, named).await, expected, "{named:?}");
    }
}
