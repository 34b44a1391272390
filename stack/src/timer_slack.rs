//! By how much a process may be woken later than it asked to be.

use std::time::Duration;

/// For a program in Go, whose monitor thread sleeps for 20 microseconds again and again while anything goes on. With the
/// kernel's slack of 50 microseconds that is a quarter of what nats-server takes with little to do (docs/PERFORMANCE.md). No
/// timer of a server needs to be more exact than this, and messages do not wait for timers. That thread also finds out when a
/// call of the system takes long, as writing to a slow disk does, and lets others go on; until then they wait as long as this.
pub(crate) const OF_SERVERS: Duration = Duration::from_millis(10);

/// Starts something that inherits a timer slack from this thread (`PR_SET_TIMERSLACK`, prctl(2)), or a larger one that is
/// set already. Where the kernel knows of none, nothing is changed: it only costs time.
#[cfg(target_os = "linux")]
pub(crate) fn with_timer_slack<T>(slack: Duration, spawn: impl FnOnce() -> T) -> T {
    use nix::sys::prctl::{get_timerslack, set_timerslack};

    let before = get_timerslack().ok().and_then(|slack| u64::try_from(slack).ok());
    let wanted = u64::try_from(slack.as_nanos()).unwrap_or(u64::MAX);
    let changed = before.is_some_and(|before| before < wanted) && set_timerslack(wanted).is_ok();
    let spawned = spawn();
    if let Some(before) = before.filter(|_| changed) {
        // It was set before, so it can be set.
        let _ = set_timerslack(before);
    }
    spawned
}

/// Starts something; this system knows of no timer slack.
#[cfg(not(target_os = "linux"))]
pub(crate) fn with_timer_slack<T>(_slack: Duration, spawn: impl FnOnce() -> T) -> T {
    spawn()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    fn of_a_child() -> String {
        let mut cat = Command::new("cat");
        let output = cat.arg("/proc/self/timerslack_ns").output().expect("cat runs");
        String::from_utf8(output.stdout).expect("a number")
    }

    #[test]
    fn a_child_has_it_and_we_do_not() {
        let before = of_a_child();
        let child = with_timer_slack(Duration::from_nanos(1_234_567), of_a_child);
        assert_eq!(child.trim(), "1234567");
        assert_eq!(of_a_child(), before);
        let inner = || with_timer_slack(Duration::from_millis(1), of_a_child);
        let larger = with_timer_slack(Duration::from_nanos(1_234_567), inner);
        assert_eq!(larger.trim(), "1234567", "a larger one stays");
    }
}
