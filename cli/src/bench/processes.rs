//! CPU time and memory of the processes of the system, and of this one, as Linux tells them under `/proc`.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::UpProcess;

/// `USER_HZ`: 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A moment: how much each process had used by then.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    at: Instant,
    /// As the system lists them. A process that cannot be read has used nothing.
    processes: Vec<(String, Usage)>,
    own: Usage,
    /// Of all processors together, not idle.
    busy_seconds: Option<f64>,
}

#[derive(Copy, Clone, Debug, Default)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
}

/// What a process used between two samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spent {
    pub(crate) name: String,
    pub(crate) cpu_seconds: f64,
    /// Resident at the end: the process's own, and what its children do not share with anybody.
    pub(crate) resident_bytes: u64,
    /// By how much that had grown.
    pub(crate) grown_bytes: i64,
}

/// What was used between two samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Interval {
    pub(crate) seconds: f64,
    /// The processes of the system; empty where they are not known.
    pub(crate) servers: Vec<Spent>,
    /// This process.
    pub(crate) load_generator: Spent,
    pub(crate) machine: Option<Machine>,
}

/// The machine's processors between two samples.
#[derive(Copy, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    /// Seconds of processors that were not idle, all processors together.
    pub(crate) busy_seconds: f64,
    /// Of those, neither the system nor the load generator: compilers, other people.
    pub(crate) other_seconds: f64,
}

impl Sample {
    /// Looks now.
    pub(crate) fn take(processes: &[UpProcess]) -> Self {
        let stats = Stats::read();
        Self {
            at: Instant::now(),
            processes: processes
                .iter()
                .map(|process| (process.name.clone(), stats.usage_of_tree(process.pid)))
                .collect(),
            own: stats.usage_of_tree(std::process::id()),
            busy_seconds: busy_seconds(),
        }
    }

    /// What was used since an earlier sample of the same processes.
    pub(crate) fn since(&self, earlier: &Self) -> Interval {
        let servers: Vec<Spent> = self
            .processes
            .iter()
            .zip(&earlier.processes)
            .map(|((name, now), (_, before))| spent(name, *now, *before))
            .collect();
        let load_generator = spent("load generator", self.own, earlier.own);
        let ours: f64 = servers.iter().map(|spent| spent.cpu_seconds).sum();
        let machine = self.busy_seconds.zip(earlier.busy_seconds).map(|(busy, before)| {
            let busy_seconds = busy - before;
            Machine {
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                busy_seconds,
                other_seconds: (busy_seconds - ours - load_generator.cpu_seconds).max(0.0),
            }
        });
        Interval {
            seconds: self.at.duration_since(earlier.at).as_secs_f64(),
            servers,
            load_generator,
            machine,
        }
    }

    /// Resident bytes of the processes whose name begins with this.
    pub(crate) fn resident_bytes(&self, prefix: &str) -> u64 {
        self.processes
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, usage)| usage.resident_bytes)
            .sum()
    }
}

fn spent(name: &str, now: Usage, before: Usage) -> Spent {
    Spent {
        name: name.to_owned(),
        // A process that was started again begins at zero.
        cpu_seconds: (now.cpu_seconds - before.cpu_seconds).max(0.0),
        resident_bytes: now.resident_bytes,
        grown_bytes: now.resident_bytes as i64 - before.resident_bytes as i64,
    }
}

/// Waits until the resident memory of the processes has come to rest, or until patience ends.
pub(crate) async fn settle(processes: &[UpProcess], prefix: &str, patience: Duration) {
    const STEP: Duration = Duration::from_secs(1);
    const STEPS_AT_REST: u32 = 3;
    let began = Instant::now();
    let (mut last, mut at_rest) = (0, 0);
    while at_rest < STEPS_AT_REST && began.elapsed() < patience {
        let now = Sample::take(processes).resident_bytes(prefix);
        // Within a quarter of a percent.
        at_rest = if now.abs_diff(last) <= now / 400 {
            at_rest + 1
        } else {
            0
        };
        last = now;
        tokio::time::sleep(STEP).await;
    }
}

/// Waits until the processes use little CPU time, or until patience ends; where they are not known, for a while.
pub(crate) async fn rest(processes: &[UpProcess], patience: Duration) {
    const STEP: Duration = Duration::from_millis(500);
    /// A part of a core. A system at rest uses a tenth of this in a release build.
    const LITTLE: f64 = 0.3;
    const STEPS_UNKNOWN: u32 = 4;
    if processes.is_empty() {
        return tokio::time::sleep(STEP * STEPS_UNKNOWN).await;
    }
    let began = Instant::now();
    let mut last = Sample::take(processes);
    while began.elapsed() < patience {
        tokio::time::sleep(STEP).await;
        let now = Sample::take(processes);
        let interval = now.since(&last);
        let used: f64 = interval.servers.iter().map(|spent| spent.cpu_seconds).sum();
        if used < interval.seconds * LITTLE {
            return;
        }
        last = now;
    }
}

/// The `stat` of every process.
struct Stats {
    by_pid: HashMap<u32, Stat>,
    children: HashMap<u32, Vec<u32>>,
}

#[derive(Copy, Clone, Debug, PartialEq)]
struct Stat {
    parent: u32,
    /// Its own, and that of children which it has waited for.
    cpu_seconds: f64,
}

impl Stats {
    fn read() -> Self {
        let mut stats = Self {
            by_pid: HashMap::new(),
            children: HashMap::new(),
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids {
            let text = fs::read_to_string(format!("/proc/{pid}/stat"));
            if let Some(stat) = text.ok().as_deref().and_then(parse_stat) {
                stats.children.entry(stat.parent).or_default().push(pid);
                stats.by_pid.insert(pid, stat);
            }
        }
        stats
    }

    /// A process and its descendants: Postgres serves each connection by a process of its own. What they share
    /// with it is counted once, at the root.
    fn usage_of_tree(&self, root: u32) -> Usage {
        let mut usage = Usage::default();
        let mut pids = vec![root];
        while let Some(pid) = pids.pop() {
            let Some(stat) = self.by_pid.get(&pid) else {
                continue;
            };
            usage.cpu_seconds += stat.cpu_seconds;
            let field = if pid == root { "VmRSS:" } else { "RssAnon:" };
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            usage.resident_bytes += status_kibibytes(&status, field).unwrap_or(0) * 1024;
            pids.extend(self.children.get(&pid).into_iter().flatten());
        }
        usage
    }
}

/// The second field is the program's name in parentheses and may contain anything.
fn parse_stat(stat: &str) -> Option<Stat> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: Option<f64> = fields
        .get(11..15)?
        .iter()
        .map(|field| field.parse::<f64>().ok())
        .sum();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        cpu_seconds: ticks? / TICKS_PER_SECOND,
    })
}

fn status_kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Of all processors.
fn busy_seconds() -> Option<f64> {
    parse_busy(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse_busy(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // user nice system idle iowait irq softirq steal; what follows is counted in user already.
    let ticks: Vec<f64> = line
        .split_whitespace()
        .take(7)
        .map_while(|field| field.parse().ok())
        .collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((ticks.iter().sum::<f64>() - idle) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 3 0";
        assert_eq!(
            parse_stat(stat),
            Some(Stat {
                parent: 1,
                cpu_seconds: 2.5
            })
        );
        assert_eq!(parse_stat("nonsense"), None);
        let status = "Name:\tx\nVmRSS:\t  5132 kB\nRssAnon:\t 4 kB\n";
        assert_eq!(status_kibibytes(status, "RssAnon:"), Some(4));
        let busy = parse_busy("cpu  100 0 100 300 100 0 0 50 7 7\ncpu0 1\n").expect("well-formed");
        assert!((busy - 2.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_can_be_read() {
        let own = UpProcess {
            name: "own-1".to_owned(),
            pid: std::process::id(),
            admin: None,
            log: std::path::PathBuf::new(),
        };
        let before = Sample::take(std::slice::from_ref(&own));
        assert!(before.resident_bytes("own") > 100_000);
        assert_eq!(before.resident_bytes("other"), 0);
        let interval = Sample::take(&[own]).since(&before);
        assert_eq!(interval.servers[0].name, "own-1");
    }
}
