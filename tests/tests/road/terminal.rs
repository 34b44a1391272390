//! `tidings chat`, as a person uses it, through pipes.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;

use tidings_protocol::UserId;
use tidings_tests::{Identity, PATIENCE, System, SystemOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// A `tidings chat` that runs.
pub(crate) struct Terminal {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// What it said that nobody asked for.
    passed: VecDeque<String>,
}

impl Terminal {
    pub(crate) fn open(system: &System, user: &UserId, more: &[&str]) -> Self {
        Self::open_in(Path::new("."), system, user, more)
    }

    /// The same in a folder, where it saves files.
    pub(crate) fn open_in(folder: &Path, system: &System, user: &UserId, more: &[&str]) -> Self {
        let mut child = Command::new(System::executable())
            .current_dir(folder)
            .args(["chat", "--user", user.as_str()])
            .args(more)
            .arg("--dir")
            .arg(system.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the command under test was built with this package");
        let input = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        Self {
            child,
            input,
            output: BufReader::new(output).lines(),
            passed: VecDeque::new(),
        }
    }

    pub(crate) async fn write(&mut self, line: &str) {
        self.input.write_all(line.as_bytes()).await.expect("it reads");
        self.input.write_all(b"\n").await.expect("it reads");
    }

    /// The next line that has `text` in it.
    pub(crate) async fn sees(&mut self, text: &str) -> String {
        self.reads_until(text, |line| line.contains(text)).await
    }

    /// Reads until so many percent of a file have passed, or more: one step may pass by a quarter. Reading it for its hash
    /// does not count.
    pub(crate) async fn sees_percent(&mut self, least: u32) {
        let percent =
            |line: &str| -> Option<u32> { line.split(" %").next()?.rsplit(' ').next()?.parse().ok() };
        self.reads_until(&format!("{least} %"), |line| {
            !line.contains("reading") && percent(line).is_some_and(|percent| percent >= least)
        })
        .await;
    }

    async fn reads_until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let next = timeout(PATIENCE, self.output.next_line()).await;
            let next = next.unwrap_or_else(|_| panic!("never: {what:?}; it said {:?}", self.passed));
            let line = next.expect("standard output is text");
            let line = line.unwrap_or_else(|| panic!("it ended before {what:?}; it said {:?}", self.passed));
            if wanted(&line) {
                return line;
            }
            self.passed.push_back(line);
        }
    }

    /// Kills it, and returns when it is dead.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it ran");
    }

    /// Ends its input and waits for its end.
    pub(crate) async fn end(mut self) {
        drop(self.input);
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends with its input");
        assert!(status.expect("it ran").success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_talk_in_terminals_while_the_gateway_dies() {
    let one_gateway = SystemOptions {
        gateways: 1,
        ..SystemOptions::default()
    };
    let system = System::start(&one_gateway).await;
    let [alice, bob] = ["alice", "bob"].map(|name| Identity::fresh(name).user_id);
    let mut hers = Terminal::open(&system, &alice, &["--with", bob.as_str()]);
    hers.sees(&format!("{bob} has not connected yet")).await;
    hers.write("hello \u{1b}[2Jbob").await;
    hers.sees("you: hello [2Jbob …").await;
    hers.sees("you: hello [2Jbob ✓ ").await;

    let mut his = Terminal::open(&system, &bob, &["--with", alice.as_str()]);
    let line = his.sees(&format!("{alice}: hello")).await;
    assert!(!line.contains('\u{1b}'), "{line:?} steers the terminal");
    his.write("hi").await;
    hers.sees(&format!("{bob}: hi")).await;

    system.kill_and_wait("gateway-1").await;
    hers.sees("connection lost").await;
    hers.write("are you still there?").await;
    hers.sees("you: are you still there? …").await;
    hers.sees("you: are you still there? ✓ ").await;
    his.sees(&format!("{alice}: are you still there?")).await;
    his.end().await;

    hers.write("/create Lunch carol").await;
    hers.sees("this is the chat with Lunch").await;
    hers.write("who is hungry?").await;
    hers.sees("who is hungry? ✓").await;
    hers.write(&format!("/add {bob}")).await;
    hers.sees(&format!("you added {bob}")).await;
    hers.write("/list").await;
    hers.sees("2 Lunch (3 people)").await;
    hers.end().await;

    // What was said before is on his disk, and what he missed waits.
    let mut his = Terminal::open(&system, &bob, &["--group", "Lunch"]);
    his.sees("this is the chat with Lunch").await;
    his.write(&format!("/open {alice}")).await;
    his.sees("you: hi").await;
    his.sees("are you still there?").await;
    his.end().await;
}
