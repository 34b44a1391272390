//! Reading an inbox: through the client's durable while catching up, by Direct Get afterwards and whenever the
//! durable gives trouble. What is read has no hole, and "complete" is the leader's word.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use futures::StreamExt as _;
use tidings_nats::{
    ApiError, Bus, ConsumerStatus, DeliveryInfo, Entry, Inbox, Pull, Shard, StoredMessage, Topology,
    durable_config, inbox_stream, inbox_subject,
};
use tidings_protocol::{ClientId, UserId};
use tokio::sync::Semaphore;

use crate::inbox_session::{Reading, Stored};

/// A call about a durable that takes longer: its node is down, or busy. The inbox is read by Direct Get then.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(1);
/// For a read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Between tries while nothing can be read.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);
/// Readings of one process under way. A storm of reconnects, or a doubt about thousands of sessions, is worked off
/// in an orderly way; one takes a few milliseconds.
pub(crate) const READINGS_MAX: usize = 32;
/// Entries of one request; more would let one inbox keep a server busy.
const BATCH_MAX: usize = 256;

/// What a reading found.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) entries: Vec<Stored<Arc<Entry>>>,
    pub(crate) complete: bool,
}

/// Reads the inbox of one client. Owned by whoever reads, so there is one reading at a time.
#[derive(Debug)]
pub(crate) struct InboxReader {
    bus: Bus,
    shard: Shard,
    stream: String,
    client_id: ClientId,
    /// The client's own subject, and the one it inherited.
    subjects: Vec<String>,
    durable: Option<Durable>,
    /// Readings under way in this process.
    readings: Arc<Semaphore>,
}

/// The durable, after its reset.
#[derive(Debug)]
struct Durable {
    replies: Subscriber,
    reply: String,
    /// The consumer sequence that the next message must have. Anything else went to another gateway's pull.
    next: u64,
}

impl InboxReader {
    pub(crate) fn new(
        bus: Bus,
        topology: Topology,
        user_id: &UserId,
        client_id: ClientId,
        heir: bool,
        readings: Arc<Semaphore>,
    ) -> Self {
        let shard = topology.shard(user_id);
        let mut subjects = vec![inbox_subject(&topology, user_id, Inbox::Client(client_id))];
        if heir {
            subjects.push(inbox_subject(&topology, user_id, Inbox::First));
        }
        Self {
            bus,
            shard,
            stream: inbox_stream(shard),
            client_id,
            subjects,
            durable: None,
            readings,
        }
    }

    /// Starts the client's durable anew and says how many entries wait. A `new` client has none yet, and is given
    /// one. On trouble the inbox is read without it.
    pub(crate) async fn open_durable(
        &mut self,
        topology: Topology,
        user_id: &UserId,
        new: bool,
    ) -> Option<u64> {
        match self.start_durable(topology, user_id, new).await {
            Ok(backlog) => Some(backlog),
            Err(error) => {
                metrics::counter!("tidings_durable_failures_total").increment(1);
                tracing::warn!(client.id = %self.client_id, %error, "the durable cannot be used; reading without it");
                self.remake_durable(topology, user_id);
                None
            }
        }
    }

    /// A durable that does not exist is not answered for (nats-server 2.15.1): a reset of one that got lost takes
    /// its full time, and then the durable is made again in the background.
    async fn start_durable(
        &mut self,
        topology: Topology,
        user_id: &UserId,
        new: bool,
    ) -> Result<u64, ApiError> {
        if new {
            let config = durable_config(&topology, user_id, self.client_id, self.subjects.len() > 1);
            self.bus
                .create_durable(self.shard, &config, DURABLE_TIMEOUT)
                .await?;
        }
        let info = self
            .bus
            .reset_durable(self.shard, self.client_id, DURABLE_TIMEOUT)
            .await?;
        let reply = self.bus.client().new_inbox();
        let replies = self
            .bus
            .client()
            .subscribe(reply.clone())
            .await
            .map_err(|_| ApiError::Disconnected)?;
        self.durable = Some(Durable {
            replies,
            reply,
            next: 1,
        });
        Ok(info.unconfirmed())
    }

    /// In the background: DELETE without waiting, then CREATE, which lands on a node that is up.
    fn remake_durable(&self, topology: Topology, user_id: &UserId) {
        let (bus, shard, client_id) = (self.bus.clone(), self.shard, self.client_id);
        let config = durable_config(&topology, user_id, client_id, self.subjects.len() > 1);
        tokio::spawn(async move {
            let _ = bus.delete_durable(shard, client_id, DURABLE_TIMEOUT).await;
            if let Err(error) = bus.create_durable(shard, &config, READ_TIMEOUT).await {
                tracing::debug!(client.id = %client_id, %error, "the durable was not made again; the next hello will");
            }
        });
    }

    /// Reads until there is something to tell: entries, or the leader's word that there are none. Retries until
    /// then; the stream is the truth and will be back.
    pub(crate) async fn read(&mut self, reading: Reading) -> Read {
        let mut delay = RETRY_DELAY_MIN;
        loop {
            let permit = self.readings.clone().acquire_owned().await;
            let result = match self.durable.take() {
                Some(durable) => self.read_durable(durable, reading).await,
                None => self.read_direct(reading).await,
            };
            drop(permit);
            match result {
                Ok(read) => return read,
                Err(error) => {
                    metrics::counter!("tidings_inbox_read_failures_total").increment(1);
                    tracing::debug!(client.id = %self.client_id, %error, "the inbox could not be read; retrying");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(RETRY_DELAY_MAX);
                }
            }
        }
    }

    /// Pulls what is there. The durable was given away by the caller: whatever is odd, it is not used again.
    async fn read_durable(&mut self, mut durable: Durable, reading: Reading) -> Result<Read, ApiError> {
        let batch = reading.count.min(BATCH_MAX) as u32;
        let pull = Pull {
            batch,
            max_bytes: reading.bytes as u32,
            no_wait: true,
            ..Pull::default()
        };
        let subject = Pull::subject(&self.stream, &self.client_id.to_string());
        self.bus
            .client()
            .publish_with_reply(subject, durable.reply.clone(), pull.encode())
            .await
            .map_err(|_| ApiError::Disconnected)?;
        let mut entries = Vec::new();
        let mut last = reading.from - 1;
        let mut empty = false;
        while entries.len() < batch as usize && !empty {
            let Ok(message) = tokio::time::timeout(DURABLE_TIMEOUT, durable.replies.next()).await else {
                return Err(ApiError::Timeout);
            };
            let message = message.ok_or(ApiError::Disconnected)?;
            match ConsumerStatus::of(&message) {
                None => {
                    let info = message.reply.as_deref().and_then(DeliveryInfo::parse);
                    let info =
                        info.ok_or_else(|| ApiError::Malformed("a delivery without $JS.ACK".to_owned()))?;
                    if info.consumer_sequence != durable.next {
                        // Another gateway's pull took what is missing.
                        return Err(ApiError::Malformed("a gap in the consumer's sequence".to_owned()));
                    }
                    durable.next += 1;
                    empty = info.pending == 0;
                    last = info.stream_sequence;
                    entries.extend(self.stored(info.stream_sequence, &message.payload));
                }
                Some(ConsumerStatus::Heartbeat) => {}
                Some(ConsumerStatus::Empty) => empty = true,
                Some(ConsumerStatus::BatchDone) if !entries.is_empty() => break,
                Some(status) => return Err(ApiError::Malformed(format!("the durable ended: {status:?}"))),
            }
        }
        if !empty {
            self.durable = Some(durable);
            return Ok(Read {
                entries,
                complete: false,
            });
        }
        self.confirm_end(entries, last).await
    }

    /// Reads each subject and merges by sequence, only as far as every subject was read.
    async fn read_direct(&mut self, reading: Reading) -> Result<Read, ApiError> {
        let batch = reading.count.min(BATCH_MAX) as u32;
        let mut messages: Vec<StoredMessage> = Vec::new();
        let mut read_up_to = u64::MAX;
        for subject in &self.subjects {
            let (read, more) = self
                .bus
                .next_by_subject(
                    &self.stream,
                    subject,
                    reading.from,
                    batch,
                    reading.bytes as u32,
                    READ_TIMEOUT,
                )
                .await?;
            if let (true, Some(last)) = (more, read.last()) {
                read_up_to = read_up_to.min(last.sequence);
            }
            messages.extend(read);
        }
        messages.sort_by_key(|message| message.sequence);
        messages.retain(|message| message.sequence <= read_up_to);
        let last = messages
            .last()
            .map_or(reading.from - 1, |message| message.sequence);
        let entries = messages
            .iter()
            .filter_map(|message| self.stored(message.sequence, &message.payload))
            .collect();
        if read_up_to < u64::MAX {
            return Ok(Read {
                entries,
                complete: false,
            });
        }
        self.confirm_end(entries, last).await
    }

    /// Whoever answered may have been behind; the leader says whether something is stored after `last`, and what.
    async fn confirm_end(&self, mut entries: Vec<Stored<Arc<Entry>>>, last: u64) -> Result<Read, ApiError> {
        let mut next: Option<StoredMessage> = None;
        for subject in &self.subjects {
            let found = self
                .bus
                .leader_next(&self.stream, subject, last + 1, READ_TIMEOUT)
                .await?;
            next = match (next, found) {
                (Some(a), Some(b)) => Some(if a.sequence < b.sequence { a } else { b }),
                (a, b) => a.or(b),
            };
        }
        let complete = next.is_none();
        entries.extend(next.and_then(|message| self.stored(message.sequence, &message.payload)));
        Ok(Read { entries, complete })
    }

    /// An entry that cannot be read is skipped, told and kept: a newer gateway may read it.
    fn stored(&self, sequence: u64, payload: &[u8]) -> Option<Stored<Arc<Entry>>> {
        match Entry::decode(payload) {
            Ok(entry) => Some(Stored {
                sequence,
                bytes: payload.len(),
                body: Arc::new(entry),
            }),
            Err(error) => {
                metrics::counter!("tidings_unreadable_entries_total").increment(1);
                let stream = &self.stream;
                tracing::error!(%stream, stream.sequence = sequence, %error, "an entry cannot be read");
                None
            }
        }
    }
}

/// The last sequence of each of these inboxes that holds anything, by subject.
pub(crate) async fn last_sequences(
    bus: &Bus,
    shard: Shard,
    subjects: &[String],
) -> Result<HashMap<String, u64>, ApiError> {
    let last = bus
        .last_by_subjects(&inbox_stream(shard), subjects, READ_TIMEOUT)
        .await?;
    Ok(last
        .into_iter()
        .map(|message| (message.subject, message.sequence))
        .collect())
}
