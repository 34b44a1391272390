//! `tidings inbox`: what a client has not confirmed. Never what was said.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tidings_metadata::{ClientRecord, ClientState};
use tidings_nats::{
    FIRST, Inbox, InboxEntry, Lost, StoredMessage, inbox_stream, inbox_subject, lost_subject,
};
use tidings_protocol::{ChatId, ClientId, Timestamp, TrimReason, UserId};

use super::{Look, LookArgs, TIMEOUT, run};
use crate::print;

/// Entries of one request.
const BATCH: u32 = 256;
/// About so many bytes of one request.
const BATCH_BYTES: u32 = 1 << 20;
/// Marks of an inbox: one a reason, and what a crash may have left.
const MARKS_MAX: u32 = 16;

/// Lists what a client has not confirmed, the oldest first: in which chat, from whom, how old, how large.
///
/// Never what was said. SEQUENCE is the entry's place in the INBOX stream, as `nats stream get` takes it; SEQ is
/// the event's, which orders it within its chat.
#[derive(Debug, clap::Args)]
pub(crate) struct InboxArgs {
    /// Whose inbox.
    client: ClientId,
    /// List at most so many entries.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    limit: u32,
    /// Begin at this sequence of the INBOX stream.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Debug, Serialize)]
struct Found {
    client_id: ClientId,
    user_id: UserId,
    state: &'static str,
    stream: String,
    subjects: Vec<String>,
    /// All that is stored, also what is not listed.
    unconfirmed: u64,
    entries: Vec<Listed>,
    /// Whether the limit left entries out behind the last one.
    more: bool,
    lost: Vec<Mark>,
}

/// An entry.
#[derive(Debug, Serialize)]
struct Listed {
    sequence: u64,
    stored_at: Timestamp,
    /// Of the whole entry.
    bytes: usize,
    /// Its place in BODIES, if the inbox only refers to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<u64>,
    /// Whether it came while the user had no client.
    first: bool,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum What {
    Event {
        seq: u64,
        chat_id: ChatId,
        kind: &'static str,
        from: UserId,
    },
    Unreadable {
        unreadable: String,
    },
}

/// What is missing from the inbox.
#[derive(Debug, Serialize)]
struct Mark {
    reason: TrimReason,
    missed: Option<u64>,
    since: Timestamp,
    until: Timestamp,
    chats: Vec<ChatId>,
}

pub(crate) fn main(args: &InboxArgs) -> ExitCode {
    run(&args.look, async |look| find(look, args).await, show)
}

async fn find(look: &Look, args: &InboxArgs) -> anyhow::Result<Found> {
    let client_id = args.client;
    let Some(record) = look.metadata.client(client_id).await? else {
        bail!("no client {client_id} has ever registered");
    };
    let stream = inbox_stream(look.topology.shard(&record.user));
    let subjects = subjects(look, client_id, &record);
    let (mut entries, mut unconfirmed, mut more) = (Vec::new(), 0, false);
    for subject in &subjects {
        let read = || format!("cannot read the stream {stream}");
        let counts = look.bus.messages_by_subject(&stream, subject, TIMEOUT).await;
        unconfirmed += counts.with_context(read)?.get(subject).copied().unwrap_or(0);
        let (read, left) = read_subject(look, &stream, subject, args.from, args.limit)
            .await
            .with_context(read)?;
        entries.extend(read);
        more |= left;
    }
    // Each subject was read up to the limit, so the lowest ones of both are complete.
    entries.sort_by_key(|entry| entry.sequence);
    more |= entries.len() > args.limit as usize;
    entries.truncate(args.limit as usize);
    let mut lost = Vec::new();
    for subject in &subjects {
        let marks = look
            .bus
            .leader_all(&stream, &lost_subject(subject), 1, MARKS_MAX, TIMEOUT)
            .await;
        let marks = marks.with_context(|| format!("cannot read the stream {stream}"))?;
        let readable = marks.iter().filter_map(|mark| Lost::decode(&mark.payload).ok());
        lost.extend(readable.map(Mark::from));
    }
    let state = match record.state {
        ClientState::Active => "active",
        ClientState::Idle => "idle",
        ClientState::Removed => "removed",
    };
    Ok(Found {
        client_id,
        user_id: record.user,
        state,
        stream,
        subjects,
        unconfirmed,
        entries,
        more,
        lost,
    })
}

/// The client's subject and, if it inherits, that of `first`.
pub(crate) fn subjects(look: &Look, client_id: ClientId, record: &ClientRecord) -> Vec<String> {
    let mut subjects = vec![inbox_subject(
        &look.topology,
        &record.user,
        Inbox::Client(client_id),
    )];
    if record.heir && record.state == ClientState::Active {
        subjects.push(inbox_subject(&look.topology, &record.user, Inbox::First));
    }
    subjects
}

/// The entries of a subject from a sequence on, and whether there are more behind the limit.
async fn read_subject(
    look: &Look,
    stream: &str,
    subject: &str,
    mut from: u64,
    limit: u32,
) -> anyhow::Result<(Vec<Listed>, bool)> {
    let mut entries = Vec::new();
    loop {
        let batch = BATCH.min(limit - entries.len() as u32);
        let (messages, more) = look
            .bus
            .next_by_subject(stream, subject, from, batch, BATCH_BYTES, TIMEOUT)
            .await?;
        from = messages.last().map_or(from, |last| last.sequence + 1);
        let read = messages.len();
        entries.extend(messages.into_iter().map(Listed::from));
        if !more || read == 0 || entries.len() >= limit as usize {
            return Ok((entries, more));
        }
    }
}

impl From<StoredMessage> for Listed {
    fn from(message: StoredMessage) -> Self {
        let entry = InboxEntry::decode(&message.payload);
        let (bytes, body) = match &entry {
            Ok(InboxEntry::Reference(reference)) => (reference.to.bytes as usize, Some(reference.to.body)),
            _ => (message.payload.len(), None),
        };
        let what = match entry {
            Ok(entry) => What::Event {
                seq: entry.seq(),
                chat_id: entry.chat_id(),
                kind: entry.kind(),
                from: entry.from().clone(),
            },
            Err(error) => What::Unreadable {
                unreadable: error.to_string(),
            },
        };
        Self {
            sequence: message.sequence,
            stored_at: message.stored_at,
            bytes,
            body,
            first: message.subject.rsplit('.').next() == Some(FIRST),
            what,
        }
    }
}

impl From<Lost> for Mark {
    fn from(lost: Lost) -> Self {
        Self {
            reason: lost.reason,
            missed: lost.missed,
            since: lost.since,
            until: lost.until,
            chats: lost.chats,
        }
    }
}

fn show(look: &Look, found: &Found) -> String {
    let unconfirmed = print::count(found.unconfirmed, "entry", "entries");
    let mut text = format!(
        "client {} of {}, {}: {unconfirmed} in {}\n",
        found.client_id, found.user_id, found.state, found.stream
    );
    for lost in &found.lost {
        let missed = lost.missed.map_or_else(
            || "an unknown number".to_owned(),
            |missed| format!("about {missed}"),
        );
        let why = match lost.reason {
            TrimReason::Full => "the inbox was full",
            TrimReason::Expired => "too old",
            TrimReason::Inactive => "the client was away for too long",
        };
        let chats = match lost.chats.len() as u64 {
            0 => "any chat".to_owned(),
            count => print::count(count, "chat", "chats"),
        };
        writeln!(
            text,
            "missing: {missed}, from {} to {}, in {chats}: {why}",
            lost.since, lost.until
        )
        .expect("a String takes everything");
    }
    if !found.entries.is_empty() {
        let rows: Vec<Vec<String>> = found.entries.iter().map(|entry| row(look, entry)).collect();
        let titles = [">SEQUENCE", ">SEQ", "CHAT", "KIND", "FROM", ">AGE", ">BYTES", ""];
        text += &print::table(&titles, &rows);
    }
    if let (true, Some(last)) = (found.more, found.entries.last()) {
        let from = last.sequence + 1;
        writeln!(
            text,
            "there are more: --from {from} goes on, --limit lists more at once"
        )
        .expect("a String takes everything");
    }
    text
}

fn row(look: &Look, entry: &Listed) -> Vec<String> {
    let mut notes = Vec::new();
    if entry.first {
        notes.push("inherited".to_owned());
    }
    if let Some(body) = entry.body {
        notes.push(format!("BODIES {body}"));
    }
    let note = notes.join(", ");
    let (seq, chat, kind, from, note) = match &entry.what {
        What::Event {
            seq,
            chat_id,
            kind,
            from,
        } => (
            seq.to_string(),
            chat_id.to_string(),
            *kind,
            from.to_string(),
            note,
        ),
        What::Unreadable { unreadable } => (
            "-".to_owned(),
            "-".to_owned(),
            "unreadable",
            "-".to_owned(),
            unreadable.clone(),
        ),
    };
    vec![
        entry.sequence.to_string(),
        seq,
        chat,
        kind.to_owned(),
        from,
        print::age(look.age(entry.stored_at)),
        entry.bytes.to_string(),
        note,
    ]
}
