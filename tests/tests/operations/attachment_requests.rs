//! `docs/PROTOCOL.md`: the requests about attachments are made as they stand there, with the real curl, and answered as
//! it says.

use std::process::Stdio;

use serde_json::Value;
use tidings_protocol::{AttachmentId, CreateAttachment, MessageId, SendMessage};
use tidings_tests::{Device, Identity, PATIENCE, System};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;
use uuid::Uuid;

use crate::guide::examples;
use crate::shell::Shell;

const PAGE: &str = include_str!("../../../docs/PROTOCOL.md");
/// What is announced over the WebSocket and then PUT, and its SHA-256.
const DOG: &[u8] = b"not a puppy!";
const DOG_HASH: &str = "a9d4f66f1c919f28d7add48cb1e272e93a50e8f5135ad9195840fdfe43cb8143";
/// What the shell says between two examples.
const END: &str = "=== end of the example";

/// Whether a line is as the page shows it; `…` stands for whatever differs.
fn matches(shown: &str, line: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut whole = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        whole = part.is_empty();
        if whole {
            rest = "";
        }
    }
    whole || rest.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requests_of_the_page_are_answered_as_it_says() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let [bob, stranger] = ["bob", "eve"].map(Identity::fresh);
    let mut shell = Shell::without_nats(system);
    std::fs::write(shell.home().join("dog.png"), DOG).expect("the folder is writable");
    let id = alice.id();
    let frame = CreateAttachment {
        id,
        hash: DOG_HASH.to_owned(),
        size: DOG.len() as u64,
        content_type: "image/png".to_owned(),
        name: Some("dog.png".to_owned()),
    };
    let slot = alice.request(frame).await.expect("a slot");
    let attachment_id = slot.attachment_id.expect("its id");
    let media = system.up_file().media.expect("media runs");
    assert_eq!(
        slot.upload_url,
        Some(format!("{media}/v1/attachments/{attachment_id}"))
    );
    shell.set("SLOT", attachment_id.to_string());
    shell.set("MEDIA", media);
    let secret = system.secret();
    shell.set("TOKEN", alice.identity.token(&secret));
    shell.set("BOB_TOKEN", bob.token(&secret));
    shell.set("STRANGERS_TOKEN", stranger.token(&secret));

    // One shell, since what an example sets the next ones use.
    let mut run = shell
        .command("exec 2>&1; exec sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let mut input = run.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(run.stdout.take().expect("it is piped")).lines();
    let examples = examples(PAGE);
    assert_eq!(examples.len(), 6, "the examples of PROTOCOL.md");
    let mut sent = false;
    for example in &examples {
        if example.script.contains("$BOB_TOKEN") && !sent {
            sent = true;
            send_to(&mut alice, &bob, &shell).await;
        }
        let script = format!("{}\necho '{END}'\n", example.script);
        input.write_all(script.as_bytes()).await.expect("the shell reads");
        let mut printed = Vec::new();
        loop {
            let next = timeout(PATIENCE, lines.next_line())
                .await
                .expect("curl comes to its end");
            match next.expect("it prints text") {
                Some(line) if line == END => break,
                Some(line) => printed.push(line),
                None => panic!("the shell ended: {printed:?}"),
            }
        }
        // Bodies end without a line's end.
        printed.retain(|line| !line.is_empty());
        let same = printed.len() == example.output.len()
            && printed
                .iter()
                .zip(&example.output)
                .all(|(line, shown)| matches(shown, line));
        assert!(
            same,
            "{}\nprinted {printed:#?}\nbut the page shows {:#?}",
            example.script, example.output
        );
    }
    assert!(sent);
}

/// The message that lets bob read what was posted.
async fn send_to(alice: &mut Device, bob: &Identity, shell: &Shell) {
    let posted = std::fs::read_to_string(shell.home().join("posted.json")).expect("it was posted");
    let posted: Value = serde_json::from_str(posted.lines().next().expect("a body")).expect("JSON");
    let posted: AttachmentId = posted["attachmentId"]
        .as_str()
        .expect("its id")
        .parse()
        .expect("a UUID");
    let chat_id = alice.direct_chat(&bob.user_id).await;
    let id = alice.id();
    let message = SendMessage {
        id,
        chat_id,
        message_id: MessageId(Uuid::new_v4()),
        message: String::new(),
        attachments: vec![posted],
    };
    alice.request(message).await.expect("sent");
}

#[test]
fn lines_are_compared_but_for_what_differs() {
    assert!(matches("204", "204") && !matches("204", "2040") && !matches("204", "20"));
    assert!(matches("{\"a\":\"…\",\"b\":1}", "{\"a\":\"xyz\",\"b\":1}"));
    assert!(!matches("{\"a\":\"…\",\"b\":1}", "{\"a\":\"xyz\",\"b\":12}"));
    assert!(
        matches("policy: …sandbox…", "policy: a; sandbox; b") && !matches("policy: …sandbox…", "policy: a")
    );
}
