//! Entries as an inbox holds them, some of which only say where their event is.

use std::sync::Arc;

use tidings_nats::{ApiError, InboxEntry, Lost, Reference, WireError, is_mark};
use tidings_service::TraceContext;

use crate::bodies::Bodies;
use crate::delivery::{Arrived, Body, Way};
use crate::inbox_session::Stored;

/// What a reading found, before its references are followed.
#[derive(Debug)]
pub(super) struct Unresolved {
    pub(super) entries: Vec<UnresolvedEntry>,
    /// The last sequence that was seen, readable or not; 0 if none.
    pub(super) through: u64,
    pub(super) complete: bool,
}

/// One of them.
#[derive(Debug)]
pub(super) struct UnresolvedEntry {
    sequence: u64,
    /// Of the whole entry.
    bytes: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Here(Body),
    Elsewhere(Reference, Option<TraceContext>),
}

impl UnresolvedEntry {
    pub(super) fn decode(
        sequence: u64,
        subject: &str,
        payload: &[u8],
        trace: Option<TraceContext>,
    ) -> Result<Self, WireError> {
        let mut bytes = payload.len();
        let content = if is_mark(subject) {
            Content::Here(Body::Lost(Arc::new(Lost::decode(payload)?)))
        } else {
            match InboxEntry::decode(payload)? {
                InboxEntry::Whole(entry) => {
                    Content::Here(Body::Entry(Arc::new(Arrived::new(entry, trace)), Way::Scan))
                }
                InboxEntry::Reference(reference) => {
                    bytes = reference.to.bytes as usize;
                    Content::Elsewhere(reference, trace)
                }
            }
        };
        Ok(Self {
            sequence,
            bytes,
            content,
        })
    }
}

impl Unresolved {
    /// Leaves out what is behind those that have so many bytes together, whole: one reads by the size of what is stored,
    /// and a reference is small. The first one always stays. Says whether something was left out.
    pub(super) fn cut(&mut self, bytes_max: usize) -> bool {
        let is_here = |entry: &UnresolvedEntry| matches!(entry.content, Content::Here(_));
        if self.entries.iter().all(is_here) {
            return false;
        }
        let mut bytes = 0;
        let fit = self.entries.iter().take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.bytes;
            first || bytes <= bytes_max
        });
        let fit = fit.count();
        if fit == self.entries.len() {
            return false;
        }
        self.entries.truncate(fit);
        self.through = self.entries.last().map_or(0, |entry| entry.sequence);
        self.complete = false;
        true
    }

    /// Follows the references. One to a body that is gone is left out, as an entry that cannot be read is.
    pub(super) async fn resolve(self, bodies: &Bodies, stream: &str) -> Result<Vec<Stored<Body>>, ApiError> {
        let references = self.entries.iter().filter_map(|entry| match &entry.content {
            Content::Elsewhere(reference, _) => Some(reference.clone()),
            Content::Here(_) => None,
        });
        let mut found = bodies.entries(references.collect()).await?.into_iter();
        let stored = self.entries.into_iter().filter_map(|entry| {
            let body = match entry.content {
                Content::Here(body) => body,
                Content::Elsewhere(reference, trace) => {
                    let Some(whole) = found.next().flatten() else {
                        metrics::counter!("tidings_missing_bodies_total").increment(1);
                        tracing::warn!(
                            %stream,
                            stream.sequence = entry.sequence,
                            body.sequence = reference.to.body,
                            "the large body of an entry is gone: it was confirmed meanwhile, or is lost"
                        );
                        return None;
                    };
                    Body::Entry(Arc::new(Arrived::new(whole, trace)), Way::Scan)
                }
            };
            Some(Stored {
                sequence: entry.sequence,
                bytes: entry.bytes,
                event: body.event(),
                body,
            })
        });
        Ok(stored.collect())
    }
}

#[cfg(test)]
mod tests {
    use tidings_nats::{Entry, Event, Message};
    use tidings_protocol::{ChatId, ClientId, MessageId, Timestamp, UserId};
    use uuid::Uuid;

    use super::*;

    fn whole() -> Entry {
        let message = Message {
            chat_id: ChatId(Uuid::from_u128(1)),
            message_id: MessageId(Uuid::from_u128(2)),
            user_id: UserId::new("alice").expect("printable"),
            client_id: ClientId(Uuid::from_u128(3)),
            sent_at: Timestamp(1),
            message: "x".repeat(40),
            attachments: vec![],
        };
        Entry {
            seq: 9,
            event: Event::Message(message),
        }
    }

    /// Each one is its size, and whether it is a reference.
    fn read(entries: &[(usize, bool)]) -> Unresolved {
        let whole = whole();
        let entries = entries.iter().zip(1..).map(|(&(bytes, reference), sequence)| {
            let payload = if reference {
                Reference::new(whole.seq, &whole.event, 7, bytes).encode()
            } else {
                whole.encode()
            };
            let mut entry = UnresolvedEntry::decode(sequence, "inbox.07.alice.first", &payload, None);
            if let Ok(entry) = &mut entry {
                assert!(!reference || entry.bytes == bytes);
                entry.bytes = bytes;
            }
            entry.expect("it is an entry")
        });
        let entries: Vec<_> = entries.collect();
        Unresolved {
            through: entries.len() as u64 + 1,
            entries,
            complete: true,
        }
    }

    #[test]
    fn a_reading_ends_where_the_whole_entries_have_its_bytes() {
        let check = |entries: &[(usize, bool)], bytes_max, kept: usize| {
            let mut read = read(entries);
            let cut = read.cut(bytes_max);
            assert_eq!(read.entries.len(), kept, "{entries:?} in {bytes_max}");
            assert_eq!(cut, kept < entries.len());
            let through = if cut { kept } else { entries.len() + 1 };
            assert_eq!((read.through, read.complete), (through as u64, !cut));
        };
        check(&[], 10, 0);
        check(&[(5, true), (5, false)], 10, 2);
        check(&[(5, true), (6, false)], 10, 1);
        check(&[(50, true), (1, false)], 10, 1);
        check(&[(1, false), (50, true), (1, false)], 10, 1);
        // What is whole was bounded by who read it.
        check(&[(5, false), (6, false)], 10, 2);
    }
}
