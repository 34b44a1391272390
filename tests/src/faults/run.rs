//! A run: a system, people who use it, faults, rest, and judgement.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::fault::FaultKind;
use super::other_version::{Step, unread};
use super::rig::{Rig, RigOptions};
use super::schedule::Schedule;
use crate::files_count::count;
use crate::history::{Happening, Recorder, Run};
use crate::judge::{Timings, Verdict, judge, timings};
use crate::workload::{Workload, WorkloadOptions, WorkloadReport};

/// How long the fan-out may take to empty CHATS once everybody is at rest.
const EMPTY_PATIENCE: Duration = Duration::from_secs(30);
/// How often that is looked at.
const EMPTY_INTERVAL: Duration = Duration::from_millis(200);
/// After the end of a fault deliveries have to go on within this.
const RESUME_MAX: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The system.
    pub rig: RigOptions,
    /// Of the workload and of the schedule.
    pub seed: u64,
    /// For how long faults are made.
    pub length: Duration,
    /// At most so many faults; after the last one people go on for the pause that follows it.
    pub faults_max: usize,
    /// The kinds to choose from; all if it is empty.
    pub only: Vec<FaultKind>,
    /// How long a fault lasts at most.
    pub longest: Duration,
    /// How long nothing is done after it at most.
    pub longest_pause: Duration,
    /// What people do. `length` and the seed are this run's.
    pub workload: WorkloadOptions,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How the promises were kept.
    pub verdict: Verdict,
    /// How fast.
    pub timings: Timings,
    /// What the people say; absent when an old run is judged again.
    pub workload: Option<WorkloadReport>,
    /// How often each fault was made.
    pub faults: BTreeMap<String, u64>,
    /// How long after the end of each fault somebody still waited for what was sent in it or shortly after.
    pub resumed: BTreeMap<String, Duration>,
    /// What ended without having been told to, and faults that could not be ended.
    pub surprises: Vec<String>,
}

/// Runs it, and leaves histories, logs and `report.json` in its folder. Nothing may be there yet.
pub async fn run_faults(options: &RunOptions) -> anyhow::Result<Outcome> {
    let dir = &options.rig.dir;
    check_dir(dir)?;
    let recorder = Recorder::to_dir(dir).with_context(|| format!("cannot write to {}", dir.display()))?;
    let rig = Rig::start(&options.rig, recorder.clone()).await?;
    let work = async {
        let workload_options = WorkloadOptions {
            length: options.length,
            ..options.workload.clone()
        };
        let workload = Workload::start(rig.targets(), options.seed, workload_options, recorder.clone()).await;
        let mut surprises = make_faults(&rig, options).await;
        recorder.happened(Happening::note("the faults are over"));
        let report = workload.finish().await;
        surprises.extend(report.surprises.iter().cloned());
        if let Err(error) = until_chats_are_empty(&rig).await {
            surprises.push(format!("{error:#}"));
        }
        match count(&rig.blob_store(), rig.postgres_url()).await {
            Ok(complaints) => surprises.extend(complaints),
            Err(error) => surprises.push(format!("attachments cannot be counted: {error:#}")),
        }
        let stored = rig.store().inboxes().left(&report.users, &report.clients).await;
        anyhow::Ok((report, stored, surprises))
    };
    let (report, stored, mut surprises) = tokio::select! {
        done = work => done?,
        () = rig.supervise() => unreachable!("it goes on for ever"),
    };
    surprises.extend(rig.surprises().await);
    rig.stop().await;
    surprises.extend(unread(&dir.join("logs"))?);
    let (records, events) = recorder.finish()?;
    Run::write_stored(dir, &stored)?;
    let run = Run {
        records,
        events,
        stored: Some(stored),
    };
    let outcome = Outcome::of(&run, Some(report), surprises);
    let report = serde_json::to_vec_pretty(&outcome.json(options.seed))?;
    std::fs::write(dir.join("report.json"), report)?;
    Ok(outcome)
}

/// Says why a run cannot be made in this folder: what an earlier one left there can be judged again, and its databases
/// have passwords that nobody knows any more.
fn check_dir(dir: &Path) -> anyhow::Result<()> {
    let mut entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot look into {}", dir.display()))?,
    };
    if Run::is_in(dir) {
        bail!(
            "{0} holds an earlier run: judge it again with `--judge {0}`, or take another folder, or remove this one",
            dir.display()
        );
    }
    if entries.next().is_some() {
        bail!("{} is not empty: take another folder", dir.display());
    }
    Ok(())
}

/// Judges a run again that [`run_faults`] left in a folder.
pub fn judge_again(dir: &Path) -> anyhow::Result<Outcome> {
    let run = Run::read(dir).with_context(|| dir.display().to_string())?;
    Ok(Outcome::of(&run, None, Vec::new()))
}

/// Makes faults until the time is over, with the steps of an upgrade spread over it, if there is one. Says which faults
/// could not be ended, and which steps not taken.
async fn make_faults(rig: &Rig, options: &RunOptions) -> Vec<String> {
    let mut schedule = Schedule::new(
        options.seed,
        &options.only,
        rig.process_names(),
        rig.link_names(),
        options.longest,
        options.longest_pause,
        options.rig.disk_mib.is_some(),
    );
    let began = Instant::now();
    let steps = Step::all(&options.rig);
    let stages = steps.len() as u32 + 1;
    let mut steps = steps.into_iter();
    let (mut made, mut failed) = (0, Vec::new());
    for stage in 1..=stages {
        let until = options.length * stage / stages;
        while began.elapsed() < until && made < options.faults_max {
            let faults = schedule.draw();
            if faults.is_empty() {
                break;
            }
            made += faults.len();
            let pause = faults[0].pause;
            // Each of them has to end, also when another one could not.
            for result in join_all(faults.iter().map(|fault| fault.happen(rig))).await {
                failed.extend(result.err().map(|error| format!("{error:#}")));
            }
            sleep(pause).await;
        }
        if let Some(step) = steps.next()
            && let Err(error) = step.take(rig).await
        {
            failed.push(format!("{step}: {error:#}"));
        }
    }
    failed
}

/// Waits until no event waits for the fan-out.
async fn until_chats_are_empty(rig: &Rig) -> anyhow::Result<()> {
    let empty = async {
        while rig.store().waiting_events().await? > 0 {
            sleep(EMPTY_INTERVAL).await;
        }
        anyhow::Ok(())
    };
    timeout(EMPTY_PATIENCE, empty)
        .await
        .context("events still wait for the fan-out when everybody is at rest")?
}

impl Outcome {
    fn of(run: &Run, workload: Option<WorkloadReport>, surprises: Vec<String>) -> Self {
        let mut faults = BTreeMap::new();
        for event in &run.events {
            if let Happening::FaultBegins { fault, target } = &event.happening {
                *faults.entry(class(&format!("{target}: {fault}"))).or_default() += 1;
            }
        }
        let timings = timings(run);
        let mut resumed = BTreeMap::<String, Duration>::new();
        for (fault, wait) in &timings.resume_by_fault {
            let longest = resumed.entry(class(fault)).or_default();
            *longest = (*longest).max(*wait);
        }
        Self {
            verdict: judge(run),
            timings,
            workload,
            faults,
            resumed,
            surprises,
        }
    }

    /// Whether every promise was kept and nothing ended by itself.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.surprises.is_empty()
    }

    fn json(&self, seed: u64) -> Value {
        let violations: BTreeMap<String, u64> = self
            .verdict
            .counts
            .iter()
            .map(|(kind, count)| (kind.to_string(), *count))
            .collect();
        let figures = &self.verdict.figures;
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
        json!({
            "seed": seed,
            "faults": self.faults,
            "faultsMade": figures.faults,
            "clients": figures.clients,
            "connections": figures.connections,
            "accepted": figures.accepted,
            "changes": figures.changes,
            "deliveries": figures.deliveries,
            "redelivered": figures.redelivered,
            "promisesKept": figures.kept,
            "attachmentsFetched": figures.fetched,
            "violations": violations,
            "surprises": self.surprises,
            "deliveryP50Ms": milliseconds(self.timings.p50),
            "deliveryP99Ms": milliseconds(self.timings.p99),
            "resumeMaxMs": milliseconds(self.timings.resume_max),
            "resumeMaxMsByFault": self.resumed.iter()
                .map(|(fault, wait)| (fault.clone(), milliseconds(*wait)))
                .collect::<BTreeMap<_, _>>(),
            "slowest": self.timings.slowest,
            "takeOverMaxMs": self.timings.take_over_max.map(milliseconds),
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>5}  fault", "times")?;
        for (fault, times) in &self.faults {
            writeln!(f, "{times:>5}  {fault}")?;
        }
        writeln!(f, "\nresumed at the latest after, by fault:")?;
        for (fault, wait) in &self.resumed {
            let late = if *wait > RESUME_MAX { ", too late" } else { "" };
            writeln!(f, "{:>6.1} s  {fault}{late}", wait.as_secs_f64())?;
        }
        if let Some(workload) = &self.workload {
            writeln!(f, "\n{workload}")?;
        }
        writeln!(f, "{}\n{}", self.timings, self.verdict)?;
        for surprise in &self.surprises {
            writeln!(f, "surprise: {surprise}")?;
        }
        Ok(())
    }
}

/// A fault without the number of whom it hit.
fn class(fault: &str) -> String {
    let mut class = String::new();
    let mut chars = fault.chars().peekable();
    while let Some(char) = chars.next() {
        let numbered = char == '-' && chars.peek().is_some_and(char::is_ascii_digit);
        if numbered {
            while chars.next_if(char::is_ascii_digit).is_some() {}
        } else {
            class.push(char);
        }
    }
    class
}

/// A folder of a run that was given none.
pub fn default_dir(seed: u64) -> PathBuf {
    std::env::temp_dir().join(format!("tidings-faults-{seed}-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_run_is_not_written_over() {
        let parent = tempfile::tempdir().expect("a folder");
        let dir = parent.path().join("run");
        check_dir(&dir).expect("there is nothing yet");
        std::fs::create_dir(&dir).expect("its parent is there");
        check_dir(&dir).expect("it is empty");

        let recorder = Recorder::to_dir(&dir).expect("it can be written");
        recorder.happened(Happening::note("that was it"));
        recorder.finish().expect("the disk has room");
        let refused = check_dir(&dir).expect_err("a run is there").to_string();
        assert!(
            refused.contains("holds an earlier run")
                && refused.contains(&format!("--judge {}", dir.display())),
            "{refused}"
        );
        let again = judge_again(&dir).expect("it can still be judged");
        assert!(again.is_clean(), "{again}");

        let other = parent.path();
        let refused = check_dir(other).expect_err("something is there").to_string();
        assert!(refused.contains("is not empty"), "{refused}");
    }
}
