//! What the kernel knows about this process, under the names that Prometheus dashboards expect. Linux only; where
//! `/proc` is missing nothing is reported.

use std::fs;
use std::sync::OnceLock;

use tidings_protocol::Timestamp;

use crate::clock;

/// Of `utime` and `stime` in `/proc/self/stat`: `USER_HZ`, which is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Sets the gauges `process_*`.
pub(crate) fn report() {
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        if let Some(kibibytes) = status_field(&status, "VmRSS:") {
            metrics::gauge!("process_resident_memory_bytes").set((kibibytes * 1024) as f64);
        }
        if let Some(threads) = status_field(&status, "Threads:") {
            metrics::gauge!("process_threads").set(threads as f64);
        }
    }
    if let Some(seconds) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(cpu_seconds)
    {
        metrics::gauge!("process_cpu_seconds_total").set(seconds);
    }
    metrics::gauge!("process_start_time_seconds").set(began() as f64 / 1000.0);
    if let Some(most) = fs::read_to_string("/proc/self/limits")
        .ok()
        .as_deref()
        .and_then(|limits| status_field(limits, "Max open files"))
    {
        metrics::gauge!("process_max_fds").set(most as f64);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(descriptors.count() as f64);
    }
}

/// When this was first asked, which is when the process begins to report.
fn began() -> i64 {
    static BEGAN: OnceLock<Timestamp> = OnceLock::new();
    BEGAN.get_or_init(clock::now).0
}

/// The first number after a field's name.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time. The second field is the program's name in parentheses and may contain anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(
            status_field("Name:\tx\nVmRSS:\t  5132 kB\nThreads:\t3\n", "VmRSS:"),
            Some(5132)
        );
        assert_eq!(status_field("Name:\tx\n", "VmRSS:"), None);
        let limits =
            "Limit      Soft Limit   Hard Limit   Units\nMax open files      1024      20000      files\n";
        assert_eq!(status_field(limits, "Max open files"), Some(1024));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 3 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }
}
