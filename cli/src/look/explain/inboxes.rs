//! Looking for one entry in the inboxes of a user.

use std::collections::BTreeMap;

use anyhow::Context as _;
use tidings_nats::{InboxEntry, Lost, StoredMessage, escape_user, inbox_stream, is_mark};
use tidings_protocol::{Timestamp, UserId};

use super::{Known, Look, TIMEOUT, Wanted};

/// Entries that one command looks through, of all inboxes: half a minute's reading. Only who has confirmed a message and
/// not what came after it, or an id that nobody used, makes it read many.
pub(super) const ENTRIES_MAX: u32 = 500_000;
/// Entries of one request.
const BATCH: u32 = 256;
/// About so many bytes of one request.
const BATCH_BYTES: u32 = 1 << 20;
/// Marks of an inbox: one a reason, and what a crash may have left.
const MARKS_MAX: u32 = 16;

/// What the inboxes of a user have of the message.
#[derive(Debug, Default)]
pub(super) struct UserInboxes {
    /// By subject; an inbox that is empty is not there.
    pub(super) found: BTreeMap<String, Search>,
    /// By the subject of the inbox: what is missing from it.
    pub(super) marks: BTreeMap<String, Vec<Lost>>,
}

/// Whether an inbox has it.
#[derive(Clone, Debug)]
pub(super) enum Search {
    Found { sequence: u64, stored_at: Timestamp },
    NotThere,
    NotKnown(&'static str),
}

/// Looks for it in all inboxes of the user: what was stored from a moment on, or all of it.
pub(super) async fn search(
    look: &Look,
    user: &UserId,
    wanted: &Wanted,
    from: Option<Timestamp>,
    known: &mut Known,
    budget: &mut u32,
) -> anyhow::Result<UserInboxes> {
    let shard = look.topology.shard(user);
    let stream = inbox_stream(shard);
    let read = || format!("cannot read the stream {stream}");
    let filter = format!("inbox.{shard}.{}.>", escape_user(user));
    let subjects = look.bus.messages_by_subject(&stream, &filter, TIMEOUT).await;
    let mut inboxes = UserInboxes::default();
    for subject in subjects.with_context(read)?.into_keys() {
        if is_mark(&subject) {
            let marks = look
                .bus
                .leader_all(&stream, &subject, 1, MARKS_MAX, TIMEOUT)
                .await;
            let marks = marks.with_context(read)?;
            let marks = marks.iter().filter_map(|mark| Lost::decode(&mark.payload).ok());
            let inbox = subject.trim_end_matches(".lost").to_owned();
            inboxes.marks.insert(inbox, marks.collect());
        } else {
            let found = search_inbox(look, &stream, &subject, wanted, from, known, budget).await;
            inboxes.found.insert(subject, found.with_context(read)?);
        }
    }
    Ok(inboxes)
}

async fn search_inbox(
    look: &Look,
    stream: &str,
    subject: &str,
    wanted: &Wanted,
    from: Option<Timestamp>,
    known: &mut Known,
    budget: &mut u32,
) -> anyhow::Result<Search> {
    let first = match from {
        Some(from) => look.bus.leader_next_since(stream, subject, from, TIMEOUT).await?,
        None => look.bus.leader_next(stream, subject, 1, TIMEOUT).await?,
    };
    let last = look.bus.leader_last(stream, subject, TIMEOUT).await?;
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(Search::NotThere);
    };
    let (mut next, mut unreadable) = (first.sequence, false);
    while next <= last.sequence {
        let batch = next_batch(look, stream, subject, next).await?;
        let Some(end) = batch.last() else {
            break;
        };
        next = end.sequence + 1;
        for message in batch {
            let Ok(entry) = InboxEntry::decode(&message.payload) else {
                unreadable = true;
                continue;
            };
            if wanted.is_entry(&entry) {
                known.learn_entry(&entry);
                return Ok(Search::Found {
                    sequence: message.sequence,
                    stored_at: message.stored_at,
                });
            }
            // Events of a chat are stored in their order.
            if entry.chat_id() == wanted.chat && known.seq.is_some_and(|seq| entry.seq() > seq) {
                return Ok(Search::NotThere);
            }
            *budget = budget.saturating_sub(1);
        }
        if *budget == 0 {
            return Ok(Search::NotKnown(
                "too many entries to look through: see `tidings inbox`",
            ));
        }
    }
    Ok(if unreadable {
        Search::NotKnown("entries of a newer version are there, which this one cannot read")
    } else {
        Search::NotThere
    })
}

/// The next entries, at least one if there is any: a replica that is behind hides nothing.
async fn next_batch(
    look: &Look,
    stream: &str,
    subject: &str,
    next: u64,
) -> anyhow::Result<Vec<StoredMessage>> {
    let bus = &look.bus;
    let (batch, _) = bus
        .next_by_subject(stream, subject, next, BATCH, BATCH_BYTES, TIMEOUT)
        .await?;
    if !batch.is_empty() {
        return Ok(batch);
    }
    let one = bus.leader_next(stream, subject, next, TIMEOUT).await?;
    Ok(one.into_iter().collect())
}
