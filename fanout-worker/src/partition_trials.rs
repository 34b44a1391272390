//! Which events of a partition are suspected to have killed a worker, and the partition's key in the bucket TRIALS.
//!
//! Suspect is what was delivered before this worker was pinned and is still stored: a worker that has died was working
//! on some of it. What is written down is only what is being tried, and who died of that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use parking_lot::Mutex;
use tidings_nats::{
    ApiError, Bus, CHATS, Partition, PartitionTrials, PublishError, TRIALS, partition_subjects,
};
use tokio::time::Instant;

/// For each request. It is made where a take-over waits for it.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Marks of one kind that are carried on, of the newest events: they are kept below the 64 KiB of a value. A worker that dies
/// leaves behind at most as many as it tries at once.
const MARKS_MAX: usize = 256;

/// The suspects of a partition, as they were when this worker was pinned.
#[derive(Debug)]
pub(crate) struct Suspects {
    bus: Bus,
    partition: Partition,
    worker: String,
    /// Up to this sequence, whatever is stored was delivered to somebody before.
    delivered_before: u64,
    /// When this was looked up.
    pub(crate) surveyed: Instant,
    marks: Mutex<Marks>,
    stored: tokio::sync::Mutex<Stored>,
}

/// What the key shall say.
#[derive(Debug, Default)]
struct Marks {
    /// Tried by others, who may have died of it.
    others: BTreeMap<u64, String>,
    /// Tried by this worker at this moment.
    mine: BTreeSet<u64>,
    deaths: BTreeMap<u64, u32>,
    /// Counts the changes.
    version: u64,
}

/// What the key says.
#[derive(Debug)]
struct Stored {
    revision: u64,
    version: u64,
    /// A write has failed: somebody else may have written.
    doubted: bool,
}

impl Suspects {
    /// Looks up what was delivered before. To be called after this worker was pinned, and before it resets the consumer.
    pub(crate) async fn survey(bus: Bus, partition: Partition, worker: String) -> Result<Self, ApiError> {
        let consumer = bus.partition_consumer(partition, TIMEOUT).await?;
        let (trials, revision) = read(&bus, partition).await?;
        // Not the consumer's floor, which may have passed what is not done (adr/0019).
        let first = bus
            .leader_next(CHATS, &partition_subjects(partition), 1, TIMEOUT)
            .await?;
        let suspects = Self {
            bus,
            partition,
            worker,
            delivered_before: consumer.delivered,
            surveyed: Instant::now(),
            marks: Mutex::default(),
            stored: tokio::sync::Mutex::new(Stored {
                revision,
                version: 0,
                doubted: false,
            }),
        };
        suspects.take_over(trials, first.map_or(u64::MAX, |first| first.sequence));
        Ok(suspects)
    }

    /// Takes what the key says for what others have left. What is below the first that is stored is done.
    fn take_over(&self, trials: PartitionTrials, first: u64) {
        let mut marks = self.marks.lock();
        marks.others = trials.trying;
        marks
            .others
            .retain(|sequence, worker| *sequence >= first && *worker != self.worker);
        marks.deaths = trials.deaths;
        marks.deaths.retain(|sequence, _| *sequence >= first);
        while marks.others.len() > MARKS_MAX {
            marks.others.pop_first();
        }
        while marks.deaths.len() > MARKS_MAX {
            marks.deaths.pop_first();
        }
    }

    /// Whether an event must be tried on its own.
    pub(crate) fn contains(&self, sequence: u64) -> bool {
        let marks = self.marks.lock();
        sequence <= self.delivered_before
            || marks.others.contains_key(&sequence)
            || marks.deaths.contains_key(&sequence)
    }

    /// Which worker tried it and has not said what came of it.
    pub(crate) fn left_by(&self, sequence: u64) -> Option<String> {
        self.marks.lock().others.get(&sequence).cloned()
    }

    /// How many workers in a row have died while they tried it.
    pub(crate) fn deaths(&self, sequence: u64) -> u32 {
        self.marks.lock().deaths.get(&sequence).copied().unwrap_or(0)
    }

    /// It is known whether the worker that tried it has died meanwhile.
    pub(crate) fn settle(&self, sequence: u64, died: bool) {
        self.change(|marks| {
            if marks.others.remove(&sequence).is_some() && died {
                *marks.deaths.entry(sequence).or_default() += 1;
            }
        });
    }

    /// It is about to be tried. To be saved before.
    pub(crate) fn mark(&self, sequence: u64) {
        self.change(|marks| {
            marks.mine.insert(sequence);
        });
    }

    /// It is not being tried any more, and nothing has come of it.
    pub(crate) fn unmark(&self, sequence: u64) {
        self.change(|marks| {
            marks.mine.remove(&sequence);
        });
    }

    /// It was tried, and this worker lives.
    pub(crate) fn acquit(&self, sequence: u64) {
        self.change(|marks| {
            marks.mine.remove(&sequence);
            marks.deaths.remove(&sequence);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Marks)) {
        let mut marks = self.marks.lock();
        change(&mut marks);
        marks.version += 1;
    }

    /// Writes down what has changed. Changes that come together share one request.
    pub(crate) async fn save(&self) -> Result<(), PublishError> {
        let wanted = self.marks.lock().version;
        let mut stored = self.stored.lock().await;
        if stored.version >= wanted && !stored.doubted {
            return Ok(());
        }
        if stored.doubted {
            let (trials, revision) = read(&self.bus, self.partition)
                .await
                .map_err(PublishError::Unknown)?;
            self.take_over(trials, 0);
            (stored.revision, stored.doubted) = (revision, false);
        }
        let (value, version) = {
            let marks = self.marks.lock();
            let mine = marks.mine.iter().map(|sequence| (*sequence, self.worker.clone()));
            let trials = PartitionTrials {
                trying: marks.others.clone().into_iter().chain(mine).collect(),
                deaths: marks.deaths.clone(),
            };
            (trials.encode(), marks.version)
        };
        let mut headers = HeaderMap::new();
        // Whoever was pinned before and does not know that it is over must not undo this.
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, stored.revision.to_string());
        let subject = PartitionTrials::subject(self.partition);
        match self.bus.publish(subject, headers, value, TIMEOUT).await {
            Ok(accepted) => {
                (stored.revision, stored.version) = (accepted.sequence, version);
                Ok(())
            }
            Err(error) => {
                stored.doubted = true;
                Err(error)
            }
        }
    }
}

/// What the key of a partition says, and its revision.
async fn read(bus: &Bus, partition: Partition) -> Result<(PartitionTrials, u64), ApiError> {
    let subject = PartitionTrials::subject(partition);
    let stream = format!("KV_{TRIALS}");
    let found = bus.last_by_subject_now(&stream, &subject, TIMEOUT).await?;
    Ok(found.map_or_else(Default::default, |found| {
        let trials = PartitionTrials::decode(&found.payload).unwrap_or_default();
        (trials, found.sequence)
    }))
}
