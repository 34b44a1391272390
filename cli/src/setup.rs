//! `tidings setup`: creates or upgrades streams, consumers, buckets and tables.

use std::process::ExitCode;

/// Creates or upgrades the streams, consumers, buckets and tables that the services need.
#[derive(Debug, clap::Args)]
pub(crate) struct SetupArgs {
    /// Only print what would change.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn main(args: SetupArgs) -> ExitCode {
    crate::block_on(async move {
        let _ = args.dry_run;
        anyhow::bail!("not built yet")
    })
}
