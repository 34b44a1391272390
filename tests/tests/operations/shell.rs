//! A shell as an operator has it: `nats` and `tidings` on PATH, and where the system is.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tidings_nats::NatsUser;
use tidings_tests::System;
use tokio::process::Command;

use crate::nats_command;

/// Where commands run. Its home is empty, so that nobody's `nats` contexts are taken.
pub(crate) struct Shell {
    home: TempDir,
    path: String,
    variables: Vec<(String, String)>,
}

impl Shell {
    /// For a running system.
    pub(crate) async fn of(system: &System) -> Self {
        Self::with(system, &[nats_command::folder().await.to_owned()])
    }

    /// The same for a test that needs no `nats`, which takes minutes to be built.
    pub(crate) fn without_nats(system: &System) -> Self {
        Self::with(system, &[])
    }

    fn with(system: &System, more: &[PathBuf]) -> Self {
        let home = TempDir::with_prefix("tidings-operator-").expect("a folder for the test");
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).expect("the folder is writable");
        std::os::unix::fs::symlink(System::executable(), bin.join("tidings"))
            .expect("the folder is writable");
        let mut folders = vec![bin];
        folders.extend_from_slice(more);
        folders.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        let path = std::env::join_paths(folders).expect("they came from PATH");
        let path = path.into_string().expect("PATH is text");
        let dir = system.dir().to_str().expect("the folder's name is text");
        let variables = vec![
            ("TIDINGS_DIR".to_owned(), dir.to_owned()),
            ("NATS_URL".to_owned(), system.up_file().nats),
            ("NATS_NKEY".to_owned(), seed(system, NatsUser::Operator)),
        ];
        Self {
            home,
            path,
            variables,
        }
    }

    /// Makes `nats` log in as another user than the operator.
    pub(crate) fn log_in(&mut self, system: &System, user: NatsUser) {
        self.set("NATS_NKEY", seed(system, user));
    }

    /// Takes a variable away.
    pub(crate) fn unset(&mut self, name: &str) {
        self.variables.retain(|(other, _)| other != name);
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        self.unset(name);
        self.variables.push((name.to_owned(), value));
    }

    /// Lets commands be found in another folder first.
    pub(crate) fn prepend_path(&mut self, folder: &str) {
        self.path = format!("{folder}:{}", self.path);
    }

    /// The folder in which commands run.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// A command to be started.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-e", "-c", script])
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", self.home.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a script to its end.
    pub(crate) async fn run(&self, script: &str) -> Output {
        self.command(script).output().await.expect("there is a shell")
    }

    /// Runs a script that must succeed, and gives what it printed.
    pub(crate) async fn text(&self, script: &str) -> String {
        let output = self.run(script).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {errors}");
        String::from_utf8(output.stdout).expect("commands print text")
    }

    /// Runs a script that must print JSON.
    pub(crate) async fn json(&self, script: &str) -> Value {
        let text = self.text(script).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{script}: {error}: {text}"))
    }

    /// Runs a script that must fail with exit code 1, no output and one sentence, which is given.
    pub(crate) async fn failure(&self, script: &str) -> String {
        let output = self.run(script).await;
        let sentence = String::from_utf8(output.stderr).expect("commands print text");
        assert_eq!(output.status.code(), Some(1), "{script}: {sentence}");
        assert!(output.stdout.is_empty(), "{script}");
        assert_eq!(sentence.lines().count(), 1, "{script}: {sentence}");
        assert!(sentence.starts_with("tidings: "), "{script}: {sentence}");
        sentence
    }
}

/// The file of a NATS user's seed.
fn seed(system: &System, user: NatsUser) -> String {
    let file = system.up_file().nats_seed_file(user);
    let file = file.expect("up.json says where seeds are").into_os_string();
    file.into_string().expect("the folder's name is text")
}
