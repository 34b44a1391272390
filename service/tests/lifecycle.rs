//! A service is started and stopped as a process, with real signals.
//!
//! The process is this test program itself: run with `TEST_SERVICE` set, the test `a_service` becomes a service
//! that behaves as the variable says.

mod support;

use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::System;
use tidings_nats::NatsUser;
use tidings_service::{CommonConfig, Context, start};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

const BEHAVIOUR: &str = "TEST_SERVICE";
/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    common: CommonConfig,
}

#[test]
fn a_service() {
    let Ok(behaviour) = std::env::var(BEHAVIOUR) else {
        return;
    };
    let settings = Settings::parse_from(["service"]);
    let code = start::run("test", NatsUser::Operator, &settings.common, |context| {
        behave(behaviour, context)
    });
    std::process::exit(i32::from(code != ExitCode::SUCCESS));
}

async fn behave(behaviour: String, context: Context) -> anyhow::Result<()> {
    match behaviour.as_str() {
        "obeys" => context.stopping.cancelled().await,
        "drains" => {
            let stopping = context.stopping.clone();
            context.require("drained").holds();
            context.tasks.spawn(async move {
                stopping.cancelled().await;
                // Until the test, which looks at the port meanwhile, closes the input.
                let read = || std::io::stdin().read_line(&mut String::new());
                let _ = tokio::task::spawn_blocking(read).await;
            });
            context.stopping.cancelled().await;
        }
        "does not stop" => std::future::pending().await,
        "fails" => anyhow::bail!("on purpose"),
        "panics" => {
            context
                .tasks
                .spawn_essential("reader", async { panic!("on purpose") });
            context.stopping.cancelled().await;
        }
        other => anyhow::bail!("what is {other:?}?"),
    }
    Ok(())
}

struct Service {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Service {
    fn start(behaviour: &str, system: &System, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a test program has a path"))
            .args(["--exact", "a_service", "--nocapture"])
            .env(BEHAVIOUR, behaviour)
            .env("TIDINGS_NATS_URL", system.nats.url())
            .env("TIDINGS_POSTGRES_URL", system.postgres.url())
            .env("TIDINGS_LOG_FORMAT", "json")
            .envs(settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the test program starts");
        let log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        Self { child, log }
    }

    /// Reads the log up to a line that contains `text`.
    async fn logs(&mut self, text: &str) -> Value {
        let mut seen = String::new();
        let find = async {
            while let Some(line) = self.log.next_line().await.expect("the log is UTF-8") {
                if line.contains(text) {
                    return Some(line);
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            None
        };
        let line = tokio::time::timeout(PATIENCE, find).await.ok().flatten();
        let line = line.unwrap_or_else(|| panic!("no {text:?} in the log:\n{seen}"));
        serde_json::from_str(&line).expect("each line is JSON")
    }

    async fn admin(&mut self) -> String {
        let line = self.logs("\"admin.address\"").await;
        format!(
            "http://{}",
            line["admin.address"].as_str().expect("the address is a text")
        )
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it runs");
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("it is our child");
    }

    async fn exit(&mut self) -> ExitStatus {
        let wait = tokio::time::timeout(PATIENCE, self.child.wait());
        wait.await.expect("it ends").expect("it is our child")
    }
}

async fn get(url: &str) -> (u16, String) {
    let response = reqwest::get(url).await.expect("the port answers");
    (
        response.status().as_u16(),
        response.text().await.expect("the body is a text"),
    )
}

/// Asks `/readyz` until `wanted` is true of its answer.
async fn readyz(admin: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
    let ask = async {
        loop {
            let (status, body) = get(&format!("{admin}/readyz")).await;
            let body = serde_json::from_str(&body).expect("the answer is JSON");
            if wanted(status, &body) {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ask)
        .await
        .expect("it becomes what is wanted")
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_reported_from_start_to_stop() {
    let system = System::start().await;
    let mut service = Service::start("drains", &system, &[]);
    let admin = service.admin().await;
    assert_eq!(get(&format!("{admin}/healthz")).await, (200, "ok\n".to_owned()));
    let ready = readyz(&admin, |status, _| status == 200).await;
    assert_eq!(ready["ready"], true);
    for condition in ["nats", "postgres", "drained"] {
        assert_eq!(ready["conditions"][condition]["ok"], true, "{condition}");
    }
    let (status, metrics) = get(&format!("{admin}/metrics")).await;
    assert_eq!(status, 200);
    for line in [
        r#"tidings_nats_connected{service="test"} 1"#,
        r#"tidings_ready{service="test"} 1"#,
        r#"process_resident_memory_bytes{service="test"} "#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }

    service.signal(Signal::SIGTERM);
    let draining = readyz(&admin, |status, _| status == 503).await;
    assert_eq!(
        (&draining["ready"], &draining["draining"]),
        (&Value::Bool(false), &Value::Bool(true))
    );
    assert_eq!(
        get(&format!("{admin}/healthz")).await.0,
        200,
        "who drains is alive"
    );
    drop(service.child.stdin.take());
    assert_eq!(service.exit().await.code(), Some(0), "the task was awaited");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_as_it_is_told() {
    let system = System::start().await;

    let mut service = Service::start("obeys", &system, &[]);
    let admin = service.admin().await;
    readyz(&admin, |status, _| status == 200).await;
    service.signal(Signal::SIGINT);
    assert_eq!(service.exit().await.code(), Some(0));

    let mut service = Service::start("does not stop", &system, &[]);
    readyz(&service.admin().await, |status, _| status == 200).await;
    service.signal(Signal::SIGTERM);
    service.logs("draining").await;
    service.signal(Signal::SIGTERM);
    service.logs("at once").await;
    assert_eq!(service.exit().await.code(), Some(130));

    let mut service = Service::start("does not stop", &system, &[("TIDINGS_DRAIN_TIMEOUT", "0.1")]);
    readyz(&service.admin().await, |status, _| status == 200).await;
    service.signal(Signal::SIGTERM);
    service.logs("not drained after 0.1 s").await;
    assert_eq!(service.exit().await.code(), Some(1));

    let mut service = Service::start("obeys", &system, &[("TIDINGS_EXIT_WITH_STDIN", "1")]);
    readyz(&service.admin().await, |status, _| status == 200).await;
    drop(service.child.stdin.take());
    service.logs("end of standard input").await;
    assert_eq!(service.exit().await.code(), Some(0));

    for (behaviour, reason) in [
        ("fails", "stopped: on purpose"),
        ("panics", "stopped: reader: panicked"),
    ] {
        let mut service = Service::start(behaviour, &system, &[]);
        service.logs(reason).await;
        assert_eq!(service.exit().await.code(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_nats_and_comes_back_to_it() {
    let mut system = System::start().await;
    system.nats.kill().await;
    let mut service = Service::start("obeys", &system, &[]);
    let admin = service.admin().await;
    let log = service.logs("cannot connect to NATS").await.to_string();
    let url = system.nats.url();
    let (login, _) = url.split_once('@').expect("the URL has a login");
    let (_, password) = login.rsplit_once(':').expect("the login has a password");
    assert!(!log.contains(password), "{log}");
    let waiting = readyz(&admin, |_, _| true).await;
    assert_eq!(waiting["conditions"]["nats"]["ok"], false);

    system.nats.start().await.expect("nats-server starts again");
    readyz(&admin, |status, _| status == 200).await;
    system.nats.kill().await;
    let lost = readyz(&admin, |status, _| status == 503).await;
    assert_eq!(lost["conditions"]["nats"]["reason"], "not connected");
    system.nats.start().await.expect("nats-server starts again");
    readyz(&admin, |status, _| status == 200).await;
    service.signal(Signal::SIGTERM);
    assert_eq!(service.exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_in_one_sentence_why_it_does_not_start() {
    let system = System::empty().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = port.local_addr().expect("it is bound").to_string();
    for (variable, value, sentence) in [
        (
            "TIDINGS_NATS_URL",
            "nats://:1:2",
            "--nats-url: URL number 1 cannot be read",
        ),
        ("TIDINGS_POSTGRES_URL", "nonsense", "--postgres-url"),
        (
            "TIDINGS_ADMIN_LISTEN",
            taken.as_str(),
            "--admin-listen: cannot listen on",
        ),
        (
            "TIDINGS_NATS_CREDENTIALS_FILE",
            "/nowhere",
            "--nats-credentials-file: cannot read /nowhere",
        ),
        ("TIDINGS_LOG_FORMAT", "json", "run `tidings setup`"),
    ] {
        let mut service = Service::start("obeys", &system, &[(variable, value)]);
        service.logs(sentence).await;
        assert_eq!(service.exit().await.code(), Some(1), "{variable}");
    }
}
