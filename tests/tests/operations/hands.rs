//! `tidings kick`, `remove`, `suspend` and `resume`: on clients that are connected, to several gateways, and on those that
//! are away.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidings_protocol::{AttachmentId, CloseCode, Codec, ErrorCode};
use tidings_tests::{Device, Identity, Stored, System, SystemOptions, eventually};
use uuid::Uuid;

use crate::scene::{SAID, Scene};
use crate::shell::Shell;

/// What media says to somebody: the status, and the error's code.
async fn media_says(system: &System, who: &Identity) -> (u16, String) {
    let media = system.up_file().media.expect("media runs");
    tidings_service::start::install_crypto_provider();
    let url = format!("{media}/v1/attachments/{}", AttachmentId(Uuid::new_v4()));
    let asked = reqwest::Client::new()
        .get(url)
        .bearer_auth(who.token(&system.secret()));
    let answer = asked.send().await.expect("media answers");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    let body: Value = serde_json::from_str(&text).expect("errors are JSON");
    let code = body["error"]["code"].as_str().or(body["code"].as_str());
    (status, code.unwrap_or(&text).to_owned())
}

/// Why a hello is refused.
async fn refusal(system: &System, gateway: usize, who: &Identity) -> ErrorCode {
    let (_, welcome) = Device::hello(system, gateway, who, Codec::Json, None).await;
    welcome.expect_err("they are refused").code
}

/// How a device's connection was closed, which it was.
async fn closed(device: &mut Device) -> (u16, String) {
    let (closed, _) = device.until_closed().await;
    (closed.code, closed.reason)
}

fn forbidden(code: &ErrorCode) -> (u16, String) {
    (CloseCode::Forbidden.number(), code.as_str().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_kicked_is_closed_and_comes_back() {
    let system = System::shared().await;
    let shell = Shell::without_nats(system);
    let mut alice = Device::fresh(system, "alice").await;
    let (user, client) = (alice.user_id(), alice.identity.client_id);
    let kicked = shell.json(&format!("tidings kick {client} --json")).await;
    assert_eq!(kicked["user_id"], user.as_str());
    let told = &kicked["clients"][0];
    assert_eq!(
        (&told["client_id"], &told["closed"]),
        (&json!(client.to_string()), &json!(true))
    );
    let address = told["session"]["address"].as_str().expect("its gateway's");
    assert_eq!(system.ws(0), format!("ws://{address}/v1/ws"));
    assert_eq!(closed(&mut alice).await.0, CloseCode::Restart.number());

    // Nobody is there any more, which is no failure.
    let text = shell.text(&format!("tidings kick {client}")).await;
    assert_eq!(
        text,
        format!("{user}: 0 connections closed\n  client {client}  not connected\n")
    );
    let mut alice = Device::on(system, 1, &alice.identity.clone(), Codec::Json).await;
    alice.settle().await;

    // Both of a user's, each on a gateway of its own.
    let tablet = Identity::new(&user);
    let mut tablet = Device::on(system, 0, &tablet, Codec::Json).await;
    let text = shell.text(&format!("tidings kick --user {user}")).await;
    assert!(
        text.starts_with(&format!("{user}: 2 connections closed\n")),
        "{text}"
    );
    for device in [&mut alice, &mut tablet] {
        assert_eq!(closed(device).await.0, CloseCode::Restart.number());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_kicked_comes_back_by_itself() {
    let system = System::shared().await;
    let shell = Shell::without_nats(system);
    let user = Identity::fresh("carol").user_id;
    let mut chat = shell
        .command(&format!("exec tidings chat --user {user}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("there is a shell");
    let input = chat.stdin.take().expect("it is piped");
    let connection = async |before: &Value| {
        eventually("carol is connected anew", async || {
            let output = shell.run(&format!("tidings clients {user} --json")).await;
            let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let client = &found["clients"][0];
            let connection = client["session"]["connection"].clone();
            if client["online"] == true && connection != *before {
                Ok(connection)
            } else {
                Err(found)
            }
        })
        .await
    };
    let first = connection(&Value::Null).await;
    let text = shell.text(&format!("tidings kick --user {user}")).await;
    assert!(text.contains("1 connection closed"), "{text}");
    connection(&first).await;
    drop(input);
    assert!(chat.wait().await.expect("it ran").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_removed_while_it_is_connected() {
    let system = System::shared().await;
    let shell = Shell::without_nats(system);
    let mut scene = Scene::new(system, 3).await;
    let (bob, client) = (scene.bob.user_id.clone(), scene.bob.client_id);
    let (mut connected, _) = scene.bob_connects(system, 3).await;
    let sentence = shell.failure(&format!("tidings remove {client}")).await;
    assert!(
        sentence.contains("with 3 entries that it has not confirmed") && sentence.contains("--yes"),
        "{sentence}"
    );
    connected.settle().await;

    let removed = shell.json(&format!("tidings remove {client} --yes --json")).await;
    assert_eq!(
        (&removed["user_id"], &removed["changed"], &removed["closed"]),
        (&json!(bob.as_str()), &json!(true), &json!(true))
    );
    assert_eq!(removed["unconfirmed"], 3);
    assert_eq!(closed(&mut connected).await, forbidden(&ErrorCode::ClientRemoved));
    assert_eq!(refusal(system, 0, &scene.bob).await, ErrorCode::ClientRemoved);
    assert_eq!(
        media_says(system, &scene.bob).await,
        (403, "client_removed".to_owned())
    );

    // What is written from now on is not for it, and what was is deleted.
    scene.alice.say(scene.chat_id, SAID).await;
    Stored::of(system).await.until(&bob, client, 0).await;
    let inbox = shell.json(&format!("tidings inbox {client} --json")).await;
    assert_eq!(inbox["state"], "removed");
    let text = shell.text(&format!("tidings remove {client}")).await;
    assert!(
        text.starts_with(&format!("{bob}: the client was removed already\n")),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_removed_while_it_is_away() {
    let system = System::shared().await;
    let shell = Shell::without_nats(system);
    let scene = Scene::new(system, 2).await;
    let (bob, client) = (&scene.bob.user_id, scene.bob.client_id);
    let stored = Stored::of(system).await;
    let text = shell.text(&format!("tidings remove {client} --yes")).await;
    assert_eq!(
        text,
        format!("{bob}: client removed, 2 entries with it\n  client {client}  not connected\n")
    );
    stored.until(bob, client, 0).await;
    assert_eq!(refusal(system, 1, &scene.bob).await, ErrorCode::ClientRemoved);
    // His place is free for another one.
    Device::of(system, &Identity::new(bob)).await.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_suspended_is_out_everywhere_until_resumed() {
    let system = System::shared().await;
    let shell = Shell::without_nats(system);
    let mut alice = Device::fresh(system, "alice").await;
    let phone = Identity::fresh("mallory");
    let mallory = phone.user_id.clone();
    let tablet = Identity::new(&mallory);
    let mut on_phone = Device::on(system, 0, &phone, Codec::Json).await;
    let mut on_tablet = Device::on(system, 1, &tablet, Codec::Json).await;
    let chat_id = alice.direct_chat(&mallory).await;
    for device in [&mut on_phone, &mut on_tablet] {
        let created = device.update().await;
        device.confirm(created.delivery).await;
    }
    assert_eq!(media_says(system, &phone).await.0, 404);

    let text = shell.text(&format!("tidings suspend {mallory}")).await;
    assert!(
        text.starts_with(&format!("{mallory}: suspended, 2 connections closed\n")),
        "{text}"
    );
    // Once the command has ended, nobody gets in.
    for (gateway, identity) in [(0, &phone), (1, &phone), (0, &tablet), (1, &tablet)] {
        assert_eq!(refusal(system, gateway, identity).await, ErrorCode::Suspended);
    }
    assert_eq!(
        refusal(system, 0, &Identity::new(&mallory)).await,
        ErrorCode::Suspended
    );
    for device in [&mut on_phone, &mut on_tablet] {
        assert_eq!(closed(device).await, forbidden(&ErrorCode::Suspended));
    }
    assert_eq!(media_says(system, &phone).await, (403, "suspended".to_owned()));
    let found = shell.json(&format!("tidings where {mallory} --json")).await;
    assert_eq!(found["suspended"], true);

    // Again changes nothing, and others write on.
    let text = shell.text(&format!("tidings suspend {mallory}")).await;
    assert!(
        text.contains("was suspended already, 0 connections closed"),
        "{text}"
    );
    for number in 1..=3 {
        alice.say(chat_id, &format!("{number}")).await;
    }
    let text = shell.text(&format!("tidings resume {mallory}")).await;
    assert_eq!(text, format!("{mallory}: not suspended any more\n"));
    let again = shell.json(&format!("tidings resume {mallory} --json")).await;
    assert_eq!(
        (&again["suspended"], &again["changed"]),
        (&json!(false), &json!(false))
    );
    for (gateway, identity) in [(1, &phone), (0, &tablet)] {
        let mut device = Device::on(system, gateway, identity, Codec::Json).await;
        for number in 1..=3 {
            assert_eq!(device.message().await.message, format!("{number}"));
        }
    }
    assert_eq!(media_says(system, &phone).await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_never_connected_can_be_suspended() {
    let system = System::shared().await;
    let shell = Shell::without_nats(system);
    let eve = Identity::fresh("eve");
    let user = &eve.user_id;
    let sentence = shell.failure(&format!("tidings resume {user}")).await;
    assert_eq!(
        sentence,
        format!("tidings: {user} has never connected and was never suspended\n")
    );
    let text = shell.text(&format!("tidings suspend {user}")).await;
    assert!(text.contains("nobody of this name has connected"), "{text}");
    assert_eq!(refusal(system, 0, &eve).await, ErrorCode::Suspended);
    shell.text(&format!("tidings resume {user}")).await;
    Device::of(system, &eve).await.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_does_not_answer_is_named() {
    // Of its own: a gateway of it stands still.
    let system = System::start(&SystemOptions {
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    })
    .await;
    let shell = Shell::without_nats(&system);
    let identity = Identity::fresh("mallory");
    let (mallory, client) = (&identity.user_id, identity.client_id);
    let mut device = Device::on(&system, 1, &identity, Codec::Json).await;
    system.signal("gateway-2", Signal::SIGSTOP);
    let address = system.ws(1);
    let address = address.trim_start_matches("ws://").trim_end_matches("/v1/ws");
    let sentence = shell.failure(&format!("tidings suspend {mallory}")).await;
    assert!(
        sentence.contains(address) && sentence.contains(&client.to_string()),
        "{sentence}"
    );
    // Whoever is suspended is so all the same; once the gateway goes on, so is the connection.
    assert_eq!(refusal(&system, 0, &identity).await, ErrorCode::Suspended);
    system.signal("gateway-2", Signal::SIGCONT);
    let end = closed(&mut device).await;
    // Or a gateway that stood still for ten seconds, on a busy machine, sends everybody elsewhere first.
    let elsewhere = (1012, ErrorCode::Unavailable.as_str().to_owned());
    assert!(
        [forbidden(&ErrorCode::Suspended), elsewhere].contains(&end),
        "{end:?}"
    );
    let text = shell.text(&format!("tidings suspend {mallory}")).await;
    assert!(text.contains("was suspended already"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_arguments_say_which() {
    let shell = Shell::without_nats(System::shared().await);
    let client = Uuid::new_v4();
    for (command, said) in [
        ("kick".to_owned(), "CLIENT"),
        ("kick x".to_owned(), "[CLIENT]"),
        (format!("kick {client} --user x"), "--user"),
        ("remove x".to_owned(), "<CLIENT>"),
        ("remove".to_owned(), "<CLIENT>"),
        ("suspend".to_owned(), "<USER>"),
        ("suspend ''".to_owned(), "<USER>"),
        ("resume ü".to_owned(), "<USER>"),
    ] {
        let output = shell.run(&format!("tidings {command}")).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {errors}");
        assert!(errors.contains(said), "{command}: {errors}");
    }
}
