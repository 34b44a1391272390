//! The client that `docs/PROTOCOL.md` prints, as a stranger would run it.

use std::path::Path;
use std::process::Stdio;

use tidings_protocol::Codec;
use tidings_tests::{Device, Identity, PATIENCE, System};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn the_printed_client_talks() {
    if Command::new("node").arg("--version").output().await.is_err() && std::env::var_os("CI").is_none() {
        println!("not run: there is no node on PATH");
        return;
    }
    let system = System::shared().await;
    let (alice, bob) = (Identity::fresh("alice"), Identity::fresh("bob"));
    let mut bob_device = Device::on(system, 0, &bob, Codec::Postcard).await;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol/minimal-client.mjs");
    let mut client = Command::new("node")
        .args(["--experimental-websocket", "--no-warnings"])
        .arg(program)
        .args([
            system.ws(1),
            alice.token(&system.secret()),
            bob.user_id.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node runs");
    let mut typed = client.stdin.take().expect("piped");
    let mut printed = BufReader::new(client.stdout.take().expect("piped")).lines();
    let mut line = async || {
        tokio::time::timeout(PATIENCE, printed.next_line())
            .await
            .expect("the client prints something in time")
            .expect("a text")
            .expect("the client goes on")
    };

    typed.write_all(b"one\ntwo\n").await.expect("node reads");
    let first = bob_device.message().await;
    assert_eq!((first.user_id, first.message.as_str()), (alice.user_id, "one"));
    assert_eq!(line().await, format!("sent as {}", first.seq));
    let second = bob_device.message().await;
    assert_eq!(second.message, "two");
    assert_eq!(line().await, format!("sent as {}", second.seq));

    bob_device.say(first.chat_id, "three").await;
    assert_eq!(line().await, format!("{}: three", bob.user_id));
}
