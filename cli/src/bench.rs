//! `tidings bench`: a load generator. It puts load on a running system over real WebSockets, checks that nothing
//! is lost, doubled or out of order, and says what it took.

mod client;
mod connecting;
mod crowd;
mod event;
mod fleet;
mod idle;
mod in_flight;
mod latency;
mod ledger;
mod max;
mod observed;
mod offline;
mod offline_report;
mod outcome;
mod plan;
mod plot;
mod processes;
mod progress;
mod ramp;
mod rate;
mod raw;
mod report;
mod search;
mod series;
mod share;
mod storm;
mod streams;
mod stretch;
mod target;
mod twins;

use std::process::ExitCode;

/// Loads a running system, checks that nothing is lost or doubled, and says what it took.
///
/// Start the system with `tidings up --rate-limits off`, and build both with `cargo build --release`. The users
/// `bench-0`, `bench-1`, … are made on first use and used again; each run makes chats of its own. What goes on is
/// told on standard error, the result is a table on standard output. Ends with an error when anything is missing,
/// doubled, out of order or refused.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, clap::Subcommand)]
enum Scenario {
    Rate(rate::RateArgs),
    Max(max::MaxArgs),
    Ramp(ramp::RampArgs),
    Raw(raw::RawArgs),
    Offline(offline::OfflineArgs),
    Storm(storm::StormArgs),
    Idle(idle::IdleArgs),
}

impl Scenario {
    const fn target(&self) -> &target::TargetArgs {
        match self {
            Self::Rate(args) => &args.crowd.target,
            Self::Max(args) => &args.crowd.target,
            Self::Ramp(args) => &args.crowd.target,
            Self::Raw(args) => &args.crowd.target,
            Self::Offline(args) => &args.crowd.target,
            Self::Storm(args) => &args.crowd.target,
            Self::Idle(args) => &args.target,
        }
    }
}

pub(crate) fn main(args: BenchArgs) -> ExitCode {
    crate::block_on(async move {
        if let Some(part) = share::Part::own()? {
            return share::serve(args.scenario.target(), part).await;
        }
        match args.scenario {
            Scenario::Rate(args) => rate::run(args).await,
            Scenario::Max(args) => max::run(args).await,
            Scenario::Ramp(args) => ramp::run(args).await,
            Scenario::Raw(args) => raw::run(args).await,
            Scenario::Offline(args) => offline::run(args).await,
            Scenario::Storm(args) => storm::run(args).await,
            Scenario::Idle(args) => idle::run(args).await,
        }
    })
}

/// Tells people, on standard error, what goes on. A closed standard error is no reason to stop.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
