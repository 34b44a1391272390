//! Large bodies to which no entry refers any more are removed (adr/0026).
//!
//! A body may go when there is a list of all entries that ever refer to it, and all of those are gone: confirmed, expired,
//! emptied, whatever. One worker at a time looks; two that believe to be the one do the same thing twice. Nothing that is
//! remembered here is missed when it is lost.

mod gone;
mod roll;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use parking_lot::Mutex;
use tidings_metadata::in_time;
use tidings_nats::{ApiError, BODIES, BODY_ENTRIES, BodyEntries, Entry, PublishError, Shard, inbox_stream};
use tidings_service::Context;
use tokio::sync::OnceCell;

use self::gone::Gone;
use self::roll::Roll;
use self::waiting::{Body, Waiting};
use crate::QUESTION_TIMEOUT;

/// What this worker is alone with.
const LEASE: &str = "bodies";
/// How long a worker that died keeps the others waiting.
const LEASE_LASTS: Duration = Duration::from_secs(20);
/// How old a lease may be before it is taken again.
const LEASE_AGE_MAX: Duration = Duration::from_secs(5);
/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(2);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Lists of one request, and their bytes: the longest has 3 KB.
const BATCH: u32 = 256;
const BATCH_BYTES: u32 = 1 << 20;
/// Requests for lists in one round.
const BATCHES_MAX: usize = 16;
/// Bodies that are looked at in one round, about a millisecond of NATS' time each at worst.
const LOOKS_MAX: usize = 1_000;
/// After so long no further look is begun in a round: a stream that does not answer takes its time of each, and the lease is
/// to be taken again before it runs out.
const ROUND_MAX: Duration = Duration::from_secs(10);
/// Bodies that are looked at at once.
const AT_ONCE: usize = 16;
/// How often all lists are looked for again, if not all are remembered.
const AGAIN: Duration = Duration::from_hours(6);

/// What became of a body that was looked at.
enum Look {
    /// It is removed.
    Removed,
    /// It was removed before, or its list cannot be read by this version.
    Forgotten,
    /// This entry refers to it, and so many before it are gone.
    Awaits((Shard, u64), usize),
}

/// Removes until the service is asked to stop.
pub(crate) async fn run(context: Context) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut removal = Removal::default();
    while context
        .stopping
        .run_until_cancelled(interval.tick())
        .await
        .is_some()
    {
        if !removal.is_mine(&context).await {
            continue;
        }
        if let Err(error) = removal.read_on(&context).await {
            metrics::counter!("tidings_bodies_failures_total").increment(1);
            tracing::debug!(%error, "lists of who refers to bodies could not be read; the next round tries again");
        }
        removal.look(&context).await;
        metrics::gauge!("tidings_bodies_waiting").set(removal.waiting.len() as f64);
    }
    metrics::gauge!("tidings_bodies_waiting").set(0.0);
    // Another worker need not wait for it to run out.
    let returned = context.metadata.return_lease(LEASE, context.boot_id.0);
    let _ = in_time(QUESTION_TIMEOUT, returned).await;
}

/// What the one worker remembers.
#[derive(Debug, Default)]
struct Removal {
    leased: Option<Instant>,
    waiting: Waiting,
    /// The last sequence of BODIES that was read for lists.
    read: u64,
    began: Option<Instant>,
}

impl Removal {
    /// Whether this worker is the one, now and for this round.
    async fn is_mine(&mut self, context: &Context) -> bool {
        if self.leased.is_some_and(|at| at.elapsed() < LEASE_AGE_MAX) {
            return true;
        }
        let asked = Instant::now();
        let lease = context.metadata.take_lease(LEASE, context.boot_id.0, LEASE_LASTS);
        let lease = in_time(QUESTION_TIMEOUT, lease).await;
        if let Err(error) = &lease {
            metrics::counter!("tidings_bodies_failures_total").increment(1);
            tracing::debug!(%error, "not known who removes large bodies; the next round asks again");
        }
        self.learn(lease.ok(), asked)
    }

    /// What follows from whether it has the lease since it asked, where Postgres said so; returns whether it works in this
    /// round. All is forgotten only if another worker has it, which remembers by now what there is: to read all lists and to
    /// look at all bodies again costs more than one answer of Postgres that did not come.
    fn learn(&mut self, leased: Option<bool>, asked: Instant) -> bool {
        self.leased = (leased == Some(true)).then_some(asked);
        if leased == Some(false) {
            *self = Self::default();
        }
        self.leased.is_some()
    }

    /// Reads lists that are new.
    async fn read_on(&mut self, context: &Context) -> Result<(), ApiError> {
        let began = *self.began.get_or_insert_with(Instant::now);
        if self.waiting.is_overfull && began.elapsed() > AGAIN {
            (self.read, self.began, self.waiting.is_overfull) = (0, None, false);
        }
        for _ in 0..BATCHES_MAX {
            let (lists, more) = context
                .bus
                .next_by_subject(BODIES, BODY_ENTRIES, self.read + 1, BATCH, BATCH_BYTES, TIMEOUT)
                .await?;
            for list in lists {
                self.read = list.sequence;
                match BodyEntries::decode(&list.payload) {
                    Ok(entries) => self.waiting.add(list.sequence, entries.body, Instant::now()),
                    Err(error) => {
                        tracing::warn!(stream.sequence = list.sequence, %error, "a list cannot be read; its body stays");
                    }
                }
            }
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Looks at those whose time has come.
    async fn look(&mut self, context: &Context) {
        let due = self.waiting.due(Instant::now(), LOOKS_MAX);
        let round = &Round {
            context,
            gone: Mutex::default(),
            barriers: Mutex::default(),
        };
        let began = Instant::now();
        let looks = due
            .into_iter()
            .take_while(|_| began.elapsed() < ROUND_MAX)
            .map(|(list, body)| async move { (list, round.look_at(list, body).await) });
        let mut looks = futures::stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some((list, look)) = looks.next().await {
            match look {
                Ok(Look::Removed) => {
                    metrics::counter!("tidings_bodies_removed_total").increment(1);
                    self.waiting.remove(list);
                }
                Ok(Look::Forgotten) => self.waiting.remove(list),
                Ok(Look::Awaits(entry, gone)) => self.waiting.awaits(list, entry, gone, Instant::now()),
                Err(error) => {
                    metrics::counter!("tidings_bodies_failures_total").increment(1);
                    tracing::debug!(stream.sequence = list, %error, "not known whether a body is needed");
                    self.waiting.try_again(list, Instant::now());
                }
            }
        }
        round.end().await;
    }
}

/// One round of looks.
struct Round<'a> {
    context: &'a Context,
    /// What was found gone in this round: inboxes are emptied from their beginning, and bodies of one chat wait for the same
    /// people.
    gone: Mutex<Gone>,
    /// Published in this round where a stream ends before the entries that are asked for; None where it takes none.
    barriers: Mutex<HashMap<Shard, Arc<OnceCell<Option<u64>>>>>,
}

impl Round<'_> {
    /// Removes a body if nothing refers to it.
    async fn look_at(&self, list: u64, body: Body) -> Result<Look, ApiError> {
        // Mostly it is the same one that was awaited before, and the list need not be read for that.
        if let Some(entry) = body.awaited
            && self.is_there(entry).await?
        {
            return Ok(Look::Awaits(entry, usize::from(body.gone)));
        }
        let bus = &self.context.bus;
        let mut stored = bus.message_at(BODIES, list, TIMEOUT).await?;
        if stored.is_none() {
            stored = bus.message_now(BODIES, list, TIMEOUT).await?;
        }
        let Some(stored) = stored else {
            return Ok(Look::Forgotten);
        };
        let Ok(entries) = BodyEntries::decode(&stored.payload) else {
            return Ok(Look::Forgotten);
        };
        if entries.body != body.sequence {
            // Another stream's: BODIES was made anew.
            return Ok(Look::Forgotten);
        }
        // From the beginning once more in the end: a stream that has lost its last messages uses their sequences again, and what
        // is remembered may be of another list.
        let remembered = usize::from(body.gone);
        for gone in std::iter::once(remembered).chain((remembered > 0).then_some(0)) {
            let mut roll = Roll::new(&entries.entries, gone);
            while let Some(entry) = roll.next() {
                if self.call(entry, &mut roll).await? {
                    return Ok(Look::Awaits(entry, roll.gone()));
                }
            }
        }
        // For the same reason it may be another event's body.
        let stored = bus.message_now(BODIES, body.sequence, TIMEOUT).await?;
        match stored.map(|body| Entry::decode(&body.payload)) {
            Some(Ok(entry)) if entry.seq == entries.seq => {
                bus.delete_message(BODIES, body.sequence, TIMEOUT).await?;
            }
            Some(Ok(_)) | None => {}
            // It is there, and may be its own: a newer worker knows.
            Some(Err(error)) => return Err(ApiError::Malformed(error.to_string())),
        }
        // The list last: without it nobody would look at the body again.
        bus.delete_message(BODIES, list, TIMEOUT).await?;
        tracing::trace!(
            event.sequence = entries.seq,
            "nobody refers to a large body any more"
        );
        Ok(Look::Removed)
    }

    /// Whether an entry is there.
    async fn is_there(&self, entry: (Shard, u64)) -> Result<bool, ApiError> {
        let mut roll = Roll::new(std::slice::from_ref(&entry), 0);
        self.call(entry, &mut roll).await
    }

    /// Whether the next entry of a roll is there; if not, the roll goes on.
    async fn call(&self, (shard, sequence): (Shard, u64), roll: &mut Roll<'_>) -> Result<bool, ApiError> {
        if let Some(next) = self.gone.lock().until(shard, sequence) {
            roll.stream_goes_on_at(next);
            return Ok(false);
        }
        let mut next = self.next(shard, sequence).await?;
        if next.is_none() && roll::is_there_a_witness(sequence, self.barrier(shard).await?) {
            next = self.next(shard, sequence).await?;
            if next.is_none() {
                // Nor does whoever leads it know better: what it says of a stream that it does not have is not believed.
                let behind = "a stream without the barrier that was put there".to_owned();
                return Err(ApiError::Malformed(behind));
            }
        }
        if let Some(next) = next {
            self.gone.lock().add(shard, sequence, next);
            return Ok(!roll.stream_goes_on_at(next));
        }
        // Nothing from there on: it is gone, or whoever answered is behind.
        let bus = &self.context.bus;
        let found = bus.message_now(&inbox_stream(shard), sequence, TIMEOUT).await?;
        if found.is_none() {
            roll.is_gone();
        }
        Ok(found.is_some())
    }

    /// The first sequence from this one on that whoever answers has.
    async fn next(&self, shard: Shard, sequence: u64) -> Result<Option<u64>, ApiError> {
        let (stream, all) = (inbox_stream(shard), format!("inbox.{shard}.>"));
        let found = self
            .context
            .bus
            .first_from(&stream, &all, sequence, TIMEOUT)
            .await?;
        Ok(found.map(|found| found.sequence))
    }

    /// Something that lies behind all entries that are asked for in this round, so that the last entries of a stream to which
    /// nothing is added are known to be gone, too: for all of them at once.
    async fn barrier(&self, shard: Shard) -> Result<Option<u64>, ApiError> {
        let cell = self.barriers.lock().entry(shard).or_default().clone();
        let publish = || async {
            match self.context.bus.barrier(&inbox_stream(shard), TIMEOUT).await {
                Ok(sequence) => Ok(Some(sequence)),
                Err(PublishError::Unknown(error)) if error.code().is_none() => Err(error),
                // It is full.
                Err(_) => Ok(None),
            }
        };
        cell.get_or_try_init(publish).await.copied()
    }

    /// Streams of inboxes hold what is not confirmed and nothing else.
    async fn end(&self) {
        let barriers = std::mem::take(&mut *self.barriers.lock());
        for (shard, cell) in barriers {
            if let Some(Some(sequence)) = cell.get() {
                let stream = inbox_stream(shard);
                let deleted = self.context.bus.delete_message(&stream, *sequence, TIMEOUT).await;
                if let Err(error) = deleted {
                    tracing::debug!(stream, stream.sequence = sequence, %error, "a barrier stays");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_forgotten_only_where_another_worker_has_the_lease() {
        let now = Instant::now();
        let mut removal = Removal::default();
        assert!(removal.learn(Some(true), now));
        removal.waiting.add(2, 1, now);
        removal.read = 2;
        assert!(!removal.learn(None, now), "nothing is done in this round");
        assert_eq!((removal.waiting.len(), removal.read), (1, 2));
        assert!(removal.learn(Some(true), now));
        assert_eq!((removal.waiting.len(), removal.read), (1, 2));
        assert!(!removal.learn(Some(false), now));
        assert_eq!((removal.waiting.len(), removal.read), (0, 0));
    }
}
