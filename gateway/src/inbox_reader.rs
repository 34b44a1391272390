//! Reading an inbox: through the client's durable while catching up, by Direct Get afterwards and whenever the
//! durable gives trouble. What is read has no hole, and "complete" is said only as of a moment after it was read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use futures::StreamExt as _;
use tidings_nats::{
    ApiError, Bus, ConsumerStatus, DeliveryInfo, Pull, Shard, StartedDurable, StoredMessage, Topology,
    durable_config, inbox_stream, inbox_subjects, is_mark,
};
use tidings_protocol::{ClientId, UserId};
use tidings_service::TraceContext;

use crate::bodies::{Bodies, Wait};
use crate::delivery::Body;
use crate::ends::Ends;
use crate::ensure_durable::ensure_durable;
use crate::gateway::Gateway;
use crate::inbox_session::{Reading, Stored};
use crate::readings::Readings;

mod found;
mod unresolved;

use self::found::{Found, Known};
use self::unresolved::{Unresolved, UnresolvedEntry};

/// A call about a durable that takes longer: its node is down, or busy. The inbox is read by Direct Get then.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(1);
/// For a read. One that is sent while a stream has no leader is answered by nobody, and must not outlast the election.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Between tries while nothing can be read.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);
/// Entries of one request; more would let one inbox keep a server busy.
const BATCH_MAX: usize = 256;

/// What is held of one inbox while BODIES does not answer, or a place to ask it is waited for, as it is stored: some fifty
/// references, and 160 MB where ten thousand clients wait.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// How often it is read on before a reading fails: what is stored has not reached the replicas that answered.
const READS_MAX: u32 = 5;
/// Before the third time it is twice this, and doubles with each.
const BEHIND_DELAY: Duration = Duration::from_millis(20);

/// What a reading found.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) entries: Vec<Stored<Body>>,
    /// The last sequence that was seen, readable or not; 0 if none.
    pub(crate) through: u64,
    pub(crate) complete: bool,
}

/// Reads the inbox of one client. Owned by whoever reads, so there is one reading at a time.
#[derive(Debug)]
pub(crate) struct InboxReader {
    bus: Arc<Bus>,
    topology: Topology,
    shard: Shard,
    user_id: UserId,
    client_id: ClientId,
    heir: bool,
    durable: Option<Durable>,
    ends: Arc<Ends>,
    /// Readings under way in this process.
    readings: Arc<Readings>,
    bodies: Arc<Bodies>,
    /// Found, and not told. Boxed, since few wait for bodies and every one has room for this.
    kept: Option<Box<Kept>>,
}

/// What a reading has found and not told, since BODIES does not answer: a reference, and what comes behind it.
#[derive(Debug)]
struct Kept {
    found: Unresolved,
    wait: Wait,
}

/// The durable, after its reset.
#[derive(Debug)]
struct Durable {
    replies: Subscriber,
    reply: String,
    /// The consumer sequence that the next message must have. Anything else went to another gateway's pull.
    next: u64,
    /// How many entries waited when it was reset.
    backlog: u64,
}

impl InboxReader {
    pub(crate) fn new(gateway: &Gateway, user_id: &UserId, client_id: ClientId, heir: bool) -> Self {
        let topology = gateway.topology;
        let shard = topology.shard(user_id);
        Self {
            bus: gateway.bus.clone(),
            topology,
            shard,
            user_id: user_id.clone(),
            client_id,
            heir,
            durable: None,
            ends: gateway.ends.clone(),
            readings: gateway.readings.clone(),
            bodies: gateway.bodies.clone(),
            kept: None,
        }
    }

    /// The client's own subject, the one it inherited, and those of their marks. Not kept, since most inboxes are not being
    /// read.
    fn subjects(&self) -> Vec<String> {
        inbox_subjects(&self.topology, &self.user_id, self.client_id, self.heir)
    }

    /// Starts the client's durable anew and says how many entries wait. A `new` client has none yet, and is given
    /// one. On trouble the inbox is read without it.
    pub(crate) async fn open_durable(&mut self, new: bool) -> Option<u64> {
        match self.start_durable(new).await {
            Ok(backlog) => Some(backlog),
            Err(error) => {
                metrics::counter!("tidings_durable_failures_total").increment(1);
                tracing::warn!(client.id = %self.client_id, %error, "the durable cannot be used; reading without it");
                self.ensure_durable();
                None
            }
        }
    }

    /// Leaves the durable alone. A `new` client is given one in the background.
    pub(crate) fn leave_durable(&self, new: bool) {
        metrics::counter!("tidings_durables_left_total").increment(1);
        if new {
            self.ensure_durable();
        }
    }

    /// A durable that does not exist is not answered for (nats-server 2.15.1): a reset of one that got lost takes
    /// its full time, and then the durable is made again in the background.
    async fn start_durable(&mut self, new: bool) -> Result<u64, ApiError> {
        if new {
            self.create_durable().await?;
        }
        let mut started = self.reset_durable().await?;
        if !self.reads_all(&started) {
            // An earlier version made it, or the client was not the heir then.
            self.create_durable().await?;
            started = self.reset_durable().await?;
        }
        if !self.reads_all(&started) {
            return Err(ApiError::Malformed(
                "the durable does not read every subject".to_owned(),
            ));
        }
        let reply = self.bus.client().new_inbox();
        let replies = self
            .bus
            .client()
            .subscribe(reply.clone())
            .await
            .map_err(|_| ApiError::Disconnected)?;
        let backlog = started.info.unconfirmed();
        self.durable = Some(Durable {
            replies,
            reply,
            next: 1,
            backlog,
        });
        Ok(backlog)
    }

    async fn create_durable(&self) -> Result<(), ApiError> {
        let config = durable_config(&self.topology, &self.user_id, self.client_id, self.heir);
        self.bus
            .create_durable(self.shard, &config, DURABLE_TIMEOUT)
            .await
    }

    async fn reset_durable(&self) -> Result<StartedDurable, ApiError> {
        self.bus
            .reset_durable(self.shard, self.client_id, DURABLE_TIMEOUT)
            .await
    }

    fn reads_all(&self, started: &StartedDurable) -> bool {
        let wanted = self.subjects();
        wanted.len() == started.subjects.len()
            && wanted.iter().all(|subject| started.subjects.contains(subject))
    }

    /// In the background.
    fn ensure_durable(&self) {
        let (bus, shard, client_id) = (self.bus.clone(), self.shard, self.client_id);
        let config = durable_config(&self.topology, &self.user_id, client_id, self.heir);
        tokio::spawn(async move { ensure_durable(&bus, shard, client_id, &config).await });
    }

    /// Reads until there is something to tell: entries, or that there are none. Retries until then; the stream is the
    /// truth and will be back. Where `perhaps_nothing` is there, that is asked first.
    pub(crate) async fn read(&mut self, reading: Reading, perhaps_nothing: bool) -> Read {
        let subjects = self.subjects();
        let (kept, mut wait) = self.take_kept(reading);
        let backlog = self.durable.as_ref().map_or(0, |durable| durable.backlog);
        if perhaps_nothing
            && kept.is_none()
            && backlog == 0
            && let Some(last) = self.ends.last(self.shard, subjects.clone()).await
            && last.iter().all(|sequence| *sequence < reading.from)
        {
            // What comes after this is read without it; it would hold a subscription as long as the connection.
            self.durable = None;
            return Read {
                entries: Vec::new(),
                through: 0,
                complete: true,
            };
        }
        let mut delay = RETRY_DELAY_MIN;
        let mut found = kept;
        loop {
            if found.is_none() {
                match self.read_stream(&subjects, reading).await {
                    Ok(unresolved) => found = Some(self.cut(unresolved, reading)),
                    Err(error) => {
                        metrics::counter!("tidings_inbox_read_failures_total").increment(1);
                        tracing::debug!(client.id = %self.client_id, %error, "the inbox could not be read; retrying");
                    }
                }
            }
            if let Some(unresolved) = found.take() {
                let (read, rest) = self.resolve(unresolved).await;
                let is_news = read.through >= reading.from;
                let Some(rest) = rest else {
                    return read;
                };
                if is_news {
                    let wait = wait.unwrap_or_else(|| self.bodies.wait());
                    self.kept = Some(Box::new(Kept { found: rest, wait }));
                    return read;
                }
                wait.get_or_insert_with(|| self.bodies.wait());
                found = Some(rest);
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
    }

    /// What the reading before has found and not told, if this one begins there, and that it is waited for. What is complete as
    /// of that reading is not as of this one.
    fn take_kept(&mut self, reading: Reading) -> (Option<Unresolved>, Option<Wait>) {
        let Some(kept) = self.kept.take() else {
            return (None, None);
        };
        let Kept { mut found, wait } = *kept;
        if found.from() != reading.from {
            // Not all that was told before it has found room.
            self.durable = None;
            return (None, None);
        }
        found.complete = false;
        (Some(self.cut(found, reading)), Some(wait))
    }

    /// One try, as somebody among all who read.
    async fn read_stream(&mut self, subjects: &[String], reading: Reading) -> Result<Unresolved, ApiError> {
        let readings = self.readings.clone();
        let place = readings.begin(self.shard).await;
        let result = match self.durable.take() {
            Some(durable) => {
                let result = self.read_durable(durable, subjects, reading).await;
                if result.is_err() {
                    // Its node may have died meanwhile; the inbox is read without it from here on.
                    self.ensure_durable();
                }
                result
            }
            None => self.read_direct(subjects, reading).await,
        };
        place.end(&result);
        result
    }

    /// As far as the reading is to have bytes. Where something that the durable has given out is not told, the inbox is read
    /// without it from here on.
    fn cut(&mut self, mut found: Unresolved, reading: Reading) -> Unresolved {
        if found.cut(reading.bytes) {
            self.durable = None;
        }
        found
    }

    /// Follows references, until one whose body is not known. What comes before it is told, what follows is kept, and only that
    /// is tried again.
    async fn resolve(&mut self, found: Unresolved) -> (Read, Option<Unresolved>) {
        // Where it is silent, nobody waits for it who has something else to hear before.
        if self.bodies.is_silent() {
            let (read, rest) = found.split();
            if let Some(rest) = rest {
                if !read.entries.is_empty() {
                    return (read, Some(self.shorten(rest)));
                }
                let rest = self.shorten(rest);
                return self.follow(rest).await;
            }
            return (read, None);
        }
        self.follow(found).await
    }

    async fn follow(&mut self, mut found: Unresolved) -> (Read, Option<Unresolved>) {
        let (stream, bodies) = (inbox_stream(self.shard), self.bodies.clone());
        let mut place = None;
        if found.has_references() {
            place = bodies.free_place();
            if place.is_none() {
                found = self.shorten(found);
                place = Some(bodies.place().await);
            }
        }
        let (read, rest) = found.resolve(&bodies, &stream).await;
        drop(place);
        let rest = rest.map(|(rest, error)| {
            tracing::debug!(client.id = %self.client_id, %error, "a large body could not be fetched; retrying");
            self.shorten(rest)
        });
        (read, rest)
    }

    /// What is left out is read again, and not by the durable, which has given it out.
    fn shorten(&mut self, mut rest: Unresolved) -> Unresolved {
        if rest.shorten(KEPT_BYTES_MAX) {
            self.durable = None;
        }
        rest
    }

    /// Pulls what is there. The durable was given away by the caller: whatever is odd, it is not used again.
    async fn read_durable(
        &mut self,
        mut durable: Durable,
        subjects: &[String],
        reading: Reading,
    ) -> Result<Unresolved, ApiError> {
        let batch = reading.count.min(BATCH_MAX) as u32;
        let pull = Pull {
            batch,
            max_bytes: reading.bytes as u32,
            no_wait: true,
            ..Pull::default()
        };
        let subject = Pull::subject(&inbox_stream(self.shard), &self.client_id.to_string());
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
                    let trace = TraceContext::of(message.headers.as_ref());
                    let (sequence, subject) = (info.stream_sequence, &message.subject);
                    entries.extend(self.stored(sequence, subject, &message.payload, trace));
                }
                Some(ConsumerStatus::Heartbeat) => {}
                Some(ConsumerStatus::Empty) => empty = true,
                Some(ConsumerStatus::BatchDone) if !entries.is_empty() => break,
                Some(status) => return Err(ApiError::Malformed(format!("the durable ended: {status:?}"))),
            }
        }
        if !empty {
            self.durable = Some(durable);
            return Ok(Unresolved {
                entries,
                through: last,
                complete: false,
            });
        }
        // The durable reads all subjects in stream order.
        let mut read = self
            .read_on(Found::new(last, subjects.len()), subjects, reading)
            .await?;
        entries.append(&mut read.entries);
        read.through = read.through.max(last);
        Ok(Unresolved { entries, ..read })
    }

    /// Reads the subjects of entries; marks are read only when something is there, since there are few.
    async fn read_direct(&self, subjects: &[String], reading: Reading) -> Result<Unresolved, ApiError> {
        let mut found = Found::new(reading.from - 1, subjects.len());
        let of_entries: Vec<usize> = (0..subjects.len())
            .filter(|subject| !is_mark(&subjects[*subject]))
            .collect();
        self.read_subjects(&mut found, subjects, &of_entries, reading)
            .await?;
        self.read_on(found, subjects, reading).await
    }

    /// Whoever answered may have been behind, and each subject was read at another moment: where they end is asked, and
    /// those that hold back all others are read on, until there is something to tell.
    async fn read_on(
        &self,
        mut found: Found<StoredMessage>,
        subjects: &[String],
        reading: Reading,
    ) -> Result<Unresolved, ApiError> {
        for attempt in 0..READS_MAX {
            let ends = self.ends.last(self.shard, subjects.to_vec()).await;
            match found.known(&ends.ok_or(ApiError::Timeout)?) {
                Known::Everything => return Ok(self.told(&found.finish(u64::MAX), true)),
                Known::UpTo(sequence) => return Ok(self.told(&found.finish(sequence), false)),
                Known::Nothing { held_back_by } => {
                    if attempt > 0 {
                        tokio::time::sleep(BEHIND_DELAY * 2_u32.pow(attempt)).await;
                    }
                    self.read_subjects(&mut found, subjects, &held_back_by, reading)
                        .await?;
                }
            }
        }
        Err(ApiError::Timeout)
    }

    async fn read_subjects(
        &self,
        found: &mut Found<StoredMessage>,
        subjects: &[String],
        which: &[usize],
        reading: Reading,
    ) -> Result<(), ApiError> {
        let batch = reading.count.min(BATCH_MAX) as u32;
        let bytes = reading.bytes as u32;
        let stream = inbox_stream(self.shard);
        let reads = which.iter().map(|subject| {
            let (name, from) = (&subjects[*subject], found.next_of(*subject));
            self.bus
                .next_by_subject(&stream, name, from, batch, bytes, READ_TIMEOUT)
        });
        let reads = futures::future::try_join_all(reads).await?;
        for (subject, (messages, _)) in which.iter().zip(reads) {
            let messages = messages.into_iter().map(|message| (message.sequence, message));
            found.add(*subject, messages);
        }
        Ok(())
    }

    fn told(&self, messages: &[(u64, StoredMessage)], complete: bool) -> Unresolved {
        let through = messages.last().map_or(0, |(sequence, _)| *sequence);
        let entries = messages
            .iter()
            .filter_map(|(sequence, message)| {
                let trace = message.trace.as_deref().and_then(TraceContext::parse);
                self.stored(*sequence, &message.subject, &message.payload, trace)
            })
            .collect();
        Unresolved {
            entries,
            through,
            complete,
        }
    }

    /// An entry that cannot be read is skipped, told and kept: a newer gateway may read it.
    fn stored(
        &self,
        sequence: u64,
        subject: &str,
        payload: &[u8],
        trace: Option<TraceContext>,
    ) -> Option<UnresolvedEntry> {
        match UnresolvedEntry::decode(sequence, subject, payload, trace) {
            Ok(entry) => Some(entry),
            Err(error) => {
                metrics::counter!("tidings_unreadable_entries_total").increment(1);
                let stream = inbox_stream(self.shard);
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
