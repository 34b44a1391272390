//! What is delivered on a connection and not confirmed yet, in the order of sending.

use std::collections::VecDeque;

use tidings_protocol::{WINDOW_BYTES_MAX, WINDOW_MAX};
use uuid::Uuid;

/// No entry is larger: it holds little more than the frame it came in.
const ENTRY_BYTES_MAX: usize = tidings_protocol::MESSAGE_BYTES_MAX + 32_768;

/// When half of the window is free, the next one fits, and no reading for it is in vain.
const _: () = assert!(ENTRY_BYTES_MAX <= WINDOW_BYTES_MAX / 2);

/// Where what is delivered is kept until it is confirmed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Origin {
    /// In the inbox, under this sequence.
    Stored(u64),
    /// Nowhere but in CHATS: a worker waits for the confirmation, and stores it otherwise.
    Direct {
        /// The worker's boot id.
        worker: Uuid,
        /// The sequence in CHATS.
        event: u64,
    },
}

impl Origin {
    const fn is_direct(self) -> bool {
        matches!(self, Self::Direct { .. })
    }
}

/// An unconfirmed delivery.
#[derive(Copy, Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq, Hash))]
struct Outstanding {
    origin: Origin,
    bytes: usize,
    confirmed: bool,
}

/// The unconfirmed deliveries of a connection: at most 256, and 256 KiB of them, so that a client which never
/// confirms costs the gateway nothing but these numbers and the client's own buffer.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Window {
    /// Deliveries from `first` on; confirmed ones stay until all before them are.
    deliveries: VecDeque<Outstanding>,
    /// The number of the first delivery in `deliveries`.
    first: u64,
    bytes: usize,
    /// How many unconfirmed ones are direct.
    direct: usize,
}

impl Window {
    pub(crate) const fn new() -> Self {
        Self {
            deliveries: VecDeque::new(),
            first: 1,
            bytes: 0,
            direct: 0,
        }
    }

    /// Whether a delivery of so many bytes may be sent. One always may when none is outstanding.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.deliveries.is_empty()
            || (self.deliveries.len() < WINDOW_MAX && self.bytes + bytes <= WINDOW_BYTES_MAX)
    }

    /// How many more deliveries, and bytes of them, may be sent.
    pub(crate) fn room(&self) -> (usize, usize) {
        (
            WINDOW_MAX.saturating_sub(self.deliveries.len()),
            WINDOW_BYTES_MAX.saturating_sub(self.bytes),
        )
    }

    /// Whether at least half of it is free: reading for less would be a request a confirmation.
    pub(crate) fn is_half_free(&self) -> bool {
        self.deliveries.is_empty()
            || (self.deliveries.len() <= WINDOW_MAX / 2 && self.bytes <= WINDOW_BYTES_MAX / 2)
    }

    /// Takes a delivery in and numbers it.
    pub(crate) fn push(&mut self, origin: Origin, bytes: usize) -> u64 {
        self.direct += usize::from(origin.is_direct());
        self.deliveries.push_back(Outstanding {
            origin,
            bytes,
            confirmed: false,
        });
        self.bytes += bytes;
        self.first + self.deliveries.len() as u64 - 1
    }

    /// The unconfirmed direct delivery of an event, to be kept elsewhere from now on; none if there is none.
    pub(crate) fn direct(&mut self, event: u64) -> Option<DirectDelivery<'_>> {
        if self.direct == 0 {
            return None;
        }
        let of_event = |origin| matches!(origin, Origin::Direct { event: other, .. } if other == event);
        let outstanding = self
            .deliveries
            .iter_mut()
            .find(|outstanding| !outstanding.confirmed && of_event(outstanding.origin))?;
        Some(DirectDelivery {
            origin: &mut outstanding.origin,
            direct: &mut self.direct,
        })
    }

    /// The unconfirmed direct deliveries: who waits for them, and for which events.
    pub(crate) fn directs(&self) -> impl Iterator<Item = (Uuid, u64)> {
        let open = self
            .deliveries
            .iter()
            .filter(|outstanding| !outstanding.confirmed);
        open.filter_map(|outstanding| match outstanding.origin {
            Origin::Direct { worker, event } => Some((worker, event)),
            Origin::Stored(_) => None,
        })
    }

    /// Confirms one delivery and says where it is kept; None if it is not outstanding.
    pub(crate) fn confirm(&mut self, delivery: u64) -> Option<Origin> {
        let index = usize::try_from(delivery.checked_sub(self.first)?).ok()?;
        let outstanding = self
            .deliveries
            .get_mut(index)
            .filter(|outstanding| !outstanding.confirmed)?;
        outstanding.confirmed = true;
        let (origin, bytes) = (outstanding.origin, outstanding.bytes);
        self.bytes -= bytes;
        self.direct -= usize::from(origin.is_direct());
        self.advance();
        Some(origin)
    }

    /// Confirms everything up to a delivery. None if the number was never sent or nothing up to it is
    /// outstanding.
    pub(crate) fn confirm_through(&mut self, delivery: u64) -> Option<Vec<Origin>> {
        let sent = self.first + self.deliveries.len() as u64;
        if delivery < self.first || delivery >= sent {
            return None;
        }
        let up_to = (delivery - self.first + 1) as usize;
        let mut origins = Vec::new();
        for outstanding in self
            .deliveries
            .iter_mut()
            .take(up_to)
            .filter(|outstanding| !outstanding.confirmed)
        {
            outstanding.confirmed = true;
            self.bytes -= outstanding.bytes;
            self.direct -= usize::from(outstanding.origin.is_direct());
            origins.push(outstanding.origin);
        }
        self.advance();
        (!origins.is_empty()).then_some(origins)
    }

    /// Whether the next delivery fits, whatever it is.
    pub(crate) fn has_room_for_any(&self) -> bool {
        self.has_room(ENTRY_BYTES_MAX)
    }

    /// No delivery fits, however small.
    pub(crate) fn is_full(&self) -> bool {
        !self.has_room(1)
    }

    fn advance(&mut self) {
        while self
            .deliveries
            .front()
            .is_some_and(|outstanding| outstanding.confirmed)
        {
            self.deliveries.pop_front();
            self.first += 1;
        }
        if self.deliveries.is_empty() {
            // An idle connection holds no buffer.
            self.deliveries.shrink_to_fit();
        }
    }
}

/// An unconfirmed direct delivery.
#[derive(Debug)]
pub(crate) struct DirectDelivery<'a> {
    origin: &'a mut Origin,
    direct: &'a mut usize,
}

impl DirectDelivery<'_> {
    /// It is stored meanwhile.
    pub(crate) fn stored(self, sequence: u64) {
        *self.direct -= 1;
        *self.origin = Origin::Stored(sequence);
    }

    /// It was told once more: this worker waits for it.
    pub(crate) fn awaited_by(self, worker: Uuid) {
        if let Origin::Direct { worker: before, .. } = self.origin {
            *before = worker;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(sequence: u64) -> Origin {
        Origin::Stored(sequence)
    }

    #[test]
    fn what_was_told_before_it_was_stored_can_be_stored_later() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let direct = |worker, event| Origin::Direct { worker, event };
        let mut window = Window::new();
        for event in [7, 8, 9] {
            window.push(direct(one, event), 10);
        }
        window.direct(8).expect("it is outstanding").stored(70);
        window.direct(9).expect("it is outstanding").awaited_by(other);
        assert!(window.direct(8).is_none() && window.direct(10).is_none());
        assert_eq!(window.directs().collect::<Vec<_>>(), [(one, 7), (other, 9)]);
        assert_eq!(window.confirm(3), Some(direct(other, 9)));
        assert!(window.direct(9).is_none());
        assert_eq!(window.confirm_through(3), Some(vec![direct(one, 7), stored(70)]));
        assert_eq!((window.direct, window.directs().count()), (0, 0));
    }

    #[test]
    fn deliveries_are_numbered_from_one_and_confirmed_once() {
        let mut window = Window::new();
        assert_eq!(
            (
                window.push(stored(70), 10),
                window.push(stored(71), 10),
                window.push(stored(75), 10)
            ),
            (1, 2, 3)
        );
        assert_eq!(window.confirm(2), Some(stored(71)));
        assert_eq!(window.confirm(2), None);
        assert_eq!(window.confirm(4), None);
        assert_eq!(window.confirm(0), None);
        assert_eq!(window.confirm_through(3), Some(vec![stored(70), stored(75)]));
        assert_eq!(window.confirm_through(3), None);
        assert_eq!(window.push(stored(80), 10), 4);
        assert_eq!(window.confirm_through(5), None);
        assert_eq!(window.confirm(4), Some(stored(80)));
    }

    #[test]
    fn it_is_bounded_in_count_and_bytes_but_lets_one_through() {
        let mut window = Window::new();
        assert!(window.has_room(WINDOW_BYTES_MAX + 1));
        window.push(stored(1), WINDOW_BYTES_MAX);
        assert!(window.is_full());
        window.confirm(1);
        for sequence in 0..WINDOW_MAX as u64 {
            assert!(window.has_room(1));
            window.push(stored(sequence), 1);
        }
        assert!(window.is_full());
        // Confirmed out of order, the first one keeps its place, and so the bound on what is remembered holds.
        window.confirm(3);
        assert!(window.is_full());
        window.confirm(2);
        assert!(!window.is_full());
    }

    #[test]
    fn half_of_it_is_free_in_count_and_in_bytes() {
        let mut window = Window::new();
        let half = WINDOW_MAX / 2;
        for sequence in 0..half as u64 {
            window.push(stored(sequence), 2);
        }
        assert!(window.is_half_free());
        assert_eq!(window.room(), (WINDOW_MAX - half, WINDOW_BYTES_MAX - 2 * half));
        window.push(stored(1_000), 2);
        assert!(!window.is_half_free());

        let mut window = Window::new();
        window.push(stored(1), WINDOW_BYTES_MAX / 2 - 1);
        window.push(stored(2), 1);
        assert!(window.is_half_free());
        window.push(stored(3), 1);
        assert!(!window.is_half_free());
        // One that is larger than the whole is let through alone, and then there is no room.
        let mut window = Window::new();
        window.push(stored(1), 2 * WINDOW_BYTES_MAX);
        assert_eq!(window.room(), (WINDOW_MAX - 1, 0));
        assert!(!window.is_half_free());
        window.confirm(1);
        assert!(window.is_half_free());
    }

    #[test]
    fn the_last_byte_and_the_last_place_are_used() {
        let mut window = Window::new();
        window.push(stored(1), 10);
        assert!(window.has_room(WINDOW_BYTES_MAX - 10));
        assert!(!window.has_room(WINDOW_BYTES_MAX - 9));
        assert_eq!(window.confirm_through(1), Some(vec![stored(1)]));
        for sequence in 1..WINDOW_MAX as u64 {
            window.push(stored(sequence), 1);
        }
        assert!(window.has_room(1));
        // What was confirmed out of order is free in bytes, and holds its place.
        window.confirm(3);
        assert_eq!(window.bytes, WINDOW_MAX - 2);
        assert_eq!(window.room().0, 1);
    }
}
