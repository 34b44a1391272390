//! What was said, on this machine: the server forgets a message once it is confirmed.

use std::path::Path;

use anyhow::Context as _;
use redb::{Database, DatabaseError, ReadableDatabase as _, TableDefinition};
use serde::{Deserialize, Serialize};
use tidings_protocol::{Attachment, ChatId, Timestamp, UserId};

/// (chat, seq) -> [`Said`] in postcard.
const LINES: TableDefinition<(&[u8; 16], u64), &[u8]> = TableDefinition::new("lines");
/// (chat, seq) -> the [`Attachment`]s of that line in JSON, where there are any.
const ATTACHMENTS: TableDefinition<(&[u8; 16], u64), &[u8]> = TableDefinition::new("attachments");

/// The lines of all chats of one device.
pub(crate) struct History {
    database: Database,
}

/// Something said, or something that happened. New fields go to a new table.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// When.
    pub(crate) at: Timestamp,
    /// By whom; none: the text is a sentence about the chat.
    pub(crate) by: Option<UserId>,
    /// What.
    pub(crate) text: String,
    /// With which files. Kept beside the line.
    #[serde(skip)]
    pub(crate) attachments: Vec<Attachment>,
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Said")
            .field("at", &self.at)
            .field("by", &self.by)
            .finish_non_exhaustive()
    }
}

/// A line and its place.
pub(crate) type Placed = (ChatId, u64, Said);

impl History {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => anyhow::anyhow!("another program has it open"),
            error => error.into(),
        });
        let database = database.with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { database })
    }

    /// Adds lines. When this returns they are on the disk.
    pub(crate) fn add(&self, lines: &[Placed]) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(LINES)?;
            for (chat_id, seq, said) in lines {
                let bytes = postcard::to_stdvec(said)?;
                table.insert((chat_id.0.as_bytes(), *seq), bytes.as_slice())?;
            }
            let with_files = lines.iter().filter(|(_, _, said)| !said.attachments.is_empty());
            for (chat_id, seq, said) in with_files {
                let bytes = serde_json::to_vec(&said.attachments)?;
                write
                    .open_table(ATTACHMENTS)?
                    .insert((chat_id.0.as_bytes(), *seq), bytes.as_slice())?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// The last `count` lines of a chat, the oldest first.
    pub(crate) fn last(&self, chat_id: ChatId, count: usize) -> anyhow::Result<Vec<Said>> {
        let read = self.database.begin_read()?;
        let table = match read.open_table(LINES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let attachments = match read.open_table(ATTACHMENTS) {
            Ok(table) => Some(table),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let chat = chat_id.0.as_bytes();
        let mut lines = Vec::new();
        for row in table.range((chat, 0)..=(chat, u64::MAX))?.rev().take(count) {
            let (place, bytes) = row?;
            let mut said: Said = postcard::from_bytes(bytes.value())?;
            if let Some(table) = &attachments
                && let Some(bytes) = table.get(place.value())?
            {
                said.attachments = serde_json::from_slice(bytes.value())?;
            }
            lines.push(said);
        }
        lines.reverse();
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use tidings_protocol::AttachmentId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_last_lines_of_a_chat_are_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.redb");
        let [lunch, dinner] = [1, 2].map(|number| ChatId(Uuid::from_u128(number)));
        let said = |text: &str| Said {
            at: Timestamp(1),
            by: None,
            text: text.to_owned(),
            attachments: Vec::new(),
        };
        let history = History::open(&path).expect("opened");
        assert_eq!(history.last(lunch, 2).expect("read"), []);
        // One's own message may be placed before one that was received earlier.
        let lines = [
            (lunch, 41, "b"),
            (dinner, 5, "x"),
            (lunch, 40, "a"),
            (lunch, 42, "c"),
        ];
        let mut lines = lines.map(|(chat, seq, text)| (chat, seq, said(text)));
        lines[3].2.attachments.push(Attachment {
            attachment_id: AttachmentId(Uuid::from_u128(7)),
            size: 5,
            content_type: "image/png".to_owned(),
            hash: "00".repeat(32),
            name: None,
        });
        let last = lines[3].2.clone();
        history.add(&lines).expect("written");
        assert!(History::open(&path).is_err(), "two at once");
        drop(history);
        let history = History::open(&path).expect("opened again");
        assert_eq!(history.last(lunch, 2).expect("read"), [said("b"), last]);
        assert_eq!(history.last(dinner, 9).expect("read"), [said("x")]);
    }
}
