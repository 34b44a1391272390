//! The inbox of one client: what is stored, what a replica shows, and the reading under way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use crate::inbox_session::Reading;

use super::Entry;

/// A reading, stage by stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::inbox_session) enum Stage {
    Asked(Reading),
    /// A replica has answered; `last` is the last sequence that it showed.
    Answered {
        entries: Vec<(u64, Entry)>,
        last: u64,
    },
    Done(Read),
}

/// What a reading has found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::inbox_session) struct Read {
    pub(super) entries: Vec<(u64, Entry)>,
    pub(super) through: u64,
    pub(super) complete: bool,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::inbox_session) struct Inbox {
    pub(in crate::inbox_session) stored: BTreeMap<u64, Entry>,
    /// The last sequence of the stream.
    pub(in crate::inbox_session) last: u64,
    /// Deleted; a replica may still show them.
    pub(super) gone: BTreeMap<u64, Entry>,
    /// Confirmed and not deleted yet.
    pub(super) deleting: BTreeSet<u64>,
    pub(in crate::inbox_session) reading: Option<Stage>,
}

impl Inbox {
    pub(super) fn store(&mut self, entry: Entry) -> u64 {
        self.last += 1;
        self.stored.insert(self.last, entry);
        self.last
    }

    pub(super) fn remove(&mut self, sequence: u64) {
        if let Some(entry) = self.stored.remove(&sequence) {
            self.gone.insert(sequence, entry);
        }
    }

    /// An entry that is or was stored.
    pub(super) fn any(&self, sequence: u64) -> Entry {
        let entry = self.stored.get(&sequence).or_else(|| self.gone.get(&sequence));
        *entry.expect("what is delivered was stored")
    }

    /// The newest entry that is gone, of those that hold one of these events.
    pub(super) fn newest_gone(&self, events: &BTreeSet<u64>) -> Option<Entry> {
        let mut gone = self.gone.values().rev();
        gone.find(|entry| entry.event.is_some_and(|event| events.contains(&event)))
            .copied()
    }

    pub(super) fn is_calm(&self) -> bool {
        self.reading.is_none() && self.deleting.is_empty()
    }

    /// What is stored and can be read.
    pub(super) fn readable(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = u64> {
        self.stored
            .range(range)
            .filter(|(_, entry)| !entry.unreadable)
            .map(|(sequence, _)| *sequence)
    }

    /// The last sequence that is stored, as a replica knows it that misses so many of the newest.
    pub(super) fn last_stored(&self, behind: usize) -> Option<u64> {
        self.stored.keys().rev().nth(behind).copied()
    }

    pub(super) fn delete(&mut self, place: usize) -> bool {
        let Some(sequence) = self.deleting.iter().nth(place).copied() else {
            return false;
        };
        self.deleting.remove(&sequence);
        self.remove(sequence);
        true
    }

    pub(super) fn ask(&mut self, reading: Reading) {
        assert!(reading.count > 0 && reading.bytes > 0, "an empty reading");
        let before = self.reading.replace(Stage::Asked(reading));
        assert_eq!(before, None, "two readings at once");
    }

    /// A replica answers; whoever is behind may still show what was deleted.
    pub(super) fn answer(&mut self, behind: usize, most: usize) -> bool {
        let Some(Stage::Asked(reading)) = self.reading else {
            return false;
        };
        let mut shown = self.stored.split_off(&reading.from);
        let stored = shown.clone();
        self.stored.extend(stored);
        let mut end = u64::MAX;
        for _ in 0..behind {
            end = shown.pop_last().map_or(end, |(sequence, _)| sequence);
        }
        if behind > 0 {
            let gone = self.gone.range(reading.from..end.max(reading.from));
            shown.extend(gone.map(|(sequence, entry)| (*sequence, *entry)));
        }
        let mut bytes = 0;
        let entries: Vec<(u64, Entry)> = shown
            .iter()
            .take(reading.count.min(most))
            .take_while(|(_, entry)| {
                // One always comes.
                let fits = bytes == 0 || bytes + entry.bytes <= reading.bytes;
                bytes += entry.bytes;
                fits
            })
            .map(|(sequence, entry)| (*sequence, *entry))
            .collect();
        let last = entries.last().map_or(reading.from - 1, |(sequence, _)| *sequence);
        self.reading = Some(if entries.len() < shown.len() && !entries.is_empty() {
            Stage::Done(Read {
                entries,
                through: last,
                complete: false,
            })
        } else {
            Stage::Answered { entries, last }
        });
        true
    }

    /// It is said whether anything follows, as of now, and given.
    pub(super) fn finish(&mut self) -> bool {
        let Some(Stage::Answered { entries, last }) = &mut self.reading else {
            return false;
        };
        let mut entries = std::mem::take(entries);
        let last = *last;
        let next = self.stored.range(last + 1..).next();
        let next = next.map(|(sequence, entry)| (*sequence, *entry));
        entries.extend(next);
        self.reading = Some(Stage::Done(Read {
            through: entries.last().map_or(last, |(sequence, _)| *sequence),
            complete: next.is_none(),
            entries,
        }));
        true
    }

    pub(super) fn take_reading(&mut self) -> Option<Read> {
        match self.reading.take() {
            Some(Stage::Done(read)) => Some(read),
            other => {
                self.reading = other;
                None
            }
        }
    }
}
