//! Entries as an inbox holds them, some of which only say where their event is.

use std::sync::Arc;

use tidings_nats::{ApiError, BodyError, Entry, InboxEntry, Lost, Reference, WireError, is_mark};
use tidings_service::TraceContext;

use super::Read;
use crate::bodies::{Bodies, Followed};
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
    /// As it is stored in the inbox.
    held: usize,
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
            held: payload.len(),
            content,
        })
    }

    const fn is_reference(&self) -> bool {
        matches!(self.content, Content::Elsewhere(..))
    }
}

impl Unresolved {
    /// Leaves out what is behind those that have so many bytes together, whole: one reads by the size of what is stored,
    /// and a reference is small. The first one always stays. Says whether something was left out.
    pub(super) fn cut(&mut self, bytes_max: usize) -> bool {
        if !self.has_references() {
            return false;
        }
        let mut bytes = 0;
        let fit = self.entries.iter().take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.bytes;
            first || bytes <= bytes_max
        });
        let fit = fit.count();
        self.leave_out(fit)
    }

    /// Whether there is something to follow.
    pub(super) fn has_references(&self) -> bool {
        self.entries.iter().any(UnresolvedEntry::is_reference)
    }

    /// All but so many. Says whether there were more.
    fn leave_out(&mut self, fit: usize) -> bool {
        if fit == self.entries.len() {
            return false;
        }
        self.entries.truncate(fit);
        self.through = self.entries.last().map_or(0, |entry| entry.sequence);
        self.complete = false;
        true
    }

    /// The first sequence that is not told yet.
    pub(super) fn from(&self) -> u64 {
        self.entries.first().map_or(u64::MAX, |entry| entry.sequence)
    }

    /// Leaves out what is too much to be kept while bodies are waited for. Says whether something was left out.
    pub(super) fn shorten(&mut self, bytes_max: usize) -> bool {
        let mut bytes = 0;
        let kept = self.entries.iter().take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.held;
            first || bytes <= bytes_max
        });
        self.leave_out(kept.count())
    }

    /// What comes before the first reference, and the rest.
    pub(super) fn split(mut self) -> (Read, Option<Self>) {
        let here = self.entries.iter().position(UnresolvedEntry::is_reference);
        let rest = self.entries.split_off(here.unwrap_or(self.entries.len()));
        self.told(Vec::new(), rest, "")
    }

    /// Follows the references, as far as bodies are known; the rest, which begins with a reference, is to be tried again. One to
    /// a body that is gone is left out, as an entry that cannot be read is.
    pub(super) async fn resolve(mut self, bodies: &Bodies, stream: &str) -> (Read, Option<(Self, ApiError)>) {
        let references = self.entries.iter().filter_map(|entry| match &entry.content {
            Content::Elsewhere(reference, _) => Some(reference.clone()),
            Content::Here(_) => None,
        });
        let Followed { entries, failure } = bodies.follow(references.collect()).await;
        let mut unknown = 0;
        let place = self.entries.iter().position(|entry| {
            unknown += usize::from(entry.is_reference());
            unknown > entries.len()
        });
        let rest = self.entries.split_off(place.unwrap_or(self.entries.len()));
        let (read, rest) = self.told(entries, rest, stream);
        (read, rest.zip(failure))
    }

    /// All but the rest, with what was found of its references.
    fn told(
        self,
        found: Vec<Result<Entry, BodyError>>,
        rest: Vec<UnresolvedEntry>,
        stream: &str,
    ) -> (Read, Option<Self>) {
        let mut found = found.into_iter();
        let entries = self.entries.into_iter().filter_map(|entry| {
            let body = match entry.content {
                Content::Here(body) => body,
                Content::Elsewhere(reference, trace) => {
                    let found = found.next().expect("each was followed");
                    let whole = found
                        .map_err(|error| tell_missing(stream, entry.sequence, &reference, &error))
                        .ok()?;
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
        let entries = entries.collect();
        let Some(first) = rest.first() else {
            let (through, complete) = (self.through, self.complete);
            let read = Read {
                entries,
                through,
                complete,
            };
            return (read, None);
        };
        let read = Read {
            entries,
            // There is nothing else before it.
            through: first.sequence - 1,
            complete: false,
        };
        let rest = Self {
            entries: rest,
            through: self.through,
            complete: self.complete,
        };
        (read, Some(rest))
    }
}

/// An entry that is left out, and kept.
fn tell_missing(stream: &str, sequence: u64, reference: &Reference, error: &BodyError) {
    let body = reference.to.body;
    match error {
        BodyError::Another => {
            metrics::counter!("tidings_missing_bodies_total").increment(1);
            tracing::warn!(
                %stream,
                stream.sequence = sequence,
                body.sequence = body,
                "the large body of an entry is gone: it was confirmed meanwhile, or is lost"
            );
        }
        BodyError::Unreadable(error) => {
            metrics::counter!("tidings_unreadable_entries_total").increment(1);
            tracing::error!(
                %stream,
                stream.sequence = sequence,
                body.sequence = body,
                %error,
                "an entry cannot be read"
            );
        }
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

    fn sequences(read: &Read) -> Vec<u64> {
        read.entries.iter().map(|stored| stored.sequence).collect()
    }

    #[test]
    fn what_comes_before_a_reference_is_told_and_the_rest_is_kept() {
        let (told, rest) = read(&[(1, false), (1, false), (50, true), (1, false)]).split();
        assert_eq!(
            (sequences(&told), told.through, told.complete),
            (vec![1, 2], 2, false)
        );
        let rest = rest.expect("a reference is there");
        let kept: Vec<u64> = rest.entries.iter().map(|entry| entry.sequence).collect();
        assert_eq!((kept, rest.from()), (vec![3, 4], 3));
        assert_eq!((rest.through, rest.complete), (5, true));
        let (told, rest) = rest.split();
        assert_eq!(
            (sequences(&told), told.through, told.complete),
            (vec![], 2, false)
        );
        assert!(rest.is_some_and(|rest| rest.from() == 3));
        let (told, rest) = read(&[(1, false), (1, false)]).split();
        assert_eq!(
            (sequences(&told), told.through, told.complete),
            (vec![1, 2], 3, true)
        );
        assert!(rest.is_none());
    }

    #[test]
    fn what_is_gone_or_cannot_be_read_is_left_out() {
        let entries = [(50, true), (1, false), (50, true), (50, true)];
        let newer = BodyError::Unreadable(WireError::Newer(9));
        let found = vec![Err(BodyError::Another), Ok(whole()), Err(newer)];
        let (told, rest) = read(&entries).told(found, Vec::new(), "INBOX_07");
        assert_eq!(
            (sequences(&told), told.through, told.complete),
            (vec![2, 3], 5, true)
        );
        assert!(rest.is_none());
    }

    #[test]
    fn little_is_kept_while_a_body_is_waited_for() {
        let check = |held: &[usize], kept: usize| {
            let mut rest = read(&vec![(50, true); held.len()]);
            for (entry, held) in rest.entries.iter_mut().zip(held) {
                entry.held = *held;
            }
            assert_eq!(rest.shorten(10), kept < held.len(), "{held:?}");
            assert_eq!(rest.entries.len(), kept, "{held:?}");
            let through = if kept < held.len() { kept } else { held.len() + 1 };
            assert_eq!(
                (rest.through, rest.complete),
                (through as u64, kept == held.len())
            );
        };
        check(&[5, 5], 2);
        check(&[5, 6, 1], 1);
        check(&[50, 1], 1);
    }
}
