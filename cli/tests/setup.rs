//! `tidings setup` on real servers: says what it would do, does it once, and says what is wrong.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tidings_nats::Bus;
use tidings_service::{NatsConnection, NatsSettings};
use tidings_stack::{NatsCluster, NatsServer, Postgres};

/// Runs it with these arguments.
fn setup(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.arg("setup").args(args).stdin(Stdio::null());
    command.output().expect("the command was built")
}

/// The lines that it printed, after a success.
fn changes(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).expect("it is text");
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_system_is_set_up_once() {
    let (nats, postgres) = tokio::join!(NatsServer::start_temp(), Postgres::start_temp());
    let (nats, postgres) = (
        nats.expect("nats-server starts"),
        postgres.expect("Postgres starts"),
    );
    let urls = [
        format!("--nats-url={}", nats.url()),
        format!("--postgres-url={}", postgres.url()),
    ];
    let with = |more: &[&str]| {
        let mut args: Vec<&str> = urls.iter().map(String::as_str).collect();
        args.extend(more);
        setup(&args)
    };

    let would = changes(&with(&["--dry-run"]));
    for line in [
        "stream CHATS: create",
        "stream INBOX_63: create",
        "stream KV_SESSIONS: create",
    ] {
        assert!(
            would.iter().any(|change| change == line),
            "{line} is not in {would:?}"
        );
    }
    assert!(
        would
            .iter()
            .any(|change| change.starts_with("tables, migration 0001 ")),
        "{would:?}"
    );
    assert_eq!(changes(&with(&["--dry-run"])), would, "nothing was done");
    assert_eq!(changes(&with(&[])), would);
    assert!(changes(&with(&[])).is_empty(), "it was done");
    assert!(changes(&with(&["--dry-run"])).is_empty());
}

#[test]
fn what_does_not_answer_is_said() {
    let output = setup(&["--postgres-url=postgres://tidings:hunter2@127.0.0.1:1/tidings"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("it is text");
    assert!(
        said.starts_with("tidings: ") && !said.contains("hunter2"),
        "{said}"
    );
    let output = setup(&["--dir=/nowhere"]);
    let said = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(
        said,
        "tidings: nothing runs in /nowhere: start it with `tidings up --dir /nowhere`\n"
    );
}

#[tokio::test]
async fn a_lost_stream_is_made_with_as_many_copies_as_the_others_have() {
    let (nats, postgres) = tokio::join!(NatsCluster::start_temp(), Postgres::start_temp());
    let (nats, postgres) = (
        nats.expect("nats-servers start"),
        postgres.expect("Postgres starts"),
    );
    let urls = [
        format!("--nats-url={}", nats.url()),
        format!("--postgres-url={}", postgres.url()),
    ];
    let [nats_url, postgres_url] = urls.each_ref().map(String::as_str);
    changes(&setup(&[nats_url, postgres_url, "--replicas=3"]));

    let settings = NatsSettings::parse(&nats.url()).expect("it is a URL");
    let connection = NatsConnection::connect(&settings, "test").await;
    let bus = Bus::new(connection.expect("NATS answers").client().clone());
    let timeout = Duration::from_secs(10);
    let deleted = bus.api::<Value>("STREAM.DELETE.CHATS", &json!({}), timeout).await;
    deleted.expect("CHATS goes");
    let made = changes(&setup(&[nats_url, postgres_url]));
    assert_eq!(
        made.len(),
        1 + 32,
        "CHATS and its consumers, and no other stream: {made:?}"
    );
    let info = bus.api::<Value>("STREAM.INFO.CHATS", &json!({}), timeout).await;
    assert_eq!(info.expect("it is there")["config"]["num_replicas"], 3);
}
