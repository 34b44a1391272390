//! NATS users in a running system: what a service may not is told, and a key is changed while people talk.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tidings_nats::{ApiError, CHATS, NatsUser};
use tidings_protocol::ServerFrame;
use tidings_service::{NatsConnection, NatsSettings, Secret};
use tidings_tests::{Device, Identity, PATIENCE, System, SystemOptions, eventually};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::shell::Shell;

/// What alice says at each step: about as much as fits into a reload.
const MESSAGES: usize = 20;

/// A gateway that has an inbox worker's seed hears no answers: its log says so, and its metrics; a command with another
/// user's seed does in its one sentence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forbidden_is_told() {
    let system = System::shared().await;
    let shell = Shell::without_nats(system);
    let up = system.up_file();
    let seed = |user: NatsUser| up.nats_seed_file(user).expect("there are seeds");
    let mut gateway = tokio::process::Command::new(System::executable());
    gateway
        .arg("gateway")
        .env("TIDINGS_NATS_URL", &up.nats)
        .env("TIDINGS_NATS_SEED_FILE", seed(NatsUser::InboxWorker))
        .env("TIDINGS_POSTGRES_URL", &up.postgres)
        .env("TIDINGS_JWT_SECRET", &up.jwt_secret)
        .env("TIDINGS_LISTEN", "127.0.0.1:0")
        .env("TIDINGS_ADMIN_LISTEN", "127.0.0.1:0")
        .env("TIDINGS_LOG_FORMAT", "json")
        .env(tidings_service::EXIT_WITH_STDIN, "1")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut gateway = gateway
        .spawn()
        .expect("the command under test was built with this package");
    let mut log = BufReader::new(gateway.stderr.take().expect("it is piped")).lines();
    let mut admin = None;
    let listen = async {
        loop {
            let line = log.next_line().await.expect("the log is UTF-8");
            let line = line.expect("it runs");
            let line: serde_json::Value = serde_json::from_str(&line).expect("each line is JSON");
            if let Some(address) = line["admin.address"].as_str() {
                admin = Some(format!("http://{address}"));
            }
            if line["level"] == "ERROR" {
                return line.to_string();
            }
        }
    };
    let line = tokio::time::timeout(PATIENCE, listen).await.expect("it is said");
    assert!(
        line.contains("NATS forbids this process what it needs") && line.contains("\"_INBOX_gateway."),
        "{line}"
    );
    let admin = admin.expect("it was said before");
    eventually("it is counted", async || {
        let metrics = shell.text(&format!("curl -s {admin}/metrics")).await;
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("tidings_nats_forbidden_total{service=\"gateway\"} "))
            .and_then(|count| count.parse::<u64>().ok());
        if count.is_some_and(|count| count > 0) {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;

    let command = format!(
        "unset TIDINGS_DIR; tidings dead-letters list --nats-url '{}' --postgres-url '{}' --nats-seed-file '{}'",
        up.nats,
        up.postgres,
        seed(NatsUser::Setup).display()
    );
    let sentence = shell.failure(&command).await;
    assert!(
        sentence.contains("this NATS user has no permission for _INBOX."),
        "{sentence}"
    );
}

/// Who may not ask something, and may hear answers, is not told that there was none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_request_is_no_late_answer() {
    let system = System::shared().await;
    let seed = system.up_file().nats_seed_file(NatsUser::Gateway);
    let connection = log_in(system, &seed.expect("there are seeds")).await;
    let bus = connection.expect("the servers know it").bus();
    let forbidden = format!("STREAM.DELETE.{CHATS}");
    let answer = bus
        .api::<serde_json::Value>(&forbidden, &serde_json::json!({}), Duration::from_secs(2))
        .await;
    assert_eq!(answer, Err(ApiError::Forbidden(format!("$JS.API.{forbidden}"))));
    assert!(
        bus.stream_bounds(CHATS, PATIENCE).await.is_ok(),
        "it is still there"
    );
}

/// As the guide has it. Alice writes all the time; bob gets everything, and the old key ends with the last step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_changed_while_people_talk() {
    let options = SystemOptions {
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    };
    let system = System::start(&options).await;
    let shell = Shell::without_nats(&system);
    let [alice, bob] = ["alice", "bob"].map(Identity::fresh);
    let mut at_bob = Device::of(&system, &bob).await;
    at_bob.settle().await;
    let mut at_alice = Device::of(&system, &alice).await;
    let chat_id = at_alice.direct_chat(&bob.user_id).await;
    let delivery = at_bob.update().await.delivery;
    at_bob.confirm(delivery).await;
    let folder = system.up_file().nats_users.expect("there are seeds");
    let old = log_in(&system, &folder.join("gateway.nk")).await;
    let old = old.expect("it is the key");
    let mut said = 0;
    let mut talk = async |at_alice: &mut Device, at_bob: &mut Device| {
        for _ in 0..MESSAGES {
            said += 1;
            let text = format!("alice says {said}");
            at_alice.say(chat_id, &text).await;
            let heard = at_bob.message().await;
            assert_eq!(heard.message, text);
            at_bob.confirm(heard.delivery).await;
        }
    };

    let users = folder.display();
    let told = shell
        .text(&format!("tidings nats-users '{users}' --rotate gateway"))
        .await;
    assert!(
        told.contains("gateway.nk: made") && told.contains("users.conf: changed"),
        "{told}"
    );
    // Nobody is cut off: these are the connections from before.
    tokio::join!(reload(&system, &shell), talk(&mut at_alice, &mut at_bob));
    let new = log_in(&system, &folder.join("gateway.nk")).await;
    let new = new.expect("the servers know the new key");
    talk(&mut at_alice, &mut at_bob).await;
    old.client().flush().await.expect("the old key is good still");
    assert_eq!(old.state().borrow().connects, 1, "and its connection stayed");

    // Gateways get the new key, one after the other; clients come back where one still is.
    for gateway in ["gateway-1", "gateway-2"] {
        system.signal_and_wait(gateway, Signal::SIGTERM).await;
    }
    let mut at_alice = Device::of(&system, &alice).await;
    let mut at_bob = Device::of(&system, &bob).await;
    // What he confirmed last may come again; it must be in order, and end where it ended.
    let again = at_bob.settle().await;
    let again = again.iter().filter_map(|heard| match heard {
        ServerFrame::NewMessage(message) => Some(message.seq),
        _ => None,
    });
    assert!(again.is_sorted());
    talk(&mut at_alice, &mut at_bob).await;

    let told = shell
        .text(&format!(
            "rm '{users}/gateway.old.nk'; tidings nats-users '{users}'"
        ))
        .await;
    assert!(
        told.contains("users.conf: changed") && !told.contains("made"),
        "{told}"
    );
    tokio::join!(reload(&system, &shell), talk(&mut at_alice, &mut at_bob));
    let mut state = old.state();
    let cut_off = tokio::time::timeout(PATIENCE, state.wait_for(|state| !state.connected)).await;
    assert!(cut_off.is_ok(), "the old key's connection stays");
    talk(&mut at_alice, &mut at_bob).await;
    new.client().flush().await.expect("the new key is good");
    assert_eq!(new.state().borrow().connects, 1, "and its connection stayed");
}

/// A connection to NATS by a seed in a file.
async fn log_in(system: &System, seed: &std::path::Path) -> anyhow::Result<NatsConnection> {
    let settings = NatsSettings::parse(&system.up_file().nats)?
        .of_user(NatsUser::Gateway)
        .with_seed(Secret::read(seed)?)?;
    NatsConnection::connect(&settings, "test").await
}

/// Has the server read the users that are in the folder now, and waits until it has.
async fn reload(system: &System, shell: &Shell) {
    let dir = system.dir().display();
    let count = async || {
        let log = shell.text(&format!("cat '{dir}/logs/nats-1.log'")).await;
        log.matches("Reloaded server configuration").count()
    };
    let before = count().await;
    shell
        .text(&format!(
            "cp '{dir}/nats/users/users.conf' '{dir}/nats/nats-1/users.conf'"
        ))
        .await;
    system.signal("nats-1", Signal::SIGHUP);
    eventually("the server has reloaded", async || {
        let now = count().await;
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
}
