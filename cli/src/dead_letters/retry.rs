//! `tidings dead-letters retry`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use tidings_nats::{CHATS, Event, HeadedMessage, PublishError, chat_subject};

use super::{Letter, Which, done, remove};
use crate::look::{Look, LookArgs, TIMEOUT};
use crate::print;

/// Has dead letters processed again, as new events of their chats.
///
/// The event goes to the end of its chat, with a new sequence: who is in the chat now gets it. A client that has the
/// message already recognises it by its id. To be done once the reason is gone, for example with a newer fan-out worker;
/// what still cannot be processed becomes a dead letter again. A change of a chat's participants is refused: later
/// changes hold all of them.
#[derive(Debug, clap::Args)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    look: LookArgs,
}

pub(super) fn main(args: &RetryArgs) -> ExitCode {
    crate::block_on(async {
        let look = args.look.connect().await?;
        let letters = args.which.find(&look).await?;
        for letter in &letters {
            let sequence = letter.sequence;
            retry(&look, letter)
                .await
                .with_context(|| format!("the dead letter {sequence} stays"))?;
            remove(&look, sequence).await?;
        }
        let letters: Vec<Letter> = letters.iter().map(Letter::of).collect();
        if args.look.json {
            print::json(&done("retried", &letters))
        } else {
            let count = print::count(letters.len() as u64, "dead letter", "dead letters");
            print::text(&format!("{count} published again\n"))
        }
    })
}

/// Publishes the event anew. Its id is the letter's, so that a retry whose letter was not removed, because this was
/// interrupted, does not publish it twice; the event's own id would be swallowed as a duplicate while CHATS remembers it.
async fn retry(look: &Look, letter: &HeadedMessage) -> anyhow::Result<()> {
    let subject = match Event::decode(&letter.payload) {
        Ok(Event::ChatUpdate(_)) => {
            bail!("it is a change of the chat's participants; later changes hold all of them, so drop it")
        }
        // Where it belongs, whatever its subject was.
        Ok(event) => chat_subject(look.topology.partition(event.chat_id()), event.chat_id()),
        // A newer worker may read it.
        Err(_) => format!(
            "chat.{}",
            letter.subject.strip_prefix("dead.").unwrap_or_default()
        ),
    };
    let mut headers = letter.own_headers();
    headers.insert(
        "Nats-Msg-Id",
        format!("retry.{}.{}", letter.sequence, letter.stored_at.0),
    );
    let published = look
        .bus
        .publish(subject, headers, letter.payload.clone(), TIMEOUT)
        .await;
    match published {
        Ok(_) => Ok(()),
        Err(PublishError::SubjectFull) => bail!("its chat has too many events waiting; try again later"),
        Err(error) => Err(error).with_context(|| format!("the stream {CHATS} does not take it")),
    }
}
