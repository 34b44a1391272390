//! `tidings dead-letters drop`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::bail;

use super::{Letter, Which, done, remove};
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
            confirm(&count)?;
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

/// Asks at the terminal. Without one there is nobody to say yes.
fn confirm(count: &str) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("{count} would be dropped for good; --yes does it without asking");
    }
    eprint!("Drop {count} for good? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was dropped"),
    }
}
