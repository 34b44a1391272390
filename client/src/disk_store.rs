//! A memory in one file, for applications that start again.

use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tidings_protocol::{ChatId, Codec, EncodedFrame, Timestamp};

use crate::store::{Change, KNOWN_FOR, Known, Owner, Queued, Store, StoreError};

/// Grows when the tables change.
const FORMAT: u64 = 1;
/// Messages forgotten in one commit, so that no commit takes long.
const FORGET_MAX: usize = 1_000;

/// (chat, sender client, message) -> milliseconds since 1970, when it was taken.
const MESSAGES: TableDefinition<&[u8; 48], i64> = TableDefinition::new("messages");
/// The same by time, to forget the oldest.
const BY_TIME: TableDefinition<(i64, &[u8; 48]), ()> = TableDefinition::new("messages_by_time");
/// chat -> the newest version taken.
const VERSIONS: TableDefinition<&[u8; 16], u64> = TableDefinition::new("versions");
/// position -> the request, as its postcard frame.
const QUEUED: TableDefinition<u64, &[u8]> = TableDefinition::new("queued");
/// `format` and `owner`.
const META: TableDefinition<&str, &str> = TableDefinition::new("meta");

/// Remembers in a redb file, which one process at a time can open. A commit has reached the disk when it
/// returns.
#[derive(Debug)]
pub struct DiskStore {
    database: Database,
}

impl DiskStore {
    /// Opens the file, or makes it. Its folder must exist.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let failed = |reason: String| StoreError(format!("{}: {reason}", path.display()));
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => failed("another program has it open".to_owned()),
            error => failed(error.to_string()),
        })?;
        let store = Self { database };
        store.prepare().map_err(|StoreError(reason)| failed(reason))?;
        Ok(store)
    }

    fn prepare(&self) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            write.open_table(MESSAGES)?;
            write.open_table(BY_TIME)?;
            write.open_table(VERSIONS)?;
            write.open_table(QUEUED)?;
            let mut meta = write.open_table(META)?;
            let found = meta.get("format")?.map(|format| format.value().to_owned());
            match found {
                None => {
                    meta.insert("format", FORMAT.to_string().as_str())?;
                }
                Some(found) if found == FORMAT.to_string() => {}
                Some(found) => {
                    let reason = format!("format {found}, where this program knows {FORMAT}");
                    return Err(StoreError(reason));
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    fn apply(&mut self, changes: &[Change], now: Timestamp) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut messages = write.open_table(MESSAGES)?;
            let mut by_time = write.open_table(BY_TIME)?;
            let mut versions = write.open_table(VERSIONS)?;
            let mut queued = write.open_table(QUEUED)?;
            for change in changes {
                match change {
                    Change::Know(known @ Known::Message { .. }) => {
                        let key = message_key(known);
                        if messages.get(&key)?.is_none() {
                            messages.insert(&key, now.0)?;
                            by_time.insert((now.0, &key), ())?;
                        }
                    }
                    Change::Know(Known::Update { chat_id, version }) => {
                        let newest = versions
                            .get(chat_key(chat_id))?
                            .map_or(0, |newest| newest.value());
                        versions.insert(chat_key(chat_id), newest.max(*version))?;
                    }
                    Change::Queue(Queued { position, frame }) => {
                        let EncodedFrame::Binary(bytes) = Codec::Postcard.encode_client(frame) else {
                            unreachable!("postcard frames are binary")
                        };
                        queued.insert(position, bytes.as_slice())?;
                    }
                    Change::Settle(position) => {
                        queued.remove(position)?;
                    }
                }
            }
            let horizon = now.0 - KNOWN_FOR.as_millis() as i64;
            for _ in 0..FORGET_MAX {
                let oldest = by_time.first()?.map(|(key, _)| {
                    let (at, key) = key.value();
                    (at, *key)
                });
                match oldest {
                    Some((at, key)) if at < horizon => {
                        by_time.remove((at, &key))?;
                        messages.remove(&key)?;
                    }
                    _ => break,
                }
            }
        }
        write.commit()?;
        Ok(())
    }
}

impl Store for DiskStore {
    fn claim(&mut self, owner: &Owner) -> Result<(), StoreError> {
        let claimant = format!("{} {}", owner.client_id, owner.user_id);
        let write = self.database.begin_write()?;
        {
            let mut meta = write.open_table(META)?;
            let found = meta.get("owner")?.map(|owner| owner.value().to_owned());
            match found {
                None => {
                    meta.insert("owner", claimant.as_str())?;
                }
                Some(found) if found == claimant => return Ok(()),
                Some(found) => {
                    let reason = format!("the memory on disk is of client {found}, not of {claimant}");
                    return Err(StoreError(reason));
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    fn knows(&self, known: &Known) -> Result<bool, StoreError> {
        let read = self.database.begin_read()?;
        Ok(match known {
            Known::Message { .. } => read.open_table(MESSAGES)?.get(&message_key(known))?.is_some(),
            Known::Update { chat_id, version } => read
                .open_table(VERSIONS)?
                .get(chat_key(chat_id))?
                .is_some_and(|newest| *version <= newest.value()),
        })
    }

    fn queued(&self) -> Result<Vec<Queued>, StoreError> {
        let read = self.database.begin_read()?;
        let mut queued = Vec::new();
        for row in read.open_table(QUEUED)?.iter()? {
            let (position, bytes) = row?;
            let position = position.value();
            let frame = Codec::Postcard
                .decode_client(bytes.value())
                .map_err(|error| StoreError(format!("the request queued at {position}: {error}")))?;
            queued.push(Queued { position, frame });
        }
        Ok(queued)
    }

    fn commit(&mut self, changes: &[Change], now: Timestamp) -> Result<(), StoreError> {
        self.apply(changes, now)
    }
}

fn message_key(known: &Known) -> [u8; 48] {
    let Known::Message {
        chat_id,
        client_id,
        message_id,
    } = known
    else {
        unreachable!("only messages have such a key")
    };
    let mut key = [0; 48];
    for (part, id) in key
        .chunks_exact_mut(16)
        .zip([chat_id.0, client_id.0, message_id.0])
    {
        part.copy_from_slice(id.as_bytes());
    }
    key
}

fn chat_key(chat_id: &ChatId) -> &[u8; 16] {
    chat_id.0.as_bytes()
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })*
    };
}

from_redb!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);
