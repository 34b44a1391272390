//! `docs/OPERATIONS.md`: its commands are run as they stand, and what it shows of their output is there.

use std::process::Stdio;

use tidings_nats::Inbox;
use tidings_protocol::{ClientId, UserId};
use tidings_tests::{Stored, System, eventually};
use tokio::io::AsyncWriteExt as _;

use crate::shell::Shell;

/// The guide.
pub(crate) const GUIDE: &str = include_str!("../../../docs/OPERATIONS.md");
/// The device of bob that `tidings chat` is; made from his name and the device's.
const BOB: &str = "35eaa237-c80e-55bd-a375-36c41cc2a982";

/// A command that the guide shows, and what it prints.
pub(crate) struct Example {
    pub(crate) script: String,
    pub(crate) output: Vec<String>,
}

/// The blocks marked `sh test`, each with the `text` block that follows it.
pub(crate) fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut block: Option<(&str, Vec<String>)> = None;
    for line in page.lines() {
        block = match (block, line.strip_prefix("```")) {
            (None, Some(kind)) => Some((kind, Vec::new())),
            (None, None) => None,
            (Some((kind, lines)), Some(_)) => {
                match (kind, examples.last_mut()) {
                    ("sh test", _) => examples.push(Example {
                        script: lines.join("\n"),
                        output: Vec::new(),
                    }),
                    ("text", Some(example)) if example.output.is_empty() => example.output = lines,
                    _ => {}
                }
                None
            }
            (Some((kind, mut lines)), None) => {
                lines.push(line.to_owned());
                Some((kind, lines))
            }
        };
    }
    examples
}

/// A line without what differs at each run: numbers, ids, moments, the width of columns.
fn normal(line: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let varies = word.contains(|letter: char| letter.is_ascii_digit()) || word.len() > 20;
        match (varies, words.last()) {
            (true, Some(&"#")) => {}
            (true, _) => words.push("#"),
            (false, _) => words.push(word),
        }
    }
    words.join(" ")
}

/// The lines that the guide shows and the output has not.
fn missing(example: &Example, printed: &str) -> Vec<String> {
    let printed: Vec<String> = printed.lines().map(normal).collect();
    let shown = example.output.iter().filter(|line| line.as_str() != "…");
    shown
        .filter(|line| !printed.contains(&normal(line)))
        .cloned()
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guides_commands_do_what_it_says() {
    let system = System::shared().await;
    let mut shell = Shell::of(system).await;
    let address = GUIDE
        .lines()
        .find(|line| line.starts_with("export NATS_URL="))
        .expect("the guide says how to get the URL");
    assert_eq!(
        shell.text(&format!("{address}; printf %s \"$NATS_URL\"")).await,
        system.up_file().nats
    );

    // The scene, as the guide sets it, with alice staying.
    shell
        .text("tidings chat --user alice --with bob </dev/null")
        .await;
    let bob = UserId::new("bob").expect("printable");
    let client: ClientId = BOB.parse().expect("a UUID");
    let stored = Stored::of(system).await;
    eventually("bob has taken everything", async || {
        // A chat that is just being made may reach him only the next time.
        shell
            .text("tidings chat --user bob --with alice </dev/null")
            .await;
        let own = stored.entries(&bob, Inbox::Client(client)).await;
        let first = stored.entries(&bob, Inbox::First).await;
        if own + first == 0 {
            Ok(())
        } else {
            Err((own, first))
        }
    })
    .await;
    let mut alice = shell
        .command("exec tidings chat --user alice --with bob")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("there is a shell");
    let mut typed = alice.stdin.take().expect("it is piped");
    let lines = b"hello\nare you there?\nthird\n";
    typed.write_all(lines).await.expect("the chat reads");
    eventually("alice's messages wait for bob", async || {
        match stored.entries(&bob, Inbox::Client(client)).await {
            3 => Ok(()),
            entries => Err(entries),
        }
    })
    .await;
    let inbox = shell.json(&format!("tidings inbox {BOB} --json")).await;
    let chat = inbox["entries"][0]["chat_id"].as_str().expect("a chat's id");
    shell.set("CHAT", chat.to_owned());
    let last = format!("nats stream get INBOX_37 --last-for inbox.37.bob.{BOB} --translate 'tidings decode'");
    let entry = shell.text(&last).await;
    let message = entry
        .split_once("\"message_id\": \"")
        .map(|(_, rest)| &rest[..36]);
    shell.set(
        "MESSAGE",
        message.expect("an entry has a message's id").to_owned(),
    );

    let examples = examples(GUIDE);
    assert!(
        examples.len() >= 15,
        "only {} commands are marked",
        examples.len()
    );
    for example in &examples {
        assert!(!example.output.is_empty(), "{} shows no output", example.script);
        // Whoever looks at a living system may have to look twice: a partition is just being taken over.
        let printed = eventually(&example.script, async || {
            let printed = shell.text(&example.script).await;
            let missing = missing(example, &printed);
            if missing.is_empty() {
                Ok(printed)
            } else {
                Err((missing, printed))
            }
        })
        .await;
        for said in ["hello", "are you there?", "third"] {
            assert!(
                !printed.contains(said),
                "{} shows what people wrote",
                example.script
            );
        }
    }

    // What the guide says about bob's inbox, to the number.
    let info = shell.text(&format!("nats consumer info INBOX_37 {BOB}")).await;
    assert!(info.contains("Unprocessed Messages: 3"), "{info}");
    let found = shell.text("tidings where bob").await;
    assert!(
        found.contains("durable      3 unprocessed + 0 outstanding"),
        "{found}"
    );
    drop(typed);
    let ended = alice.wait().await.expect("it ends with its input");
    assert!(ended.success(), "{ended}");
}
