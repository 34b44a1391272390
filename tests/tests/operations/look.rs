//! `tidings where`, `inbox`, `chat-info`, `clients` and `decode`, each for programs, and each in trouble; and those that
//! act, in the same trouble.

use serde_json::{Value, json};
use tidings_tests::{Identity, System};

use crate::scene::{SAID, Scene};
use crate::shell::Shell;

/// The ids of nobody and nothing.
const NONE: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_connected_and_one_who_is_away() {
    let system = System::shared().await;
    let shell = Shell::of(system).await;
    let scene = Scene::new(system, 3).await;
    let (alice, bob) = (scene.alice.user_id(), &scene.bob.user_id);

    let found = shell.json(&format!("tidings where {bob} --json")).await;
    let client = &found["clients"][0];
    assert_eq!(client["client_id"], scene.bob.client_id.to_string());
    assert_eq!(
        (&client["heir"], &client["online"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(client["unconfirmed"], 3);
    assert!(client["oldest"].is_string(), "{client}");
    assert_eq!(client["subjects"].as_array().map(Vec::len), Some(2));
    assert_eq!(found["first"]["unconfirmed"], 0);

    let found = shell.json(&format!("tidings clients {alice} --json")).await;
    let session = &found["clients"][0]["session"];
    assert_eq!(found["clients"][0]["online"], true);
    assert_eq!(session["alive"], true);
    let address = session["address"].as_str().expect("a gateway says its address");
    assert_eq!(system.ws(0), format!("ws://{address}/v1/ws"));
    let text = shell.text(&format!("tidings where {alice}")).await;
    assert!(text.contains(address) && text.contains("connected for"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_was_only_written_to() {
    let system = System::shared().await;
    let shell = Shell::of(system).await;
    let mut scene = Scene::new(system, 0).await;
    let carol = Identity::fresh("carol").user_id;
    let chat_id = scene.alice.direct_chat(&carol).await;
    scene.alice.say(chat_id, SAID).await;
    tidings_tests::eventually("two entries wait in `first`", async || {
        let found = shell.json(&format!("tidings where {carol} --json")).await;
        if found["first"]["unconfirmed"] == 2 && found["clients"] == json!([]) {
            Ok(())
        } else {
            Err(found)
        }
    })
    .await;
    let found = shell.json(&format!("tidings chat-info {chat_id} --json")).await;
    let participants = found["participants"].as_array().expect("a list");
    let clients = |user: &str| {
        let participant = participants.iter().find(|one| one["user_id"] == user);
        participant.map(|one| one["clients"].clone())
    };
    assert_eq!(clients(carol.as_str()), Some(json!(0)));
    assert_eq!(clients(scene.alice.user_id().as_str()), Some(json!(1)));
    let text = shell.text(&format!("tidings chat-info {chat_id}")).await;
    assert!(text.contains("not yet connected"), "{text}");
    let sentence = shell.failure(&format!("tidings clients {carol}")).await;
    assert_eq!(sentence, format!("tidings: {carol} has no active client\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_is_listed_in_pages_and_without_bodies() {
    let system = System::shared().await;
    let shell = Shell::of(system).await;
    let scene = Scene::new(system, 5).await;
    let client = scene.bob.client_id;
    let list = async |options: &str| -> Value {
        let command = format!("tidings inbox {client} --json {options}");
        shell.json(&command).await
    };
    let all = list("").await;
    let entries = all["entries"].as_array().expect("a list");
    assert_eq!((&all["unconfirmed"], &all["more"]), (&json!(5), &json!(false)));
    assert_eq!(entries.len(), 5);
    for entry in entries {
        assert_eq!(entry["chat_id"], scene.chat_id.to_string());
        assert_eq!(entry["kind"], "message");
        assert_eq!(entry["from"], scene.alice.user_id().as_str());
    }
    let page = list("--limit 2").await;
    assert_eq!(page["more"], true);
    assert_eq!(page["unconfirmed"], 5);
    assert_eq!(page["entries"], json!(entries[..2]));
    let last = &entries[1]["sequence"].as_u64().expect("a number");
    let rest = list(&format!("--from {}", last + 1)).await;
    assert_eq!(rest["entries"], json!(entries[2..]));

    let text = shell.text(&format!("tidings inbox {client} --limit 2")).await;
    assert!(text.contains(&format!("--from {}", last + 1)), "{text}");
    assert!(!text.contains(SAID) && !all.to_string().contains(SAID));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_is_told_with_what_waits_of_it() {
    let system = System::shared().await;
    let shell = Shell::of(system).await;
    let mut scene = Scene::new(system, 1).await;
    let chat_id = scene.alice.create_group(&[scene.bob.user_id.clone()]).await;
    let found = tidings_tests::eventually("nothing waits", async || {
        let found = shell.json(&format!("tidings chat-info {chat_id} --json")).await;
        if found["events_waiting"] == 0 && found["outbox_unsent"] == 0 {
            Ok(found)
        } else {
            Err(found)
        }
    })
    .await;
    assert_eq!(
        (&found["kind"], &found["name"], &found["version"]),
        (&json!("group"), &json!("group"), &json!(1))
    );
    let partition = found["partition"].as_u64().expect("a number");
    assert_eq!(found["subject"], format!("chat.{partition:02}.{chat_id}"));
    assert_eq!(found["closed"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_is_one_sentence() {
    let system = System::shared().await;
    let shell = Shell::of(system).await;
    std::fs::write(shell.home().join("text"), "no payload").expect("the folder is writable");
    let nobody = Identity::fresh("nobody").user_id;
    for (command, reason) in [
        (format!("where {nobody}"), "has no active client, is in no chat"),
        (format!("clients {nobody}"), "has no active client"),
        (format!("inbox {NONE}"), "has ever registered"),
        (format!("chat-info {NONE}"), "there is no chat"),
        (format!("kick {NONE}"), "has ever registered"),
        (format!("kick --user {nobody}"), "has no active client"),
        (format!("remove {NONE} --yes"), "has ever registered"),
        ("where x --dir nowhere".to_owned(), "nothing runs in"),
        ("decode </dev/null".to_owned(), "empty"),
        (
            "decode --subject orders <$HOME/text".to_owned(),
            "no subject like",
        ),
        ("decode <$HOME/text".to_owned(), "no payload of Tidings"),
    ] {
        let sentence = shell.failure(&format!("tidings {command}")).await;
        assert!(sentence.contains(reason), "{command}: {sentence}");
    }
    let (nats, postgres) = (system.up_file().nats, system.up_file().postgres);
    for (urls, reason) in [
        (
            "--nats-url nats://u:hunter2@127.0.0.1:1".to_owned(),
            "cannot connect to NATS at nats://127.0.0.1:1",
        ),
        (
            format!(
                "--nats-url '{nats}' --nats-seed-file $NATS_NKEY --postgres-url postgres://u:hunter2@127.0.0.1:1/tidings"
            ),
            "Postgres at 127.0.0.1:1/tidings",
        ),
    ] {
        for command in [
            "where x",
            "clients x",
            &format!("inbox {NONE}"),
            &format!("chat-info {NONE}"),
            &format!("kick {NONE}"),
            &format!("remove {NONE} --yes"),
            "suspend x",
            "resume x",
        ] {
            let sentence = shell
                .failure(&format!("unset TIDINGS_DIR; tidings {command} {urls}"))
                .await;
            assert!(sentence.contains(reason), "{sentence}");
            assert!(!sentence.contains("hunter2"), "{sentence}");
        }
    }
    // And by URLs that are right.
    let urls = format!("--nats-url '{nats}' --nats-seed-file $NATS_NKEY --postgres-url '{postgres}'");
    let sentence = shell
        .failure(&format!("unset TIDINGS_DIR; tidings where {nobody} {urls}"))
        .await;
    assert!(sentence.contains("is in no chat"), "{sentence}");
    let variables = format!(
        "unset TIDINGS_DIR; TIDINGS_NATS_URL='{nats}' TIDINGS_NATS_SEED_FILE=$NATS_NKEY TIDINGS_POSTGRES_URL='{postgres}'"
    );
    let sentence = shell
        .failure(&format!("{variables} tidings where {nobody}"))
        .await;
    assert!(sentence.contains("is in no chat"), "{sentence}");
}
