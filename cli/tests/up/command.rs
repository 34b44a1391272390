//! The command, with a folder of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tidings_cli::{UpFile, UpProcess};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A folder for systems.
pub(crate) struct Folder {
    temp: TempDir,
}

/// A running `tidings up`. Killed when dropped, which takes its processes along.
pub(crate) struct Up {
    child: Child,
    stdout: BufReader<ChildStdout>,
    dir: PathBuf,
    errors: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let temp = TempDir::with_prefix("tidings-up-").expect("the temporary folder is writable");
        Self { temp }
    }

    pub(crate) fn path(&self) -> &Path {
        self.temp.path()
    }

    /// `tidings up` in this folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command.arg("up").arg("--dir").arg(self.path()).args(args);
        command
    }

    /// Starts it.
    pub(crate) fn up(&self, args: &[&str]) -> Up {
        let errors = self.path().with_extension("stderr");
        let file = fs::File::create(&errors).expect("the temporary folder is writable");
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().expect("the command was built");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Up {
            child,
            stdout,
            dir: self.path().to_owned(),
            errors,
        }
    }
}

impl Up {
    /// Reads the line that says that everything answers.
    pub(crate) fn ready(&mut self) -> UpFile {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("standard output is text");
        let up = UpFile::read(&self.dir);
        let up = up.unwrap_or_else(|error| panic!("{error:#}; standard error: {}", self.said()));
        assert_eq!(line, format!("ready {}\n", up.ws[0]));
        up
    }

    /// What it has said to people.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.errors).expect("standard error is text")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it has not been waited for");
    }

    /// Waits for its end. The exit code, and what standard output still had.
    pub(crate) fn ended(&mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stdout
            .read_to_string(&mut rest)
            .expect("standard output is text");
        (self.child.wait().expect("it is our child").code(), rest)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("standard error of `tidings up`:\n{}", self.said());
        }
        let _ = fs::remove_file(&self.errors);
    }
}

/// The process of a name.
pub(crate) fn process<'a>(up: &'a UpFile, name: &str) -> &'a UpProcess {
    let process = up.processes.iter().find(|process| process.name == name);
    process.unwrap_or_else(|| panic!("no process {name} in {up:?}"))
}

/// Runs a command to its end, which must come by itself.
pub(crate) fn run(mut command: Command) -> Output {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command was built");
    let began = Instant::now();
    while child.try_wait().expect("it is our child").is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().expect("it is our child");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("it is our child")
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
