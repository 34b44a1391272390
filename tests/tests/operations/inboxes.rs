//! The real `nats` command sees streams with descriptions, a client's durable and its counts, and through
//! `tidings decode` what an entry is.

use tidings_nats::{Topology, inbox_stream};
use tidings_tests::{System, eventually};

use crate::scene::{SAID, Scene};
use crate::shell::Shell;

/// Waits until `nats` says that so many entries are unconfirmed, and `tidings where` agrees.
async fn unconfirmed(shell: &Shell, scene: &Scene, expected: u64) {
    let (user, client) = (&scene.bob.user_id, scene.bob.client_id);
    let stream = inbox_stream(Topology::default().shard(user));
    eventually(&format!("{expected} are unconfirmed"), async || {
        let info = shell
            .json(&format!("nats consumer info {stream} {client} --json"))
            .await;
        let unprocessed = info["num_pending"].as_u64().expect("a number");
        let outstanding = info["num_ack_pending"].as_u64().expect("a number");
        let found = shell.json(&format!("tidings where {user} --json")).await;
        let durable = &found["clients"][0]["durable"];
        let told = (
            &durable["unconfirmed"],
            &found["clients"][0]["unconfirmed"],
            &found["stream"],
        );
        let expected_told = (&expected.into(), &expected.into(), &stream.clone().into());
        if unprocessed + outstanding == expected && told == expected_told {
            Ok(())
        } else {
            Err(format!("{unprocessed} + {outstanding}; {found}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_durables_counts_are_what_is_unconfirmed() {
    let system = System::shared().await;
    let shell = Shell::of(system).await;
    let scene = Scene::new(system, 5).await;
    unconfirmed(&shell, &scene, 5).await;
    let (mut bob, deliveries) = scene.bob_connects(system, 5).await;
    unconfirmed(&shell, &scene, 5).await;
    bob.confirm_through(deliveries[2]).await;
    unconfirmed(&shell, &scene, 2).await;
    bob.confirm_through(deliveries[4]).await;
    unconfirmed(&shell, &scene, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_and_consumer_describes_itself() {
    let system = System::shared().await;
    let shell = Shell::of(system).await;
    let scene = Scene::new(system, 1).await;
    let streams = shell.text("nats stream ls --all").await;
    let rows: Vec<Vec<&str>> = streams
        .lines()
        .map(|line| line.split('│').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() > 3 && cells[1] != "Name")
        .collect();
    assert_eq!(rows.len(), 7 + 64, "{streams}");
    for row in rows {
        assert!(row[2].len() > 30, "{row:?}");
    }
    let stream = inbox_stream(Topology::default().shard(&scene.bob.user_id));
    for (stream, consumer) in [
        (stream.as_str(), scene.bob.client_id.to_string()),
        ("CHATS", "fanout-31".to_owned()),
    ] {
        let info = shell
            .json(&format!("nats consumer info {stream} {consumer} --json"))
            .await;
        let description = info["config"]["description"].as_str();
        assert!(description.is_some_and(|text| text.len() > 30), "{info}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nats_command_shows_entries_through_decode() {
    let system = System::shared().await;
    let shell = Shell::of(system).await;
    let scene = Scene::new(system, 1).await;
    let shard = Topology::default().shard(&scene.bob.user_id);
    let subject = format!("inbox.{shard}.{}.{}", scene.bob.user_id, scene.bob.client_id);
    let get = format!("nats stream get {} --last-for {subject}", inbox_stream(shard));
    for translate in [
        "'tidings decode'",
        "'tidings decode --as entry'",
        "\"tidings decode --subject '{{Subject}}'\"",
    ] {
        let shown = shell.text(&format!("{get} --translate {translate}")).await;
        let json = &shown[shown.find("\n{").expect("decode printed JSON")..];
        let entry: serde_json::Value = serde_json::from_str(json).expect("decode printed JSON");
        assert_eq!(entry["type"], "entry");
        let event = &entry["event"];
        assert_eq!(event["kind"], "message");
        assert_eq!(event["chat_id"], scene.chat_id.to_string());
        assert_eq!(event["user_id"], scene.alice.user_id().as_str());
        assert_eq!(event["message_bytes"], SAID.len());
        assert!(!shown.contains(SAID), "{shown}");
        assert!(shown.contains("Tidings-Kind: message"), "{shown}");
    }
    let shown = shell
        .text(&format!("{get} --translate 'tidings decode --show-body'"))
        .await;
    assert!(shown.contains(SAID), "{shown}");
    let shown = shell
        .text(&format!("{get} --translate 'tidings decode --as lost'"))
        .await;
    assert!(shown.contains("not a mark of what is missing"), "{shown}");
}
