//! `tidings dead-letters drop`.

use std::process::ExitCode;

use super::{Letter, Which, done, remove};
use crate::confirm::confirm;
use crate::look::LookArgs;
use crate::print;

/// Drops dead letters for good.
///
/// Nobody will get these events. Asks before it does it.
#[derive(Debug, clap::Args)]
pub(crate) struct DropArgs {
    #[command(flatten)]
    which: Which,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    look: LookArgs,
}

pub(super) fn main(args: &DropArgs) -> ExitCode {
    crate::block_on(async {
        let look = args.look.connect().await?;
        let letters: Vec<Letter> = args.which.find(&look).await?.iter().map(Letter::of).collect();
        let count = print::count(letters.len() as u64, "dead letter", "dead letters");
        if !args.yes && !letters.is_empty() {
            confirm(&format!("drop {count} for good"))?;
        }
        for letter in &letters {
            remove(&look, letter.sequence).await?;
        }
        if args.look.json {
            print::json(&done("dropped", &letters))
        } else {
            print::text(&format!("{count} dropped\n"))
        }
    })
}
