//! `tidings top`: as a table, as JSON, and in a terminal, while people write.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tidings_nats::{Topology, inbox_stream};
use tidings_protocol::ChatId;
use tidings_tests::{Device, Identity, PATIENCE, System, SystemOptions, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::guide::GUIDE;
use crate::scene::SAID;
use crate::shell::Shell;

/// Between two messages: some fifty a second, which is not much even for a busy machine.
const PAUSE: Duration = Duration::from_millis(20);

/// Alice writes to bob, who hears and confirms, for as long as the other work takes.
async fn while_they_talk<T>(
    alice: &mut Device,
    bob: &mut Device,
    chat_id: ChatId,
    work: impl Future<Output = T>,
) -> T {
    let writing = async {
        loop {
            alice.say(chat_id, SAID).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    let reading = async {
        loop {
            let delivery = bob.message().await.delivery;
            bob.confirm_through(delivery).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = writing => unreachable!("she writes for ever"),
        () = reading => unreachable!("he reads for ever"),
    }
}

fn number(value: &Value, name: &str) -> f64 {
    value[name]
        .as_f64()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn named<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    let list = list.as_array().expect("a list");
    let found = list.iter().find(|one| one[key] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list:?}"))
}

fn the_guide_shows_the_tables_of(text: &str) {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let titles: Vec<Vec<String>> = GUIDE
        .lines()
        .filter(|line| line.contains("/S  ") || line.ends_with("EVENTS/S"))
        .map(words)
        .collect();
    assert_eq!(titles.len(), 4, "the tables of `top` in the guide");
    for title in titles {
        assert!(
            text.lines().any(|line| words(line) == title),
            "{title:?} is not in {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_what_is_going_on() {
    // Of its own: other tests' chats would be hotter.
    let system = System::start(&SystemOptions {
        inbox_workers: 1,
        ..SystemOptions::default()
    })
    .await;
    let shell = Shell::without_nats(&system);
    let mut alice = Device::fresh(&system, "alice").await;
    let mut bob = Device::fresh(&system, "bob").await;
    // Away: what is said is stored for her, and stays.
    let carol = Identity::fresh("carol");
    Device::of(&system, &carol).await.close().await;
    let chat_id = alice.create_group(&[bob.user_id(), carol.user_id.clone()]).await;
    bob.update().await;
    let shard = inbox_stream(Topology::default().shard(&carol.user_id));

    let seen = eventually("all of it is seen", async || {
        let seen = while_they_talk(
            &mut alice,
            &mut bob,
            chat_id,
            shell.json("tidings top --json --interval 2"),
        )
        .await;
        // A busy machine may stand still for two seconds.
        let busy = ["sends", "entries", "deliveries", "confirms"];
        if busy.iter().all(|name| number(&seen, name) > 1.0) {
            Ok(seen)
        } else {
            Err(seen)
        }
    })
    .await;
    assert_eq!(seen["problems"], serde_json::json!([]), "{seen}");
    assert!(number(&seen, "seconds") >= 2.0);
    assert_eq!(number(&seen, "sessions") as u64, 2);
    let hottest = &seen["chats"][0];
    assert_eq!(hottest["chat_id"], chat_id.to_string());
    // The sends that gateways counted, and the events that passed, are the same ones.
    let (sends, events) = (number(&seen, "sends"), number(hottest, "events"));
    assert!(
        (sends / 2.0..sends * 2.0).contains(&events),
        "{sends} sends, {events} events"
    );
    let hot_shard = &seen["shards"][0];
    assert_eq!(hot_shard["stream"], shard.as_str());
    assert!(number(hot_shard, "stored") > 1.0 && number(hot_shard, "durables") as u64 >= 1);
    let partition = Topology::default().partition(chat_id);
    let consumer = format!("CHATS/fanout-{partition}");
    assert!(number(named(&seen["partitions"], "consumer", &consumer), "events") > 1.0);
    for of in ["accept", "fan-out"] {
        let latency = named(&seen["latencies"], "of", of);
        let (p50, p99) = (number(latency, "p50"), number(latency, "p99"));
        assert!(0.0 < p50 && p50 <= p99 && p99 <= 30.0, "{latency}");
    }
    for (name, service) in [
        ("gateway-1", "gateway"),
        ("gateway-2", "gateway"),
        ("fanout-worker-1", "fanout-worker"),
        ("media-1", "media"),
    ] {
        let process = named(&seen["processes"], "name", name);
        assert_eq!(
            (&process["service"], &process["ready"]),
            (&service.into(), &true.into())
        );
        assert!(number(process, "resident_bytes") > 1e6, "{process}");
    }

    // For people, without what they write.
    let text = while_they_talk(&mut alice, &mut bob, chat_id, shell.text("tidings top --once")).await;
    for part in [&chat_id.to_string(), &shard, "2 gateway", "PROCESS", "accept"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains(SAID) && !text.contains('\u{1b}'), "{text}");
    the_guide_shows_the_tables_of(&text);

    // By URLs: from two gateways alone, of which one is gone. The rest is JetStream's.
    let up = system.up_file();
    let gateway = system.process("gateway-1").admin.expect("a gateway has one");
    let command = format!(
        "unset TIDINGS_DIR; tidings top --json --nats-url '{}' --nats-seed-file $NATS_NKEY --metrics-url {gateway},http://127.0.0.1:1",
        up.nats
    );
    let seen = while_they_talk(&mut alice, &mut bob, chat_id, shell.json(&command)).await;
    let processes = seen["processes"].as_array().expect("a list");
    assert_eq!(processes.len(), 2, "{seen}");
    assert_eq!(
        (&processes[0]["ready"], &processes[1]["service"]),
        (&true.into(), &Value::Null)
    );
    let problem = seen["problems"][0].as_str().expect("a problem");
    assert!(problem.starts_with("127.0.0.1:1: no answer"), "{problem}");
    assert!(!seen["chats"].as_array().expect("a list").is_empty(), "{seen}");
    let command = format!(
        "unset TIDINGS_DIR; tidings top --once --nats-url '{}' --nats-seed-file $NATS_NKEY",
        up.nats
    );
    let text = shell.text(&command).await;
    assert!(
        text.contains("! which services run is not known: --metrics-url"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_terminal_it_is_drawn_again_and_again() {
    let system = System::shared().await;
    let shell = Shell::without_nats(system);
    // A terminal of 100 columns and 40 lines.
    let mut top = shell
        .command("exec script -qec 'stty cols 100 rows 40; exec tidings top' /dev/null")
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is a part of every Debian");
    let mut keys = top.stdin.take().expect("it is piped");
    let mut screen = top.stdout.take().expect("it is piped");
    let mut drawn = String::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while drawn.matches("PARTITION").count() < 4 {
            let read = screen.read(&mut buffer).await.expect("the terminal can be read");
            assert!(read > 0, "it ended: {drawn}");
            drawn += &String::from_utf8_lossy(&buffer[..read]);
        }
    };
    timeout(PATIENCE, reading)
        .await
        .expect("it is drawn several times");
    // The other screen, and no cursor.
    assert!(
        drawn.contains("\u{1b}[?1049h") && drawn.contains("\u{1b}[?25l"),
        "{drawn:?}"
    );
    keys.write_all(b"q").await.expect("the terminal takes keys");
    let mut rest = Vec::new();
    let ending = async {
        screen
            .read_to_end(&mut rest)
            .await
            .expect("the terminal can be read");
        top.wait().await.expect("it ran")
    };
    let ended = timeout(PATIENCE, ending).await.expect("q ends it");
    assert!(ended.success(), "{ended}");
    // Both as they were.
    let rest = String::from_utf8_lossy(&rest);
    assert!(
        rest.contains("\u{1b}[?1049l") && rest.contains("\u{1b}[?25h"),
        "{rest:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_is_one_sentence() {
    let shell = Shell::without_nats(System::shared().await);
    let sentence = shell
        .failure("unset TIDINGS_DIR; tidings top --once --nats-url nats://u:hunter2@127.0.0.1:1")
        .await;
    assert!(
        sentence.contains("cannot connect to NATS") && !sentence.contains("hunter2"),
        "{sentence}"
    );
    let sentence = shell.failure("tidings top --dir nowhere").await;
    assert!(sentence.contains("nothing runs in"), "{sentence}");
    for (arguments, said) in [
        ("--interval 0", "--interval"),
        ("--rows 0", "--rows"),
        ("--metrics-url nats://x", "not an http URL"),
        ("--metrics-url x", "--metrics-url"),
    ] {
        let output = shell.run(&format!("tidings top --once {arguments}")).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {errors}");
        assert!(errors.contains(said), "{arguments}: {errors}");
    }
}
