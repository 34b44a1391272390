//! Marks of what is missing from an inbox, on its second subject `….lost`: what they say, and how they are written,
//! merged and read. There is at most one a reason, apart from what a crash may leave.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_protocol::{ChatId, Timestamp, TrimReason};
use uuid::Uuid;

use crate::api::{ApiError, Bus};
use crate::direct_get::StoredMessage;
use crate::headers::KIND;
use crate::publish::PublishError;
use crate::shard::Shard;
use crate::subject::{inbox_stream, lost_subject};
use crate::wire::{self, WireError};

/// Chats that a mark names: 16 KB of the inbox, 40 KB as JSON. A mark that would have to name more names none, which
/// says that it may be any.
pub const LOST_CHATS_MAX: usize = 1_000;
/// Marks of one inbox that are looked at: one a reason, and what crashes between writing and deleting have left.
const MARKS_MAX: u32 = 16;
/// Others wrote a mark of the same inbox in between, so many times; each try makes one of them succeed.
const TRIES: u32 = 16;
/// What a mark has in the header that says what a message is.
pub const LOST_KIND: &str = "lost";

/// What is missing from an inbox, on its `.lost` subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Why.
    pub reason: TrimReason,
    /// About how many, where known.
    pub missed: Option<u64>,
    /// From about when.
    pub since: Timestamp,
    /// Until about when.
    pub until: Timestamp,
    /// In which chats; none where that is not known, or they are too many.
    pub chats: Vec<ChatId>,
}

impl Lost {
    /// For the `.lost` subject.
    pub fn encode(&self) -> Bytes {
        wire::encode(self)
    }

    /// From the `.lost` subject.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        wire::decode(payload)
    }

    /// Takes in what another mark of the same inbox and reason says. Chats stay sorted, named once, and at most
    /// [`LOST_CHATS_MAX`].
    pub fn merge(&mut self, other: &Self) {
        self.missed = match (self.missed, other.missed) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            _ => None,
        };
        self.since = self.since.min(other.since);
        self.until = self.until.max(other.until);
        if self.chats.is_empty() || other.chats.is_empty() {
            self.chats.clear();
        } else {
            self.chats.extend_from_slice(&other.chats);
            self.bound_chats();
        }
    }

    fn bound_chats(&mut self) {
        self.chats.sort_unstable();
        self.chats.dedup();
        if self.chats.len() > LOST_CHATS_MAX {
            self.chats.clear();
        }
    }
}

impl Bus {
    /// Adds to the marks of an inbox: the mark of the same reason is replaced by one that says both. Returns the new
    /// mark's sequence; when it fails it may have been written all the same, and writing it again counts it twice.
    ///
    /// The new mark is written before the old one is deleted, and only if nobody wrote, and no client confirmed, the
    /// mark that it was merged with.
    pub async fn mark_lost(
        &self,
        shard: Shard,
        inbox_subject: &str,
        lost: &Lost,
        timeout: Duration,
    ) -> Result<u64, PublishError> {
        let stream = inbox_stream(shard);
        let subject = lost_subject(inbox_subject);
        let mut result = Err(PublishError::Unknown(ApiError::Timeout));
        for attempt in 0..TRIES {
            let marks = if attempt == 0 {
                // It may be a replica that is behind; the writing tells, and then the leader is asked.
                self.next_by_subject(&stream, &subject, 1, MARKS_MAX, 0, timeout)
                    .await
                    .map(|(marks, _)| marks)
            } else {
                self.leader_all(&stream, &subject, 1, MARKS_MAX, timeout).await
            }
            .map_err(PublishError::Unknown)?;
            let last = marks.last().map_or(0, |mark| mark.sequence);
            let (merged, replaced) = merged(lost, &marks);
            result = self
                .publish(subject.clone(), headers(last), merged.encode(), timeout)
                .await
                .map(|accepted| accepted.sequence);
            match &result {
                Ok(_) => {
                    for sequence in replaced {
                        // What stays is told once more than it must be.
                        let _ = self.delete_message(&stream, sequence, timeout).await;
                    }
                    break;
                }
                Err(PublishError::Unknown(error)) if error.is_wrong_last_sequence() => {}
                Err(_) => break,
            }
        }
        result
    }

    /// The messages of a subject from a sequence on, at most `count`, one after the other from the stream's leader.
    pub async fn leader_all(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        count: u32,
        timeout: Duration,
    ) -> Result<Vec<StoredMessage>, ApiError> {
        let mut messages: Vec<StoredMessage> = Vec::new();
        while messages.len() < count as usize {
            let next = messages.last().map_or(from, |last| last.sequence + 1);
            match self.leader_next(stream, subject, next, timeout).await? {
                Some(message) => messages.push(message),
                None => break,
            }
        }
        Ok(messages)
    }
}

/// The mark with all of its reason that are there, and the sequences of those.
fn merged(lost: &Lost, marks: &[StoredMessage]) -> (Lost, Vec<u64>) {
    let mut merged = lost.clone();
    merged.bound_chats();
    let mut replaced = Vec::new();
    for mark in marks {
        // One that cannot be read was written by a newer build, and stays.
        if let Ok(other) = Lost::decode(&mark.payload)
            && other.reason == lost.reason
        {
            merged.merge(&other);
            replaced.push(mark.sequence);
        }
    }
    (merged, replaced)
}

fn headers(last: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
        last.to_string(),
    );
    headers.insert(async_nats::header::NATS_MESSAGE_ID, Uuid::new_v4().to_string());
    headers.insert(KIND, LOST_KIND);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(id: u128) -> ChatId {
        ChatId(Uuid::from_u128(id))
    }

    fn lost(missed: Option<u64>, since: i64, until: i64, chats: &[u128]) -> Lost {
        Lost {
            reason: TrimReason::Full,
            missed,
            since: Timestamp(since),
            until: Timestamp(until),
            chats: chats.iter().copied().map(chat).collect(),
        }
    }

    fn stored(sequence: u64, lost: &Lost) -> StoredMessage {
        StoredMessage {
            subject: "inbox.07.alice.first.lost".to_owned(),
            sequence,
            stored_at: Timestamp(0),
            payload: lost.encode(),
            trace: None,
        }
    }

    #[test]
    fn two_marks_are_one_that_says_both() {
        let mut mark = lost(Some(2), 10, 20, &[3, 1]);
        mark.merge(&lost(Some(3), 5, 15, &[2, 3]));
        assert_eq!(mark, lost(Some(5), 5, 20, &[1, 2, 3]));
        mark.merge(&lost(None, 7, 30, &[]));
        assert_eq!(mark, lost(None, 5, 30, &[]));
        mark.merge(&lost(Some(1), 7, 8, &[4]));
        assert_eq!(mark, lost(None, 5, 30, &[]), "any chat stays any chat");
    }

    #[test]
    fn more_chats_than_may_be_named_are_any() {
        let many: Vec<u128> = (0..=LOST_CHATS_MAX as u128).collect();
        let mut mark = lost(Some(1), 0, 0, &many[1..]);
        mark.merge(&lost(Some(1), 0, 0, &many[1..]));
        assert_eq!(mark.chats.len(), LOST_CHATS_MAX);
        mark.merge(&lost(Some(1), 0, 0, &many[..1]));
        assert!(mark.chats.is_empty());
    }

    #[test]
    fn a_mark_takes_in_those_of_its_reason() {
        let expired = Lost {
            reason: TrimReason::Expired,
            ..lost(Some(7), 0, 0, &[9])
        };
        let marks = [
            stored(3, &lost(Some(1), 1, 1, &[1])),
            stored(4, &expired),
            stored(8, &lost(Some(1), 2, 2, &[2])),
        ];
        let (mark, replaced) = merged(&lost(Some(1), 3, 3, &[1]), &marks);
        assert_eq!(mark, lost(Some(3), 1, 3, &[1, 2]));
        assert_eq!(replaced, [3, 8]);
    }
}
