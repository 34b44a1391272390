//! The client of one session: what it was sent and what it has confirmed. Each delivery is checked.

use std::collections::BTreeSet;

use tidings_protocol::{WINDOW_BYTES_MAX, WINDOW_MAX};

use super::Entry;

/// A delivery that is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::inbox_session) struct Outstanding {
    pub(in crate::inbox_session) delivery: u64,
    /// None of what was told directly.
    sequence: Option<u64>,
    event: Option<u64>,
    bytes: usize,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::inbox_session) struct Client {
    deliveries: u64,
    pub(in crate::inbox_session) delivered: BTreeSet<u64>,
    pub(in crate::inbox_session) outstanding: Vec<Outstanding>,
    pub(super) confirmed: BTreeSet<u64>,
    /// Asked to be deleted by this session.
    pub(super) deleted: BTreeSet<u64>,
    pub(super) caught_up: bool,
    /// The answer to what was confirmed wrongly is due.
    pub(super) unknown: Option<u64>,
    /// The last sequence of each chat, or its last event where events are told apart; 0 before the first.
    last: Vec<u64>,
    /// The events that this connection has shown.
    shown: BTreeSet<u64>,
    /// Those that were confirmed, on any connection.
    pub(super) known: BTreeSet<u64>,
    /// Of those, what was told directly here, and the confirmation of which nobody has heard of.
    pub(super) unsettled: BTreeSet<u64>,
    /// What was confirmed on earlier connections. A replica that is behind may show it once more, or a late notice
    /// tell of it: the client drops messages that it knows.
    dropped: BTreeSet<u64>,
}

impl Client {
    pub(super) fn new(chats: usize) -> Self {
        Self {
            deliveries: 0,
            delivered: BTreeSet::new(),
            outstanding: Vec::new(),
            confirmed: BTreeSet::new(),
            deleted: BTreeSet::new(),
            caught_up: false,
            unknown: None,
            last: vec![0; chats],
            shown: BTreeSet::new(),
            known: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            dropped: BTreeSet::new(),
        }
    }

    /// The same client on a new connection.
    pub(super) fn reconnect(&mut self) {
        let mut client = Self::new(self.last.len());
        client.dropped = std::mem::take(&mut self.dropped);
        client.dropped.append(&mut self.confirmed);
        client.known = std::mem::take(&mut self.known);
        *self = client;
    }

    /// `sequence` is None of what was told directly.
    pub(super) fn deliver(&mut self, delivery: u64, sequence: Option<u64>, entry: Entry) {
        self.deliveries += 1;
        assert_eq!(delivery, self.deliveries, "deliveries are numbered one by one");
        if let Some(sequence) = sequence {
            assert!(self.delivered.insert(sequence), "{sequence} is delivered twice");
        }
        if let Some(event) = entry.event {
            assert!(self.shown.insert(event), "event {event} is shown twice");
        }
        let is_known = entry.event.is_some_and(|event| self.known.contains(&event));
        let is_dropped = sequence.is_some_and(|sequence| self.dropped.contains(&sequence));
        if let Some(chat) = entry.chat
            && !is_dropped
            && !is_known
        {
            let place = entry
                .event
                .map_or_else(|| sequence.unwrap_or(0), |event| event + 1);
            let before = std::mem::replace(&mut self.last[chat], place);
            assert!(before < place, "{place} comes after {before} in chat {chat}");
        }
        let outstanding: usize = self.outstanding.iter().map(|other| other.bytes).sum();
        assert!(
            self.outstanding.is_empty()
                || (self.outstanding.len() < WINDOW_MAX && outstanding + entry.bytes <= WINDOW_BYTES_MAX),
            "the window is full"
        );
        self.outstanding.push(Outstanding {
            delivery,
            sequence,
            event: entry.event,
            bytes: entry.bytes,
        });
    }

    /// Whether an event was confirmed, on any connection.
    pub(super) fn has_confirmed(&self, event: u64) -> bool {
        self.known.contains(&event)
    }

    /// Whether what is stored there was delivered here, as this entry or as its event.
    pub(super) fn has(&self, sequence: u64, event: Option<u64>) -> bool {
        self.delivered.contains(&sequence) || event.is_some_and(|event| self.shown.contains(&event))
    }

    /// Confirms the delivery at this place (the last one if there are fewer), or everything up to it.
    pub(super) fn confirm(&mut self, place: usize, through: bool) -> Option<u64> {
        let last = self.outstanding.len().checked_sub(1)?;
        let place = place.min(last);
        let delivery = self.outstanding[place].delivery;
        let places = if through { 0..=place } else { place..=place };
        for outstanding in self.outstanding.drain(places) {
            self.confirmed.extend(outstanding.sequence);
            self.known.extend(outstanding.event);
            if outstanding.sequence.is_none() {
                self.unsettled.extend(outstanding.event);
            }
        }
        Some(delivery)
    }

    /// Whether this confirmation is wrong. Confirming through one that was confirmed is, if nothing is
    /// outstanding up to it.
    pub(super) fn expect_unknown(&mut self, delivery: u64, through: bool) -> bool {
        let wrong = if through {
            delivery > self.deliveries || self.outstanding.iter().all(|other| other.delivery > delivery)
        } else {
            self.outstanding.iter().all(|other| other.delivery != delivery)
        };
        self.unknown = wrong.then_some(delivery);
        wrong
    }

    pub(super) fn takes_unknown(&mut self, delivery: u64) -> bool {
        self.unknown.take() == Some(delivery)
    }

    /// What is deleted was confirmed, or its event was shown on this connection by another entry.
    pub(super) fn check_delete(&mut self, sequence: u64, event: Option<u64>) {
        let shown = event.is_some_and(|event| self.shown.contains(&event));
        // Whatever was told directly is settled where the entry that it became goes.
        if let Some(event) = event {
            self.unsettled.remove(&event);
        }
        if shown && self.delivered.insert(sequence) {
            // The other one is confirmed, or outstanding and stored, and so not deleted.
            let mut others = self.outstanding.iter();
            let outstanding = others.any(|other| other.event == event && other.sequence.is_some());
            let known = event.is_some_and(|event| self.known.contains(&event));
            assert!(outstanding || known, "{sequence} was the last of its event");
            self.confirmed.insert(sequence);
        }
        assert!(self.confirmed.contains(&sequence), "{sequence} is not confirmed");
        assert!(self.deleted.insert(sequence), "{sequence} is deleted twice");
    }

    pub(super) fn catch_up(&mut self, due: impl Iterator<Item = (u64, Option<u64>)>) {
        assert!(!std::mem::replace(&mut self.caught_up, true), "caught up twice");
        for (sequence, event) in due {
            assert!(
                self.has(sequence, event),
                "caught up, and {sequence} was not delivered"
            );
        }
    }
}
