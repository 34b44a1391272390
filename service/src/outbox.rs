//! Publishes what a committed change of a chat or of a user's clients has left in the outbox: the one place where
//! Postgres and the bus meet.

use std::time::Duration;

use tidings_metadata::{ChatChange, DatabaseError, Metadata, OutboxChange, OutboxKey, OutboxRow};
use tidings_nats::{
    Bus, ChatUpdate, Event, Invalidation, PublishError, Topology, chat_subject, escape_user, event_headers,
    invalidation_subject,
};
use tidings_protocol::{ChatId, UserId};

/// For one publish ack. A lock on the outbox lives through the whole flush, and others wait 5 s for it.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);

/// A row that is published now.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Its version within the chat or user.
    pub version: u64,
    /// Its stream sequence: in CHATS for a chat, in INVALIDATIONS for a user.
    pub seq: u64,
}

/// Why not everything was published. What was is kept; another flush goes on where this one ended, and publishes
/// nothing twice.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The chat has as many events waiting for the fan-out as it may.
    #[error("the chat has too many events that are not fanned out yet")]
    ChatBusy,
    /// Postgres.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The bus.
    #[error("cannot publish: {0}")]
    Publish(PublishError),
}

impl From<PublishError> for FlushError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::SubjectFull => Self::ChatBusy,
            error => Self::Publish(error),
        }
    }
}

/// Publishes all unsent rows of a chat or user, in order, and notes their sequences. Waits for others who do the
/// same; what they have published is not in the result, but in Postgres then.
///
/// A chat's changes go to CHATS, and one invalidation of the chat to INVALIDATIONS; a user's go to INVALIDATIONS.
pub async fn flush(
    metadata: &Metadata,
    bus: &Bus,
    topology: &Topology,
    key: OutboxKey,
) -> Result<Vec<Flushed>, FlushError> {
    let mut lock = metadata.lock_outbox(key.clone()).await?;
    let mut flushed = Vec::new();
    let mut failure = None;
    for row in lock.rows().await? {
        match publish(bus, topology, &row).await {
            Ok(seq) => {
                lock.mark_sent(row.outbox_id, seq).await?;
                flushed.push(Flushed {
                    version: row.version,
                    seq,
                });
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    // Before the commit: an invalidation that is not published would never be, once the rows count as sent.
    if let (OutboxKey::Chat(chat_id), Some(last)) = (&key, flushed.last()) {
        invalidate_chat(bus, *chat_id, last.version).await?;
    }
    lock.commit().await?;
    failure.map_or(Ok(flushed), |error| Err(error.into()))
}

async fn publish(bus: &Bus, topology: &Topology, row: &OutboxRow) -> Result<u64, PublishError> {
    match &row.change {
        OutboxChange::Chat(change) => publish_chat(bus, topology, change).await,
        OutboxChange::User { user } => invalidate_user(bus, user, row.version).await,
    }
}

/// A second time, a sequence is answered and nothing is stored, as long as CHATS remembers the id. Later it may be
/// a second event with the same version, which is ignored by whoever has seen the first.
async fn publish_chat(bus: &Bus, topology: &Topology, change: &ChatChange) -> Result<u64, PublishError> {
    let event = Event::ChatUpdate(chat_update(change));
    let headers = event_headers(&event, &event.message_id());
    let subject = chat_subject(topology.partition(change.chat_id), change.chat_id);
    Ok(bus
        .publish(subject, headers, event.encode(), PUBLISH_TIMEOUT)
        .await?
        .sequence)
}

/// The event of a change.
pub fn chat_update(change: &ChatChange) -> ChatUpdate {
    ChatUpdate {
        chat_id: change.chat_id,
        version: change.version,
        kind: change.kind,
        name: change.name.clone(),
        by: change.by.clone(),
        at: change.at,
        added: change.added.clone(),
        removed: change.removed.clone(),
        participants: change.participants.clone(),
    }
}

async fn invalidate_chat(bus: &Bus, chat_id: ChatId, version: u64) -> Result<u64, PublishError> {
    invalidate(
        bus,
        &Invalidation::Chat { chat_id, version },
        &format!("chat.{chat_id}.{version}"),
    )
    .await
}

async fn invalidate_user(bus: &Bus, user_id: &UserId, version: u64) -> Result<u64, PublishError> {
    let message_id = format!("user.{}.{version}", escape_user(user_id));
    invalidate(
        bus,
        &Invalidation::User {
            user_id: user_id.clone(),
        },
        &message_id,
    )
    .await
}

async fn invalidate(bus: &Bus, invalidation: &Invalidation, message_id: &str) -> Result<u64, PublishError> {
    let subject = invalidation_subject(invalidation);
    Ok(bus
        .publish_with_id(subject, message_id, invalidation.encode(), PUBLISH_TIMEOUT)
        .await?
        .sequence)
}
