//! Whose a connection is, and how many one address may have.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::System;

const REQUEST: &[u8] = b"GET /v1/attachments/x HTTP/1.1\r\nHost: x\r\n\r\n";

/// A connection that the load balancer says is of this client.
async fn connect(media: &str, client: [u8; 4]) -> TcpStream {
    let address: SocketAddr = media.trim_start_matches("http://").parse().expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let [a, b, c, d] = client;
    let addresses = [a, b, c, d, 192, 0, 2, 1, 156, 65, 1, 187];
    let header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat();
    stream.write_all(&header).await.expect("it is written");
    stream
}

/// The first line of the answer. Nothing if the connection was closed.
async fn ask(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 4096];
    // A connection that was closed may be reset at the writing or at the reading.
    let _ = stream.write_all(REQUEST).await;
    let read = stream.read(&mut bytes).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[..read]);
    text.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_as_many_connections_as_it_may() {
    let system = System::start().await;
    let settings = ["--proxy-protocol=required", "--connections-per-address-max=2"];
    let media = system.media(&settings).await;
    let (alice, bob) = ([203, 0, 113, 7], [203, 0, 113, 8]);
    let mut first = connect(&media.url, alice).await;
    let mut second = connect(&media.url, alice).await;
    assert_eq!(ask(&mut first).await, "HTTP/1.1 401 Unauthorized");
    assert_eq!(ask(&mut second).await, "HTTP/1.1 401 Unauthorized");
    assert_eq!(ask(&mut connect(&media.url, alice).await).await, "", "the third");
    let mut other = connect(&media.url, bob).await;
    assert_eq!(ask(&mut other).await, "HTTP/1.1 401 Unauthorized", "of another");
    drop(first);
    crate::support::until("the place of the first is free", async || {
        let answer = ask(&mut connect(&media.url, alice).await).await;
        (answer == "HTTP/1.1 401 Unauthorized").then_some(())
    })
    .await;
    media.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_header_nobody_is_served() {
    let system = System::start().await;
    let media = system.media(&["--proxy-protocol=required"]).await;
    let address = media.url.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("it listens");
    assert_eq!(ask(&mut stream).await, "");
    let waiting = TcpStream::connect(&address).await.expect("it listens");
    // This one was accepted after it.
    assert!(
        !ask(&mut connect(&media.url, [203, 0, 113, 7]).await)
            .await
            .is_empty()
    );
    let stop = tokio::time::timeout(Duration::from_secs(4), media.stop());
    stop.await.expect("a stop does not wait for headers");
    drop(waiting);
}
