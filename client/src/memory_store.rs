//! A memory that is gone with the process.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use tidings_protocol::{ChatId, ClientFrame, Timestamp};

use crate::store::{Change, KNOWN_FOR, Known, Owner, Queued, Store, StoreError};

/// 48 bytes of ids and their places in two collections: about 60 MB at the most.
const MESSAGES_MAX: usize = 400_000;

/// Remembers until the process ends; at most the newest 400,000 messages.
#[derive(Debug, Default)]
pub struct MemoryStore {
    messages: HashSet<Known>,
    by_time: VecDeque<(Timestamp, Known)>,
    versions: HashMap<ChatId, u64>,
    queued: BTreeMap<u64, ClientFrame>,
}

impl MemoryStore {
    fn know(&mut self, known: Known, now: Timestamp) {
        match known {
            Known::Message { .. } => {
                if self.messages.insert(known) {
                    self.by_time.push_back((now, known));
                }
            }
            Known::Update { chat_id, version } => {
                let newest = self.versions.entry(chat_id).or_default();
                *newest = version.max(*newest);
            }
        }
    }

    fn forget(&mut self, now: Timestamp) {
        let horizon = now.0 - KNOWN_FOR.as_millis() as i64;
        while let Some((at, known)) = self.by_time.front() {
            if at.0 >= horizon && self.by_time.len() <= MESSAGES_MAX {
                break;
            }
            self.messages.remove(known);
            self.by_time.pop_front();
        }
    }
}

impl Store for MemoryStore {
    fn claim(&mut self, _owner: &Owner) -> Result<(), StoreError> {
        // Made for one client and gone with it.
        Ok(())
    }

    fn knows(&self, known: &Known) -> Result<bool, StoreError> {
        Ok(match known {
            Known::Message { .. } => self.messages.contains(known),
            Known::Update { chat_id, version } => {
                self.versions.get(chat_id).is_some_and(|newest| version <= newest)
            }
        })
    }

    fn queued(&self) -> Result<Vec<Queued>, StoreError> {
        let queued = |(position, frame): (&u64, &ClientFrame)| Queued {
            position: *position,
            frame: frame.clone(),
        };
        Ok(self.queued.iter().map(queued).collect())
    }

    fn commit(&mut self, changes: &[Change], now: Timestamp) -> Result<(), StoreError> {
        for change in changes {
            match change {
                Change::Know(known) => self.know(*known, now),
                Change::Queue(Queued { position, frame }) => {
                    self.queued.insert(*position, frame.clone());
                }
                Change::Settle(position) => {
                    self.queued.remove(position);
                }
            }
        }
        self.forget(now);
        Ok(())
    }
}
