//! Takes a server along when our own process dies without stopping it.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use nix::sys::signal::Signal;

/// A shell that reads from a pipe whose other end only we hold: it reads an end of file when we die, however we
/// do. Then it stops the server, and kills it when it has not stopped after ten seconds.
const SCRIPT: &str = r#"read -r _
kill -s "$2" "$1" 2>/dev/null || exit 0
i=0
while [ "$i" -lt 100 ]; do
  sleep 0.1
  kill -0 "$1" 2>/dev/null || exit 0
  i=$((i + 1))
done
kill -s KILL "$1" 2>/dev/null"#;

/// Watches over one process until it is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
}

impl Guard {
    /// Stops `pid` by `signal` when we die.
    pub(crate) fn watch(pid: u32, signal: Signal) -> anyhow::Result<Self> {
        let name = signal.as_str().trim_start_matches("SIG");
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "tidings-guard", &pid.to_string(), name])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C at a terminal goes to a whole group of processes.
            .process_group(0)
            .spawn()
            .context("cannot run /bin/sh")?;
        Ok(Self { shell })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Killed before its pipe closes. It has been waited for by nobody else, so it is there.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
