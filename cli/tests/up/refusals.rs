//! What keeps it from starting is said in one sentence.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::command::{Folder, run};

/// Runs a command that must fail, with nothing on standard output. Its last line is the sentence.
fn refused(command: Command) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).expect("it is text");
    said.lines().last().expect("it says why").to_owned()
}

#[test]
fn a_port_in_use() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = listener.local_addr().expect("it is bound").port();
    assert_eq!(
        refused(folder.command(&["--port", &port.to_string()])),
        format!(
            "tidings: port {port} of 127.0.0.1 is in use, so gateway-1 cannot listen there: give another --port"
        )
    );
}

#[test]
fn a_folder_that_cannot_be_written() {
    let folder = Folder::new();
    let file = folder.path().join("file");
    fs::write(&file, "").expect("the folder is writable");
    let up = |dir: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command.arg("up").arg("--dir").arg(dir);
        refused(command)
    };
    let below = file.join("below");
    assert_eq!(
        up(&below),
        format!(
            "tidings: cannot make the folder {}: Not a directory (os error 20)",
            below.display()
        )
    );
    assert_eq!(up(&file), format!("tidings: {} is not a folder", file.display()));
    // Not even root can write there.
    let said = up(std::path::Path::new("/proc/self"));
    assert!(
        said.starts_with("tidings: cannot write to the folder /proc/self: "),
        "{said}"
    );
}

#[test]
fn a_server_that_is_missing_or_broken() {
    let folder = Folder::new();
    let missing = folder.path().join("nats-server");
    let with = |name: &str, value: &std::path::Path| {
        let mut command = folder.command(&[]);
        command.env(name, value);
        refused(command)
    };
    assert_eq!(
        with("TIDINGS_NATS_SERVER", &missing),
        format!(
            "tidings: TIDINGS_NATS_SERVER: there is no program {}",
            missing.display()
        )
    );
    fs::write(&missing, "#!/bin/sh\necho no such instruction >&2\nexit 4\n").expect("the folder is writable");
    fs::set_permissions(&missing, fs::Permissions::from_mode(0o755)).expect("it is ours");
    assert_eq!(
        with("TIDINGS_NATS_SERVER", &missing),
        format!(
            "tidings: TIDINGS_NATS_SERVER: {} is broken: `--version` ended with exit status: 4 and said: no such instruction",
            missing.display()
        )
    );
    assert_eq!(
        with("TIDINGS_POSTGRES_BIN", folder.path()),
        format!(
            "tidings: TIDINGS_POSTGRES_BIN: there is no program {}/postgres",
            folder.path().display()
        )
    );
}

#[test]
fn a_server_that_answers_and_does_not_run() {
    let folder = Folder::new();
    let broken = folder.path().join("broken");
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && { echo nats-server: v2.15.1; exit 0; }\necho 'nats-server: no memory' >&2\nexit 1\n";
    fs::write(&broken, script).expect("the folder is writable");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut command = folder.command(&[]);
    command.env("TIDINGS_NATS_SERVER", &broken);
    assert_eq!(
        refused(command),
        format!(
            "tidings: nats-1 exited with code 1: nats-server: no memory (log: {}/logs/nats-1.log)",
            folder.path().display()
        )
    );
}

/// Only root has to run Postgres as somebody else.
#[test]
fn a_folder_that_postgres_may_not_reach() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let folder = Folder::new();
    let closed = folder.path();
    fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let dir = closed.join("system");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.arg("up").arg("--dir").arg(&dir);
    assert_eq!(
        refused(command),
        format!(
            "tidings: Postgres cannot run as root, and `nobody`, as whom it runs instead, may not enter {}: choose \
             another folder with --dir, or start as another user",
            closed.display()
        )
    );
    assert!(!dir.exists(), "nothing was made");
}
