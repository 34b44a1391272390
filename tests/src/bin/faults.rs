//! Makes faults on a system of real processes while people use it, and judges from what they saw whether every promise
//! was kept. Exit code 1 says that one was not.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidings_tests::faults::{
    FaultKind, OtherVersion, RigOptions, RunOptions, default_dir, judge_again, run_faults,
};
use tidings_tests::system_of_one;
use tidings_tests::workload::WorkloadOptions;

/// Starts a private system, lets people use it, makes faults, and judges.
#[derive(Debug, Parser)]
#[command(name = "faults", max_term_width = 110)]
struct Args {
    /// Makes the same people, and the same faults in the same order.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// For how long faults are made.
    #[arg(long, default_value_t = 5.0, value_name = "M")]
    minutes: f64,

    /// How many NATS servers: one, or a cluster of three.
    #[arg(long, default_value_t = 1, value_name = "1|3")]
    nats: usize,

    /// Gateways, fan-out workers and inbox workers: so many of each.
    #[arg(long, default_value_t = 2, value_name = "N")]
    each: usize,

    /// Gives the data of each NATS server a disk of its own of so many MiB (1024, say), which is full from time to time.
    /// Only root can do that.
    #[arg(long, value_name = "MIB")]
    disk: Option<u32>,

    /// Kinds of faults to choose from. [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    only: Vec<FaultKind>,

    /// How long a fault lasts at most, in seconds.
    #[arg(long, default_value_t = 30.0, value_name = "S")]
    longest: f64,

    /// How long nothing is done after a fault at most, in seconds.
    #[arg(long, default_value_t = 12.0, value_name = "S")]
    pause: f64,

    /// Messages a second, of all people together.
    #[arg(long, default_value_t = 20.0, value_name = "N")]
    sends: f64,

    /// Fan-out and inbox workers run this `tidings`, of another version.
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["gateways", "from"])]
    workers: Option<PathBuf>,

    /// Gateways and media services run this `tidings`, of another version.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "from")]
    gateways: Option<PathBuf>,

    /// Everything begins as this `tidings`, of another version, and is upgraded in the run: setup, then one service after
    /// the other, with faults in between.
    #[arg(long, value_name = "PROGRAM")]
    from: Option<PathBuf>,

    /// After the upgrade everything goes back to the other version.
    #[arg(long, requires = "from")]
    back: bool,

    /// Histories, logs, data and report.json go here, where nothing may be yet. [default: a new folder for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Only judges what an earlier run left in DIR.
    #[arg(long, value_name = "DIR")]
    judge: Option<PathBuf>,
}

impl Args {
    /// Who runs another version.
    fn other(&self) -> anyhow::Result<OtherVersion> {
        // Services run in another folder.
        Ok(if let Some(from) = &self.from {
            OtherVersion::Before {
                program: from.canonicalize()?,
                back: self.back,
            }
        } else if let Some(workers) = &self.workers {
            OtherVersion::Workers(workers.canonicalize()?)
        } else if let Some(gateways) = &self.gateways {
            OtherVersion::Gateways(gateways.canonicalize()?)
        } else {
            OtherVersion::None
        })
    }

    /// What makes this run again, elsewhere.
    fn command(&self) -> String {
        let mut command = format!(
            "cargo run -p tidings-tests --bin faults -- --seed {} --minutes {} --nats {} --each {} --longest {} --pause {} --sends {}",
            self.seed, self.minutes, self.nats, self.each, self.longest, self.pause, self.sends
        );
        let versions = [
            ("--workers", &self.workers),
            ("--gateways", &self.gateways),
            ("--from", &self.from),
        ];
        for (option, program) in versions {
            if let Some(program) = program {
                command.extend([" ", option, " ", &program.display().to_string()]);
            }
        }
        if self.back {
            command += " --back";
        }
        if let Some(mib) = self.disk {
            command += " --disk ";
            command += &mib.to_string();
        }
        if !self.only.is_empty() {
            let names = self.only.iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
            command += " --only ";
            command += &names.join(",");
        }
        command
    }
}

/// That of the services, which are processes of this program.
#[global_allocator]
static ALLOCATOR: tidings_cli::Allocator = tidings_cli::Allocator;

fn main() -> ExitCode {
    // The services are processes of this program.
    if system_of_one::is_service() {
        return tidings_cli::main();
    }
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(run(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<bool> {
    if let Some(dir) = &args.judge {
        let outcome = judge_again(dir)?;
        println!("{outcome}");
        return Ok(outcome.is_clean());
    }
    let dir = args.dir.clone().unwrap_or_else(|| default_dir(args.seed));
    eprintln!(
        "seed {}, {} minutes, in {}",
        args.seed,
        args.minutes,
        dir.display()
    );
    let outcome = run_faults(&RunOptions {
        rig: RigOptions {
            dir: dir.clone(),
            program: std::env::current_exe()?,
            other: args.other()?,
            nats: args.nats,
            each: args.each,
            disk_mib: args.disk,
        },
        seed: args.seed,
        length: Duration::from_secs_f64(args.minutes * 60.0),
        faults_max: usize::MAX,
        only: args.only.clone(),
        longest: Duration::from_secs_f64(args.longest),
        longest_pause: Duration::from_secs_f64(args.pause),
        workload: WorkloadOptions {
            sends_per_second: args.sends,
            ..WorkloadOptions::default()
        },
    })
    .await?;
    println!("{outcome}");
    if !outcome.is_clean() {
        println!("again: {}", args.command());
    }
    Ok(outcome.is_clean())
}
