//! It runs, keeps running what it started, and leaves nothing behind.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidings_cli::UpFile;
use tidings_stack::started;

use crate::command::{Folder, Up, process, run, until};

/// Waits until none of the processes lives.
fn until_gone(up: &UpFile) {
    for process in &up.processes {
        until(&format!("{} is gone", process.name), || {
            started(process.pid).is_none()
        });
    }
}

/// Ends a process by SIGKILL and waits for another one.
fn kill_and_wait(folder: &Folder, up: &Up, name: &str) {
    let before = UpFile::read(folder.path()).expect("it runs");
    let pid = process(&before, name).pid;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("the process lives");
    until(&format!("another {name} runs"), || {
        let now = UpFile::read(folder.path()).expect("it runs");
        let new = process(&now, name).pid;
        new != pid && up.said().contains(&format!("{name} (pid {new}) is back"))
    });
    assert!(up.said().contains(&format!(
        "{name} (pid {pid}) was killed by SIGKILL; starting it again"
    )));
}

#[test]
fn what_dies_is_started_again_and_data_stays() {
    let folder = Folder::new();
    let mut up = folder.up(&["--gateways", "2"]);
    let first = up.ready();
    let names: Vec<&str> = first
        .processes
        .iter()
        .map(|process| process.name.as_str())
        .collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "fanout-worker-1",
            "gateway-1",
            "gateway-2",
            "inbox-worker-1",
            "media-1",
            "nats-1",
            "postgres"
        ]
    );
    assert_eq!(first.ws.len(), 2);
    let file = fs::metadata(UpFile::path(folder.path())).expect("it runs");
    assert_eq!(file.mode() & 0o777, 0o600, "it has secrets");
    for process in &first.processes {
        assert!(started(process.pid).is_some(), "{} lives", process.name);
    }

    let second = run(folder.command(&[]));
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).expect("it is text");
    assert!(
        said.starts_with("tidings: ") && said.contains("is in use by another `tidings up` (pid "),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(UpFile::read(folder.path()).expect("it still runs"), first);

    for name in [
        "gateway-2",
        "fanout-worker-1",
        "inbox-worker-1",
        "nats-1",
        "postgres",
    ] {
        kill_and_wait(&folder, &up, name);
    }
    let last = UpFile::read(folder.path()).expect("it runs");
    let without_pids = |up: &UpFile| {
        let admins: HashMap<String, Option<String>> = up
            .processes
            .iter()
            .map(|process| (process.name.clone(), process.admin.clone()))
            .collect();
        (
            up.ws.clone(),
            up.nats.clone(),
            up.postgres.clone(),
            up.jwt_secret.clone(),
            admins,
        )
    };
    assert_eq!(
        without_pids(&last),
        without_pids(&first),
        "everything is where it was"
    );

    up.signal(Signal::SIGTERM);
    assert_eq!(
        up.ended(),
        (Some(0), String::new()),
        "one line is all on standard output"
    );
    assert!(up.said().ends_with("stopped\n"));
    until_gone(&last);
    assert!(!UpFile::path(folder.path()).exists(), "nothing runs");

    let mut again = folder.up(&["--gateways", "2"]);
    let up = again.ready();
    assert_eq!(
        without_pids(&up),
        without_pids(&first),
        "ports and secrets are kept"
    );
    assert!(!again.said().contains("making the database"), "data is kept");
    again.signal(Signal::SIGINT);
    assert_eq!(again.ended().0, Some(0));
}

#[test]
fn a_killed_run_leaves_nothing_behind() {
    let folder = Folder::new();
    let mut up = folder.up(&[]);
    let first = up.ready();
    up.signal(Signal::SIGKILL);
    up.ended();
    // At once: what was left is on its way out, and holds ports and data until it is gone.
    let mut again = folder.up(&[]);
    let second = again.ready();
    until_gone(&first);
    assert_eq!((second.ws, second.nats), (first.ws, first.nats), "ports are kept");
    again.signal(Signal::SIGKILL);
    again.ended();
    let second = UpFile::read(folder.path()).expect("nobody removed it");
    until_gone(&second);
}

#[test]
fn a_second_request_stops_at_once() {
    let folder = Folder::new();
    let mut up = folder.up(&[]);
    let file = up.ready();
    // A process that does not answer takes part in no stop in order.
    let worker = Pid::from_raw(process(&file, "inbox-worker-1").pid.cast_signed());
    kill(worker, Signal::SIGSTOP).expect("the process lives");
    up.signal(Signal::SIGINT);
    until("it is stopping", || up.said().contains("stopping"));
    up.signal(Signal::SIGINT);
    assert_eq!(up.ended().0, Some(130));
    until_gone(&file);
}

#[test]
fn three_nats_servers_are_one_cluster() {
    let folder = Folder::new();
    let mut up = folder.up(&["--nats", "3"]);
    let file = up.ready();
    assert_eq!(file.nats.split(',').count(), 3);
    kill_and_wait(&folder, &up, "nats-2");
    up.signal(Signal::SIGTERM);
    assert_eq!(up.ended().0, Some(0));

    let refused = run(folder.command(&["--nats", "1"]));
    let said = String::from_utf8(refused.stderr).expect("it is text");
    let last = said.lines().last().expect("it says why");
    assert!(
        last.contains("is on 3 NATS server(s), so --nats 1 cannot be"),
        "{said}"
    );
}
