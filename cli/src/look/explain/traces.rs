//! Traces of a message outside of inboxes: in CHATS, in `DEAD_LETTERS`, and in what CHATS remembers.

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tidings_nats::{
    CHATS, DEAD_LETTERS, Event, HEADER_REASON, HEADER_TRIES, HeadedMessage, Partition, PartitionTrials,
    TRIALS, dead_letter_subject, fanout_consumer,
};
use tidings_protocol::{ClientId, Timestamp, UserId};

use super::{Known, Look, TIMEOUT, Wanted};

/// What a chat may have in CHATS.
const CHAT_EVENTS_MAX: usize = 500;
/// Dead letters of one chat that are looked through; the newest are last.
const LETTERS_MAX: usize = 1_000;
/// Questions to CHATS at once.
const QUESTIONS_MAX: usize = 16;
/// The header by which JetStream knows an event.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// Of an event that is in CHATS.
#[derive(Debug, Serialize)]
pub(super) struct Progress {
    /// Whether the partition's consumer has delivered it.
    #[serde(skip)]
    pub(super) given: bool,
    /// Events of the chat that come before it.
    pub(super) chat_events_before: usize,
    /// What the partition's consumer has yet to do, for all of its chats.
    pub(super) partition_unprocessed: u64,
    pub(super) partition_outstanding: u64,
    /// Whether a worker holds the partition, or asks for its events.
    pub(super) worker: bool,
    /// The worker that tries it under a mark, since another may have died of it.
    pub(super) tried_by: Option<String>,
    /// How many workers in a row have died of it.
    pub(super) deaths: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct DeadLetter {
    /// Its place in `DEAD_LETTERS`.
    pub(super) sequence: u64,
    pub(super) reason: String,
    /// How often it was tried.
    pub(super) tries: Option<u32>,
    pub(super) dead_since: Timestamp,
}

/// Looks for it in CHATS, where it is until every inbox has it.
pub(super) async fn in_chats(
    look: &Look,
    partition: Partition,
    subject: &str,
    wanted: &Wanted,
    known: &mut Known,
) -> anyhow::Result<Option<Progress>> {
    let read = || format!("cannot read the stream {CHATS}");
    let (mut from, mut before) = (1, 0);
    let found = loop {
        let event = look.bus.next_headed(CHATS, subject, from, TIMEOUT).await;
        let Some(event) = event.with_context(read)? else {
            return Ok(None);
        };
        if is(wanted, &event) {
            break event;
        }
        (from, before) = (event.sequence + 1, before + 1);
        if before > CHAT_EVENTS_MAX {
            return Ok(None);
        }
    };
    if let Ok(Event::Message(message)) = Event::decode(&found.payload) {
        known.learn(found.sequence, &message);
    } else {
        // A newer version's, which is known by its id alone.
        known.seq = Some(found.sequence);
        known.client_id = sender(&found);
    }
    known.accepted_at = Some(found.stored_at);
    let consumer = look.bus.partition_consumer(partition, TIMEOUT).await;
    let consumer =
        consumer.with_context(|| format!("cannot read the consumer {}", fanout_consumer(partition)))?;
    let trials = look
        .bus
        .leader_last(
            &format!("KV_{TRIALS}"),
            &PartitionTrials::subject(partition),
            TIMEOUT,
        )
        .await
        .context("cannot read the bucket TRIALS")?;
    let trials = trials.and_then(|trials| PartitionTrials::decode(&trials.payload));
    let mut trials = trials.unwrap_or_default();
    Ok(Some(Progress {
        given: consumer.delivered >= found.sequence,
        chat_events_before: before,
        partition_unprocessed: consumer.unprocessed,
        partition_outstanding: consumer.outstanding,
        worker: consumer.waiting > 0 || consumer.pinned,
        tried_by: trials.trying.remove(&found.sequence),
        deaths: trials.deaths.remove(&found.sequence).unwrap_or(0),
    }))
}

/// Looks for it among the chat's dead letters.
pub(super) async fn letter(
    look: &Look,
    subject: &str,
    wanted: &Wanted,
    known: &mut Known,
) -> anyhow::Result<Option<DeadLetter>> {
    let subject = dead_letter_subject(subject);
    let mut from = 1;
    for _ in 0..LETTERS_MAX {
        let letter = look.bus.next_headed(DEAD_LETTERS, &subject, from, TIMEOUT).await;
        let letter = letter.with_context(|| format!("cannot read the stream {DEAD_LETTERS}"))?;
        let Some(letter) = letter else {
            return Ok(None);
        };
        from = letter.sequence + 1;
        if let Ok(event) = Event::decode(&letter.payload)
            && let Event::Message(message) = &event
            && wanted.is(&event)
        {
            let seq = letter.header(MESSAGE_ID).and_then(|id| id.strip_prefix("dead."));
            if let Some(seq) = seq.and_then(|seq| seq.parse().ok()) {
                known.learn(seq, message);
            }
            return Ok(Some(DeadLetter {
                sequence: letter.sequence,
                reason: letter.header(HEADER_REASON).unwrap_or_default().to_owned(),
                tries: letter.header(HEADER_TRIES).and_then(|tries| tries.parse().ok()),
                dead_since: letter.stored_at,
            }));
        }
    }
    Ok(None)
}

/// Asks CHATS whether it remembers the message of any client of these users: it does for ten minutes.
pub(super) async fn remembered(
    look: &Look,
    subject: &str,
    wanted: &Wanted,
    users: &[UserId],
    known: &mut Known,
) -> anyhow::Result<()> {
    let clients: Vec<(Option<UserId>, ClientId)> = if let Some(client_id) = wanted.sender {
        let record = look.metadata.client(client_id).await?;
        vec![(record.map(|record| record.user), client_id)]
    } else {
        let mut all = Vec::new();
        for (user, clients) in look.metadata.active_clients(users).await? {
            all.extend(
                clients
                    .into_iter()
                    .map(|client_id| (Some(user.clone()), client_id)),
            );
        }
        all
    };
    let asked = stream::iter(clients).map(async |(user, client_id)| {
        let id = format!("{}.{client_id}.{}", wanted.chat, wanted.message);
        let seq = look.bus.remembered(subject, &id, TIMEOUT).await?;
        Ok::<_, tidings_nats::ApiError>(seq.map(|seq| (user, client_id, seq)))
    });
    let found: Vec<_> = asked
        .buffer_unordered(QUESTIONS_MAX)
        .try_collect()
        .await
        .with_context(|| format!("cannot ask the stream {CHATS}"))?;
    if let Some((user, client_id, seq)) = found.into_iter().flatten().next() {
        known.seq = Some(seq);
        known.from = user;
        known.client_id = Some(client_id);
    }
    Ok(())
}

fn is(wanted: &Wanted, event: &HeadedMessage) -> bool {
    if let Ok(event) = Event::decode(&event.payload) {
        return wanted.is(&event);
    }
    let end = format!(".{}", wanted.message);
    let named = event.header(MESSAGE_ID).is_some_and(|id| id.ends_with(&end));
    named && wanted.sender.is_none_or(|wanted| Some(wanted) == sender(event))
}

/// The client of `<chat>.<client>.<message>`.
fn sender(event: &HeadedMessage) -> Option<ClientId> {
    event.header(MESSAGE_ID)?.split('.').nth(1)?.parse().ok()
}
