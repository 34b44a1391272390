//! A short set of runs of the fault runner, each with every kind of fault once. Longer ones, and other seeds, are for the
//! `faults` program.

use std::path::Path;
use std::time::Duration;

use tidings_tests::faults::{OtherVersion, RigOptions, RunOptions, run_faults};
use tidings_tests::workload::WorkloadOptions;

/// A run that is slowed down by its machine ends after this; every kind of fault takes about half of it.
const LENGTH: Duration = Duration::from_secs(150);
/// Kinds of faults that one NATS server can suffer, and two more.
const FAULTS_ON_ONE: usize = 14;
/// Those that three can suffer, and two more.
const FAULTS_ON_THREE: usize = 17;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_fault_on_one_nats_server_and_on_three() {
    // One after the other: each needs the machine for itself.
    run(1, 1, FAULTS_ON_ONE).await;
    run(2, 3, FAULTS_ON_THREE).await;
}

async fn run(seed: u64, nats: usize, faults_max: usize) {
    let dir = tempfile::Builder::new()
        .prefix("tidings-faults-")
        .tempdir()
        .expect("a folder for temporary files");
    let outcome = run_faults(&RunOptions {
        rig: RigOptions {
            dir: dir.path().to_owned(),
            program: Path::new(env!("CARGO_BIN_EXE_tidings-under-test")).to_owned(),
            other: OtherVersion::default(),
            nats,
            each: 2,
            disk_mib: None,
        },
        seed,
        length: LENGTH,
        faults_max,
        only: Vec::new(),
        longest: Duration::from_secs(4),
        longest_pause: Duration::from_secs(2),
        workload: WorkloadOptions::default(),
    })
    .await
    .unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    eprintln!("seed {seed}: {outcome}");
    if !outcome.is_clean() {
        let dir = dir.keep();
        panic!("seed {seed}, all of it in {}: {outcome}", dir.display());
    }
}
