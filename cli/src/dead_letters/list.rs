//! `tidings dead-letters list`.

use std::process::ExitCode;

use serde::Serialize;

use super::{Letter, letters};
use crate::look::{Look, LookArgs, run};
use crate::print;

/// Lists dead letters: which chat, what, why, since when. Never what people wrote.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(super) look: LookArgs,
}

#[derive(Debug, Serialize)]
struct Found {
    letters: Vec<Letter>,
}

pub(super) fn main(args: &LookArgs) -> ExitCode {
    run(
        args,
        async |look| {
            let letters = letters(&look.bus).await?;
            Ok(Found {
                letters: letters.iter().map(Letter::of).collect(),
            })
        },
        |look, found| show(look, &found.letters),
    )
}

fn show(look: &Look, letters: &[Letter]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let rows: Vec<Vec<String>> = letters
        .iter()
        .map(|letter| {
            vec![
                letter.sequence.to_string(),
                print::name(Some(&letter.chat)),
                print::name(Some(&letter.kind)),
                letter
                    .tries
                    .map_or_else(|| "-".to_owned(), |tries| tries.to_string()),
                print::age(look.age(letter.dead_since)),
                letter.bytes.to_string(),
                print::name(Some(&letter.reason)),
            ]
        })
        .collect();
    let titles = [">SEQUENCE", "CHAT", "KIND", ">TRIES", ">AGE", ">BYTES", "REASON"];
    print::table(&titles, &rows)
}
