//! The workload and the judge with nothing in between, and with processes that are killed one after the other.

use std::time::Duration;

use nix::sys::signal::Signal;
use tidings_tests::history::{Happening, Recorder, Run};
use tidings_tests::judge::{judge, timings};
use tidings_tests::workload::{Targets, Workload, WorkloadOptions, WorkloadReport};
use tidings_tests::{Stored, System, SystemOptions, eventually};

/// Messages that are accepted before the next thing is done: enough that whoever is hit has some in hand.
const BETWEEN: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_keeps_every_promise() {
    let system = System::start(&SystemOptions::default()).await;
    let seed = 1;
    let recorder = Recorder::in_memory();
    let workload = Workload::start(targets(&system), seed, options(), recorder.clone()).await;
    workload.until_accepted(workload.accepted() + BETWEEN).await;
    for name in [
        "gateway-1",
        "fanout-worker-1",
        "inbox-worker-1",
        "nats-1",
        "postgres",
    ] {
        recorder.happened(Happening::begins("SIGKILL", name));
        kill(&system, name).await;
        recorder.happened(Happening::ends("SIGKILL", name));
        workload.until_accepted(workload.accepted() + BETWEEN).await;
    }
    let report = workload.finish().await;
    let (records, events) = recorder.finish().expect("nothing is written to a disk");
    let left = Stored::of(&system).await;
    let stored = left.left(&report.users, &report.clients).await;
    let run = Run {
        records,
        events,
        stored: Some(stored),
    };
    clean(seed, &report, &run);
}

/// Kills a process and waits for the next one; services say themselves when they are ready.
async fn kill(system: &System, name: &str) {
    let old = system.process(name).pid;
    system.signal(name, Signal::SIGKILL);
    eventually(&format!("another {name} runs"), async || {
        let pid = system.process(name).pid;
        if pid == old { Err(pid) } else { Ok(()) }
    })
    .await;
    if !matches!(name, "nats-1" | "postgres") {
        system.until_ready(name).await;
    }
}

fn targets(system: &System) -> Targets {
    let up = system.up_file();
    Targets {
        urls: up.ws,
        media: up.media.into_iter().collect(),
        secret: up.jwt_secret,
    }
}

fn options() -> WorkloadOptions {
    WorkloadOptions {
        users: 16,
        late_users: 2,
        groups: 8,
        length: Duration::from_secs(20),
        device_events_per_minute: 120.0,
        changes_per_minute: 60.0,
        ..WorkloadOptions::default()
    }
}

fn clean(seed: u64, report: &WorkloadReport, run: &Run) {
    let verdict = judge(run);
    eprintln!("seed {seed}: {report}\n{}\n{verdict}", timings(run));
    assert!(verdict.is_clean(), "seed {seed}: {report}\n{verdict}");
    assert!(report.accepted > BETWEEN, "the workload did something: {report}");
}
