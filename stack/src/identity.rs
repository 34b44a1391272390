//! Which process a pid means: pids are given out again, a pid and the time of its start are not.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a process that was told to stop is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// When a process started, in a form of the kernel's own. `None` where there is no such process, or only one that
/// has ended and that its parent has not taken notice of.
pub fn started(pid: u32) -> Option<String> {
    if Path::new("/proc/self/stat").exists() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may contain anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        if fields.next()? == "Z" {
            return None;
        }
        return fields.nth(18).map(str::to_owned);
    }
    let output = Command::new("ps")
        .args(["-o", "lstart=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Stops a process that an earlier run left behind, if it is still the one that started then: by `signal`, and
/// after `patience` by killing it. Blocks until it is gone. Says whether there was one.
pub fn stop_leftover(pid: u32, started_then: &str, signal: Signal, patience: Duration) -> bool {
    let lives = || started(pid).as_deref() == Some(started_then);
    if !lives() {
        return false;
    }
    let target = Pid::from_raw(pid.cast_signed());
    let _ = kill(target, signal);
    let began = Instant::now();
    let mut killed = false;
    while lives() {
        if !killed && began.elapsed() > patience {
            let _ = kill(target, Signal::SIGKILL);
            killed = true;
        }
        // Killed and still there: the kernel is at it, for instance writing to a disk that does not answer.
        if began.elapsed() > patience + Duration::from_secs(5) {
            break;
        }
        std::thread::sleep(INTERVAL);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let mut child = Command::new("sleep")
            .arg("100")
            .spawn()
            .expect("sleep can be run");
        let since = started(child.id()).expect("the process lives");
        assert!(!stop_leftover(
            child.id(),
            "long ago",
            Signal::SIGTERM,
            Duration::from_secs(5)
        ));
        assert_eq!(started(child.id()), Some(since.clone()));
        assert!(stop_leftover(
            child.id(),
            &since,
            Signal::SIGTERM,
            Duration::from_secs(5)
        ));
        assert_eq!(
            started(child.id()),
            None,
            "what nobody waits for has ended all the same"
        );
        child.wait().expect("the child is ours");
    }
}
