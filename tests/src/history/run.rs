//! All that a judgement needs.

use std::fs::{File, read, write};
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidings_protocol::{ChatId, ClientId, UserId};

use super::happening::Event;
use super::json_lines;
use super::record::Record;

/// The file of the records.
pub(super) const HISTORY: &str = "history.jsonl";
/// The file of what happened to the system.
pub(super) const EVENTS: &str = "events.jsonl";
/// The file of what was stored at the end.
const STORED: &str = "stored.json";

/// A run, to be judged.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What clients did and saw; of each connection in the order in which it happened.
    pub records: Vec<Record>,
    /// What was done to the system, and what became of its processes, in the order of time.
    pub events: Vec<Event>,
    /// What JetStream still held when everything was at rest, of the inboxes of all users of the run. Absent if nobody
    /// asked: then nothing is said about it.
    pub stored: Option<Vec<StoredEntry>>,
}

/// An entry that an inbox still held at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredEntry {
    /// Whose inbox.
    pub user_id: UserId,
    /// Of which client; absent: of whoever inherits `first`.
    pub client_id: Option<ClientId>,
    /// Its sequence in the INBOX stream.
    pub sequence: u64,
    /// The event's chat.
    pub chat_id: ChatId,
    /// The event's `seq`.
    pub seq: u64,
}

/// A run cannot be read from a folder.
#[derive(Debug, thiserror::Error)]
pub enum ReadRunError {
    /// A file cannot be read.
    #[error("{file}: {error}")]
    File {
        /// Which.
        file: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A line is not of a run.
    #[error("{file}, line {line}: {reason}")]
    Line {
        /// In which file.
        file: &'static str,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Run {
    /// Whether the history of a run lies in this folder, finished or not.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(HISTORY).exists()
    }

    /// Reads what a [`super::Recorder`] wrote into a folder, and what [`Self::write_stored`] did.
    pub fn read(dir: &Path) -> Result<Self, ReadRunError> {
        let mut reader = json_lines::Reader::default();
        let records = lines(dir, HISTORY, |line| reader.record(line))?;
        let events = lines(dir, EVENTS, |line| {
            serde_json::from_str(line).map_err(|error| error.to_string())
        })?;
        let stored = match read(dir.join(STORED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(ReadRunError::File { file: STORED, error });
            }
            Ok(bytes) => Some(
                serde_json::from_slice(&bytes).map_err(|error| ReadRunError::Line {
                    file: STORED,
                    line: error.line(),
                    reason: error.to_string(),
                })?,
            ),
        };
        Ok(Self {
            records,
            events,
            stored,
        })
    }

    /// Writes what was stored at the end beside the histories.
    pub fn write_stored(dir: &Path, stored: &[StoredEntry]) -> io::Result<()> {
        write(dir.join(STORED), serde_json::to_vec_pretty(stored)?)
    }
}

fn lines<T>(
    dir: &Path,
    file: &'static str,
    mut parse: impl FnMut(&str) -> Result<T, String>,
) -> Result<Vec<T>, ReadRunError> {
    let failed = |error| ReadRunError::File { file, error };
    let reader = BufReader::new(File::open(dir.join(file)).map_err(failed)?);
    let mut parsed = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let line = line.map_err(failed)?;
        parsed.push(parse(&line).map_err(|reason| ReadRunError::Line {
            file,
            line: index + 1,
            reason,
        })?);
    }
    Ok(parsed)
}
