//! What `tidings explain` found, for people.

use std::fmt::Write as _;

use super::fate::{Fate, Gone, NotForIt};
use super::recipients::Recipient;
use super::traces::Progress;
use super::{Explained, FanOut, Look};
use crate::print;

pub(super) fn show(look: &Look, found: &Explained) -> String {
    let mut text = format!(
        "message {} in chat {}\n  accepted    {}\n",
        found.message_id,
        found.chat_id,
        accepted(look, found)
    );
    for (number, line) in fan_out(look, found).into_iter().enumerate() {
        let title = if number == 0 { "fanned out" } else { "" };
        writeln!(text, "  {title:10}  {line}").expect("a String takes everything");
    }
    if !found.recipients.is_empty() {
        if !found.as_of_then {
            text += "  for whom    who was in the chat then is not kept any more: these are in it now\n";
        }
        let rows: Vec<Vec<String>> = found
            .recipients
            .iter()
            .map(|recipient| row(look, recipient))
            .collect();
        text += &print::table(&["USER", "CLIENT", "STATE", ""], &rows);
    }
    text
}

fn accepted(look: &Look, found: &Explained) -> String {
    let known = &found.known;
    let Some(seq) = known.seq else {
        return match found.fan_out {
            FanOut::DeadLetter(_) => "yes".to_owned(),
            _ => "not known: no trace of it".to_owned(),
        };
    };
    let from = known.from.as_ref().map_or_else(
        || "an unknown user".to_owned(),
        |from| print::name(Some(from.as_str())),
    );
    let client = known
        .client_id
        .map_or_else(String::new, |client| format!(" (client {client})"));
    let when = match known.sent_at.or(known.accepted_at) {
        Some(at) => format!("{at}, {} ago", print::age(look.age(at))),
        None => "less than 10 minutes ago: CHATS remembers its id".to_owned(),
    };
    format!("seq {seq}, from {from}{client}, {when}")
}

fn fan_out(look: &Look, found: &Explained) -> Vec<String> {
    match &found.fan_out {
        FanOut::Waiting(progress) => waiting(
            found,
            progress,
            "not yet: it is in CHATS, and no worker was given it",
        ),
        FanOut::Working(progress) => {
            let mut lines = waiting(
                found,
                progress,
                "not yet: it is in CHATS, and a worker was given it",
            );
            if let Some(worker) = &progress.tried_by {
                lines.push(format!(
                    "worker {worker} tries it under a mark, since another may have died of it"
                ));
            }
            if progress.deaths > 0 {
                let workers = print::count(u64::from(progress.deaths), "worker", "workers");
                lines.push(format!("{workers} in a row died of it; five are too many"));
            }
            lines
        }
        FanOut::Done { stored_last } => {
            let mut lines =
                vec!["yes: it has left CHATS, so each inbox has it, or had it, or is marked".to_owned()];
            lines.extend(stored_last.map(|at| format!("where it still is, it was stored by {at}")));
            lines
        }
        FanOut::DeadLetter(letter) => {
            let tries = letter.tries.map_or_else(String::new, |tries| {
                format!(" after {}", print::count(u64::from(tries), "try", "tries"))
            });
            vec![
                format!(
                    "no: given up{tries}, {} ago; dead letter {}",
                    print::age(look.age(letter.dead_since)),
                    letter.sequence
                ),
                format!("because {}", print::name(Some(&letter.reason))),
            ]
        }
        FanOut::NoTrace => vec![
            "it is in no inbox, not in CHATS and no dead letter, and CHATS does not remember it".to_owned(),
            "it was never accepted, or everybody who got it has confirmed it".to_owned(),
        ],
    }
}

fn waiting(found: &Explained, progress: &Progress, first: &str) -> Vec<String> {
    let mut lines = vec![first.to_owned()];
    if progress.chat_events_before > 0 {
        let events = match progress.chat_events_before {
            1 => "1 event of its chat comes".to_owned(),
            more => format!("{more} events of its chat come"),
        };
        lines.push(format!("{events} before it"));
    }
    let nobody = if progress.worker {
        ""
    } else {
        "; no worker reads it"
    };
    lines.push(format!(
        "partition {:02}, CHATS/{}: {} unprocessed + {} outstanding, of all its chats{nobody}",
        found.partition, found.consumer, progress.partition_unprocessed, progress.partition_outstanding
    ));
    lines
}

fn row(look: &Look, recipient: &Recipient) -> Vec<String> {
    let (state, note) = fate(look, recipient);
    let note = if recipient.active {
        note
    } else {
        "of a client that is not active; it expires".to_owned()
    };
    vec![
        print::name(Some(recipient.user_id.as_str())),
        recipient.client(),
        state,
        note,
    ]
}

/// A word or two, and a sentence.
fn fate(look: &Look, recipient: &Recipient) -> (String, String) {
    let (state, note) = match &recipient.fate {
        Fate::Pending => ("not yet", "not yet stored in this inbox".to_owned()),
        Fate::Stored {
            stream,
            sequence,
            stored_at,
            first,
        } => {
            let state = format!("stored, {stream} {sequence}");
            return (
                state,
                stored(recipient, &print::age(look.age(*stored_at)), *first),
            );
        }
        Fate::Confirmed {
            sequence: Some(sequence),
        } => ("confirmed", format!("it was sequence {sequence} of the stream")),
        Fate::Confirmed { sequence: None } => (
            "confirmed",
            "or, if the inbox was full then, the mark of that".to_owned(),
        ),
        Fate::Refused => (
            "refused",
            "the inbox was full: its mark counts this chat and moment".to_owned(),
        ),
        Fate::Expired => (
            "expired",
            "nobody confirmed it in time: the mark counts this chat and moment".to_owned(),
        ),
        Fate::Swept => (
            "swept",
            "the client was away for too long, as its mark says".to_owned(),
        ),
        Fate::Gone { why } => (
            "gone",
            match why {
                Gone::NotSeenSince => "expired, or emptied: the client was not seen since",
                Gone::Old => "confirmed or expired: it is older than 30 days",
                Gone::JustRegistered => "confirmed, or never for it: it registered at about that time",
                Gone::Inherited => {
                    "registered later: has confirmed it, if it waited for a first client; else never for it"
                }
                Gone::NoClient => "no client is active, and nothing waits for one: emptied or expired",
            }
            .to_owned(),
        ),
        Fate::GivenUp => ("never stored", "a dead letter".to_owned()),
        Fate::NotForIt { why } => (
            "never for it",
            match why {
                NotForIt::Own => "it sent it",
                NotForIt::RegisteredLater => "the client registered later",
                NotForIt::NotInTheChat => "not in the chat at that place of it",
            }
            .to_owned(),
        ),
        Fate::NotKnown { why } => ("not known", (*why).to_owned()),
    };
    (state.to_owned(), note)
}

fn stored(recipient: &Recipient, age: &str, first: bool) -> String {
    let inherited = if first { " in `first`" } else { "" };
    let session = recipient.session.as_ref().filter(|session| session.alive);
    let connected = match (session, recipient.client_id) {
        (Some(session), _) => {
            let address = session.address.as_deref().unwrap_or("an unknown address");
            format!("delivered and not confirmed, or about to be; connected to {address}")
        }
        (None, Some(_)) => "the client is not connected".to_owned(),
        (None, None) => "waits for the user's first client".to_owned(),
    };
    format!("for {age}{inherited}; {connected}")
}
