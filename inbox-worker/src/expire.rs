//! Entries that turn too old are marked as missing, then deleted.
//!
//! A stream is in order of time, so that only its beginning is read: as far as it is too old. One worker at a time
//! does it; two that believe to be the one count something twice in a mark, and do no other harm.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::TryStreamExt as _;
use tidings_metadata::in_time;
use tidings_nats::{
    ApiError, InboxEntry, Lost, PublishError, Shard, StoredMessage, inbox_stream, is_barrier, is_mark,
};
use tidings_protocol::{ChatId, Timestamp, TrimReason};
use tidings_service::Context;

use crate::QUESTION_TIMEOUT;
use crate::clocks::{ClockError, Clocks, Moment};

/// What this worker is alone with.
const LEASE: &str = "expiry";
/// How long a worker that died keeps the others waiting; several times as long as a shard's turn takes.
const LEASE_LASTS: Duration = Duration::from_secs(30);
/// How often streams are looked at: an entry stays so much longer than it must, at most a tenth of its time.
const INTERVAL_MAX: Duration = Duration::from_mins(10);
const INTERVAL_MIN: Duration = Duration::from_millis(500);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// After so long Postgres is asked again what time it is.
const MOMENT_AGE_MAX: Duration = Duration::from_secs(5);
/// Messages of one request, and their bytes.
const BATCH: u32 = 256;
const BATCH_BYTES: u32 = 4 << 20;
/// Requests of one shard's turn, so that one which has much to expire does not keep the others waiting.
const BATCHES_MAX: usize = 16;
/// Inboxes that are marked and purged at once.
const INBOXES_AT_ONCE: usize = 8;

/// Why a shard's turn ended early. What was not deleted is looked at again.
#[derive(Debug, thiserror::Error)]
enum ExpireError {
    /// A clock is wrong.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// A stream does not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A mark was not stored.
    #[error("not marked: {0}")]
    Mark(#[from] PublishError),
}

/// Whether a shard's turn was long enough.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Turn {
    Done,
    Cut,
}

/// Where each stream's turn was cut: what was kept there is not read again in this round.
type Places = BTreeMap<Shard, Place>;

/// A place in a stream, and what must be known of what comes before it.
#[derive(Debug)]
struct Place {
    /// The next sequence to read.
    from: u64,
    /// The latest moment at which something before was stored.
    newest: Timestamp,
    /// Subjects of which something younger than its place says was kept, as many as the shard has inboxes at most:
    /// nothing behind it may be purged.
    kept: BTreeSet<String>,
}

/// Expires until the service is asked to stop.
pub(crate) async fn run(context: Context, clocks: Clocks, retention: Duration) {
    let mut interval = tokio::time::interval((retention / 10).clamp(INTERVAL_MIN, INTERVAL_MAX));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while context
        .stopping
        .run_until_cancelled(interval.tick())
        .await
        .is_some()
    {
        let mut places = Places::new();
        while round(&context, &clocks, retention, &mut places).await == Turn::Cut
            && !context.stopping.is_cancelled()
        {}
    }
    // Another worker need not wait for it to run out.
    let returned = context.metadata.return_lease(LEASE, context.boot_id.0);
    let _ = in_time(QUESTION_TIMEOUT, returned).await;
}

/// Looks at every stream once. Cut if one has more to expire.
async fn round(context: &Context, clocks: &Clocks, retention: Duration, places: &mut Places) -> Turn {
    let mut round = Turn::Done;
    let mut moment = None;
    for shard in context.topology.shards() {
        let lease = context.metadata.take_lease(LEASE, context.boot_id.0, LEASE_LASTS);
        let lease = in_time(QUESTION_TIMEOUT, lease).await;
        if !matches!(lease, Ok(true)) || context.stopping.is_cancelled() {
            return Turn::Done;
        }
        match expire(context, clocks, shard, retention, &mut moment, places).await {
            Ok(Turn::Done) => {}
            Ok(Turn::Cut) => round = Turn::Cut,
            Err(error) => {
                metrics::counter!("tidings_expiry_failures_total").increment(1);
                tracing::warn!(%shard, %error, "what is too old could not be expired; the next round tries again");
            }
        }
    }
    round
}

/// Expires what is too old at the beginning of a stream.
async fn expire(
    context: &Context,
    clocks: &Clocks,
    shard: Shard,
    retention: Duration,
    moment: &mut Option<Moment>,
    places: &mut Places,
) -> Result<Turn, ExpireError> {
    let bus = &context.bus;
    let stream = inbox_stream(shard);
    let moment = match moment.filter(|moment| moment.age() < MOMENT_AGE_MAX) {
        Some(moment) => moment,
        None => *moment.insert(clocks.agreed().await?),
    };
    let bounds = bus.stream_bounds(&stream, TIMEOUT).await?;
    clocks.check_leader(&stream, bounds.now, moment)?;
    if bounds.messages == 0 || bounds.first_stored_at >= moment.minus(retention) {
        return Ok(Turn::Done);
    }
    let mut place = places.remove(&shard).unwrap_or_else(|| Place {
        from: bounds.first_sequence,
        newest: bounds.first_stored_at,
        kept: BTreeSet::new(),
    });
    for _ in 0..BATCHES_MAX {
        let subjects = format!("inbox.{shard}.>");
        let (messages, more) = bus
            .next_by_subject(&stream, &subjects, place.from, BATCH, BATCH_BYTES, TIMEOUT)
            .await?;
        let Some(last) = messages.last() else {
            return Ok(Turn::Done);
        };
        place.from = last.sequence + 1;
        let old = Old::among(&messages, moment, retention, &mut place);
        let inboxes = futures::stream::iter(old.inboxes.iter().map(Ok));
        inboxes
            .try_for_each_concurrent(INBOXES_AT_ONCE, |(subject, inbox)| {
                mark_and_delete(context, shard, subject, inbox)
            })
            .await?;
        if !old.everything || !more {
            return Ok(Turn::Done);
        }
    }
    places.insert(shard, place);
    Ok(Turn::Cut)
}

/// Marks what is missing, and deletes it only then.
async fn mark_and_delete(
    context: &Context,
    shard: Shard,
    subject: &str,
    inbox: &OldEntries,
) -> Result<(), ExpireError> {
    let bus = &context.bus;
    bus.mark_lost(shard, subject, &inbox.lost(), TIMEOUT).await?;
    let deleted = bus
        .purge_subject_up_to(&inbox_stream(shard), subject, inbox.last, TIMEOUT)
        .await?;
    metrics::counter!("tidings_expired_entries_total").increment(deleted);
    tracing::debug!(
        subject,
        entries = deleted,
        "entries that nobody confirmed have expired"
    );
    Ok(())
}

/// What is too old among messages that follow each other in a stream.
#[derive(Debug, Default)]
struct Old {
    inboxes: BTreeMap<String, OldEntries>,
    /// Whether nothing younger is among them, so that what follows may be too old as well.
    everything: bool,
}

/// Entries of one inbox.
#[derive(Debug)]
struct OldEntries {
    count: u64,
    last: u64,
    since: Timestamp,
    until: Timestamp,
    chats: Vec<ChatId>,
}

impl Old {
    /// `place` is before them: whatever was stored later is not older, whatever the clock of the stream's leader said
    /// then. Nor is an entry older than its event.
    fn among(messages: &[StoredMessage], moment: Moment, retention: Duration, place: &mut Place) -> Self {
        let before = moment.minus(retention);
        let mut old = Self {
            everything: true,
            ..Self::default()
        };
        for message in messages {
            place.newest = message.stored_at.max(place.newest);
            if place.newest >= before {
                old.everything = false;
                break;
            }
            if is_mark(&message.subject)
                || is_barrier(&message.subject)
                || place.kept.contains(&message.subject)
            {
                continue;
            }
            let (happened_at, chat_id) = match InboxEntry::decode(&message.payload) {
                Ok(entry) => (entry.at(), Some(entry.chat_id())),
                // A newer build's: it expires like any other.
                Err(_) => (message.stored_at, None),
            };
            if happened_at >= before {
                tracing::debug!(
                    subject = message.subject,
                    stream.sequence = message.sequence,
                    "an entry is younger than its place says: a clock was wrong; it is kept"
                );
                place.kept.insert(message.subject.clone());
                continue;
            }
            old.add(message, happened_at, chat_id);
        }
        old
    }

    fn add(&mut self, message: &StoredMessage, happened_at: Timestamp, chat_id: Option<ChatId>) {
        let entries = self
            .inboxes
            .entry(message.subject.clone())
            .or_insert_with(|| OldEntries {
                count: 0,
                last: 0,
                since: happened_at,
                until: happened_at,
                chats: Vec::new(),
            });
        entries.count += 1;
        entries.last = message.sequence;
        entries.since = entries.since.min(happened_at);
        entries.until = entries.until.max(happened_at);
        entries.chats.extend(chat_id);
    }
}

impl OldEntries {
    fn lost(&self) -> Lost {
        Lost {
            reason: TrimReason::Expired,
            missed: Some(self.count),
            since: self.since,
            until: self.until,
            chats: self.chats.clone(),
        }
    }
}
