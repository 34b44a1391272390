//! `tidings dead-letters`: events that could not be processed. Lists them, has them processed again, or drops them.

mod drop;
mod list;
mod retry;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use tidings_nats::{
    Bus, DEAD_LETTERS, Event, HEADER_KIND, HEADER_REASON, HEADER_TRIES, HeadedMessage, WireError,
};
use tidings_protocol::Timestamp;

use crate::look::{Look, LookArgs, TIMEOUT};

/// Lists events that could not be processed, has them processed again, or drops them.
///
/// An event becomes a dead letter when no fan-out worker can ever do what it asks for: it is malformed, its handler panics
/// again and again, or workers die of it. Nothing that is only slow or in bad weather comes here. The letter keeps the
/// event; its chat has gone on without it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    command: Option<DeadLettersCommand>,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    List(list::ListArgs),
    Retry(retry::RetryArgs),
    Drop(drop::DropArgs),
}

/// Which letters.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The letters' sequences in `DEAD_LETTERS`, as the list shows them.
    #[arg(value_name = "SEQUENCE")]
    sequences: Vec<u64>,
    /// Every letter that is there now.
    #[arg(long)]
    all: bool,
}

/// A letter, without what people wrote.
#[derive(Clone, Debug, Serialize)]
struct Letter {
    /// Its place in `DEAD_LETTERS`.
    sequence: u64,
    /// The chat, as the event's subject names it: not always a chat's id.
    chat: String,
    partition: String,
    /// `message`, `chatUpdate`, or what makes it unreadable.
    kind: String,
    reason: String,
    /// How often it was tried.
    tries: Option<u32>,
    dead_since: Timestamp,
    bytes: usize,
}

pub(crate) fn main(args: DeadLettersArgs) -> ExitCode {
    match args.command {
        None => list::main(&args.look),
        Some(DeadLettersCommand::List(args)) => list::main(&args.look),
        Some(DeadLettersCommand::Retry(args)) => retry::main(&args),
        Some(DeadLettersCommand::Drop(args)) => drop::main(&args),
    }
}

impl Letter {
    fn of(message: &HeadedMessage) -> Self {
        let header = |name| message.header(name).map(str::to_owned);
        let mut tokens = message.subject.splitn(3, '.').skip(1);
        let mut token = || tokens.next().unwrap_or("-").to_owned();
        let (partition, chat) = (token(), token());
        let kind = match Event::decode(&message.payload) {
            Ok(event) => event.kind().to_owned(),
            Err(WireError::Newer(format)) => format!("format {format}"),
            Err(WireError::Malformed(_)) => header(HEADER_KIND)
                .map_or_else(|| "unreadable".to_owned(), |kind| format!("unreadable {kind}")),
        };
        Self {
            sequence: message.sequence,
            chat,
            partition,
            kind,
            reason: header(HEADER_REASON).unwrap_or_default(),
            tries: header(HEADER_TRIES).and_then(|tries| tries.parse().ok()),
            dead_since: message.stored_at,
            bytes: message.payload.len(),
        }
    }
}

/// Every letter that is there now, oldest first.
async fn letters(bus: &Bus) -> anyhow::Result<Vec<HeadedMessage>> {
    let read = || format!("cannot read the stream {DEAD_LETTERS}");
    let bounds = bus.stream_bounds(DEAD_LETTERS, TIMEOUT).await;
    let last = bounds.with_context(read)?.last_sequence;
    let (mut letters, mut from) = (Vec::new(), 1);
    while from <= last {
        let Some(letter) = bus.letter_from(from, TIMEOUT).await.with_context(read)? else {
            break;
        };
        from = letter.sequence + 1;
        letters.push(letter);
    }
    Ok(letters)
}

impl Which {
    /// The letters, all of which must be there.
    async fn find(&self, look: &Look) -> anyhow::Result<Vec<HeadedMessage>> {
        if self.all {
            return letters(&look.bus).await;
        }
        let mut found = Vec::new();
        for sequence in &self.sequences {
            let letter = look.bus.letter_from(*sequence, TIMEOUT).await;
            let letter = letter.with_context(|| format!("cannot read the stream {DEAD_LETTERS}"))?;
            match letter {
                Some(letter) if letter.sequence == *sequence => found.push(letter),
                _ => bail!("there is no dead letter {sequence}"),
            }
        }
        Ok(found)
    }
}

/// Takes a letter away. One that is gone already is no failure.
async fn remove(look: &Look, sequence: u64) -> anyhow::Result<()> {
    let deleted = look.bus.delete_message(DEAD_LETTERS, sequence, TIMEOUT).await;
    deleted.with_context(|| format!("cannot delete the dead letter {sequence}"))
}

/// What was done, for programs.
fn done(action: &str, letters: &[Letter]) -> serde_json::Value {
    json!({ action: letters })
}
