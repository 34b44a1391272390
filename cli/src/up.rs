//! `tidings up`: the whole system on one machine.

use std::process::ExitCode;

use crate::DataDir;

/// Starts private NATS and Postgres servers and every service, and keeps them running until interrupted.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    dir: DataDir,
}

pub(crate) fn main(args: UpArgs) -> ExitCode {
    crate::block_on(async move {
        let _ = args.dir.path()?;
        anyhow::bail!("not built yet")
    })
}
