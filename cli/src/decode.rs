//! `tidings decode`: reads one payload of the bus from standard input and says what it is, as JSON.
//!
//! Payloads carry no name of their type: the subject tells, as it does to the services. Where it is not given,
//! the only type is taken that accounts for every byte.

mod guess;
mod shown;

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};

use crate::decode::guess::{Kind, guess};
use crate::decode::shown::shown;
use crate::print;

/// More than any server takes: `max_payload` is at most 64 MiB.
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// Reads one payload of the bus from standard input and prints what it is, as JSON.
///
/// For `nats stream get INBOX_07 41 --translate 'tidings decode'` and `nats sub 'chat.>' --translate 'tidings
/// decode'`. What people wrote is shown as its length alone.
#[derive(Debug, clap::Args)]
pub(crate) struct DecodeArgs {
    /// What it is. [default: whatever accounts for every byte]
    #[arg(long = "as", value_enum, value_name = "KIND", conflicts_with = "subject")]
    kind: Option<Kind>,
    /// On which subject it was, which tells what it is: in --translate write '{{Subject}}'.
    #[arg(long)]
    subject: Option<String>,
    /// Show what people wrote, too. It is nobody's business but theirs.
    #[arg(long)]
    show_body: bool,
}

pub(crate) fn main(args: &DecodeArgs) -> ExitCode {
    match decode(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidings: {}", print::error(&error));
            ExitCode::FAILURE
        }
    }
}

fn decode(args: &DecodeArgs) -> anyhow::Result<()> {
    let payload = read()?;
    let kind = match (&args.kind, &args.subject) {
        (Some(kind), _) => *kind,
        (None, Some(subject)) => {
            Kind::on(subject).with_context(|| format!("Tidings has no subject like {subject:?}"))?
        }
        (None, None) => guess(&payload)?,
    };
    print::json(&shown(kind, &payload, args.show_body)?)
}

fn read() -> anyhow::Result<Vec<u8>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        bail!("a payload is expected on standard input, such as from nats … --translate 'tidings decode'");
    }
    let mut payload = Vec::new();
    stdin
        .lock()
        .take(PAYLOAD_BYTES_MAX + 1)
        .read_to_end(&mut payload)
        .context("cannot read standard input")?;
    ensure!(
        !payload.is_empty(),
        "the payload is empty: a deleted key of a bucket, or nothing on standard input"
    );
    ensure!(
        payload.len() as u64 <= PAYLOAD_BYTES_MAX,
        "more than 64 MiB: no payload of the bus"
    );
    Ok(payload)
}
