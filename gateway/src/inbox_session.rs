//! What a connection knows of its inbox, and what follows from what it hears: a pure state machine. It takes
//! events and returns what to do; the connection's task does it. It holds sequences, never bodies.
//!
//! The stream is the truth; notices are a faster way to hear of it. Whatever casts doubt on the notices makes
//! the session read from the *floor*: the highest sequence up to which the inbox was actually read. Only a
//! reading moves the floor, never a live delivery.
//!
//! A session that is live and in no doubt may *grant* direct delivery: workers then tell it of events before they store
//! them, and store only what it refuses or does not confirm in time (adr/0021). A grant ends with the first doubt or
//! refusal: what is stored then must come before whatever is told directly, so that has to be told under a later grant.

mod interface;
mod shown;

use std::collections::BTreeSet;

use uuid::Uuid;

pub(crate) use self::interface::{Action, Direct, Input, Reading, Stored};
use self::shown::Shown;
use crate::window::{Origin, Window};

/// Live deliveries above the floor that are remembered. Beyond, one reading moves the floor past them; 512 make
/// that a few requests in 512 deliveries.
const ABOVE_MAX: usize = 512;
/// Notices kept while a reading is under way; beyond, another reading follows. A reading takes milliseconds.
const HELD_BACK_MAX: usize = 64;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
enum Phase {
    /// Not every worker knows of this session yet; notices only say that there is something to read.
    CatchingUp,
    /// Notices are delivered.
    Live,
}

/// A reading under way.
#[derive(Copy, Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq, Hash))]
struct UnderWay {
    /// The highest sequence known when it began: it was stored by then, so a complete reading has passed it.
    known: u64,
    /// It began after the fence.
    after_fence: bool,
}

/// See the module.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct InboxSession<B> {
    phase: Phase,
    floor: u64,
    /// The highest sequence that was delivered or read.
    known: u64,
    /// Delivered on this session and above the floor, confirmed or not.
    above: BTreeSet<u64>,
    window: Window,
    /// Events that were delivered on this session.
    shown: Shown,
    reading: Option<UnderWay>,
    /// Something may be stored that was not delivered: a reading must begin after this.
    doubt: bool,
    /// There is doubt, since what was read or told last used up the room there was: half of the window must be free, or some time have passed,
    /// before it is read for. For any other doubt the room there is will do: the client may be waiting for just that
    /// before it confirms anything.
    starved: bool,
    fence_passed: bool,
    /// Notices that came while a reading was under way, in the order they came.
    held_back: Vec<Stored<B>>,
    /// The number of the grant that is out, or that the next one will have.
    grant: u32,
    /// It is out: some worker may tell directly.
    granted: bool,
}

impl<B> InboxSession<B> {
    pub(crate) const fn new() -> Self {
        Self {
            phase: Phase::CatchingUp,
            floor: 0,
            known: 0,
            above: BTreeSet::new(),
            window: Window::new(),
            shown: Shown::new(),
            reading: None,
            doubt: false,
            starved: false,
            fence_passed: false,
            held_back: Vec::new(),
            grant: 1,
            granted: false,
        }
    }

    /// Takes an event and appends what follows from it.
    pub(crate) fn handle(&mut self, input: Input<B>, actions: &mut Vec<Action<B>>) {
        match input {
            Input::Start | Input::Doubt => self.doubt(),
            Input::FencePassed => {
                self.fence_passed = true;
                self.doubt();
            }
            Input::Notice(stored) => self.notice(stored, actions),
            Input::Direct(direct) => self.direct(direct, actions),
            Input::Withdraw => self.withdraw(),
            Input::Read {
                entries,
                through,
                complete,
            } => self.read(entries, through, complete, actions),
            Input::Checked(last) if last > self.floor => self.doubt(),
            Input::Checked(_) => {}
            Input::Waited => self.starved = false,
            Input::Received(delivery) => match self.window.confirm(delivery) {
                Some(origin) => actions.push(confirmed(origin)),
                None => actions.push(Action::UnknownDelivery(delivery)),
            },
            Input::ReceivedThrough(delivery) => match self.window.confirm_through(delivery) {
                Some(origins) => actions.extend(origins.into_iter().map(confirmed)),
                None => actions.push(Action::UnknownDelivery(delivery)),
            },
        }
        self.read_if_due(actions);
    }

    /// Whether the client must confirm before anything more is delivered.
    pub(crate) fn is_full(&self) -> bool {
        self.window.is_full() || (self.doubt && !self.window.has_room_for_any())
    }

    /// Whether there may be something to read and is room for it, and it is waited for more.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.starved && self.window.has_room_for_any()
    }

    /// Whether notices are delivered.
    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// The grant under which workers may tell directly from now on, if they may.
    pub(crate) fn grant(&mut self) -> Option<u32> {
        let may = self.takes_directly();
        self.granted |= may;
        may.then_some(self.grant)
    }

    /// What was told directly and is not confirmed: who waits for that, and for which events.
    pub(crate) fn directs(&self) -> impl Iterator<Item = (Uuid, u64)> {
        self.window.directs()
    }

    fn takes_directly(&self) -> bool {
        self.phase == Phase::Live && !self.doubt && self.reading.is_none()
    }

    fn withdraw(&mut self) {
        if self.granted {
            self.granted = false;
            self.grant = self.grant.wrapping_add(1);
        }
    }

    fn direct(&mut self, direct: Direct<B>, actions: &mut Vec<Action<B>>) {
        let Direct {
            worker,
            event,
            grant,
            bytes,
            body,
        } = direct;
        if let Some(delivery) = self.window.direct(event) {
            // By a worker that took over; the one before waits in vain, and its entry will be this event's.
            return delivery.awaited_by(worker);
        }
        if self.shown.contains(event) {
            // It is confirmed, or stored until it is.
            return actions.push(Action::Confirmed { worker, event });
        }
        let granted = self.granted && grant == self.grant;
        if !granted || !self.takes_directly() || !self.window.has_room(bytes) {
            if granted {
                self.withdraw();
            }
            return actions.push(Action::Refused { worker, event });
        }
        self.shown.insert(event);
        let delivery = self.window.push(Origin::Direct { worker, event }, bytes);
        actions.push(Action::Deliver { delivery, body });
    }

    fn doubt(&mut self) {
        self.doubt = true;
        self.withdraw();
        // What was held back may be behind the entry whose notice was lost.
        self.held_back = Vec::new();
    }

    fn notice(&mut self, stored: Stored<B>, actions: &mut Vec<Action<B>>) {
        if self.is_known(stored.sequence) {
            return;
        }
        match self.reading {
            // A reading follows and finds it.
            _ if self.doubt => {}
            // Whatever is stored without a notice for this session was stored before the fence, so before this
            // reading, which will have found it: notices count from here on.
            Some(reading) if self.phase == Phase::Live || reading.after_fence => {
                if self.held_back.len() < HELD_BACK_MAX {
                    self.held_back.push(stored);
                } else {
                    self.doubt();
                }
            }
            None if self.phase == Phase::Live => self.deliver_live(stored, actions),
            _ => self.doubt(),
        }
    }

    fn deliver_live(&mut self, stored: Stored<B>, actions: &mut Vec<Action<B>>) {
        if !self.fits(&stored) {
            self.starved = true;
            self.doubt();
            return;
        }
        self.above.insert(stored.sequence);
        self.deliver(stored, actions);
        if self.above.len() > ABOVE_MAX {
            self.doubt();
        }
    }

    fn fits(&mut self, stored: &Stored<B>) -> bool {
        self.is_shown(stored) || self.window.has_room(stored.bytes)
    }

    fn is_shown(&mut self, stored: &Stored<B>) -> bool {
        stored
            .event
            .is_some_and(|event| self.shown.contains(event) || self.window.direct(event).is_some())
    }

    /// What was shown by another entry is not shown again: that one is stored until it is confirmed. Nor is what was
    /// told directly: the entry is deleted when that is confirmed.
    fn deliver(&mut self, stored: Stored<B>, actions: &mut Vec<Action<B>>) {
        self.known = self.known.max(stored.sequence);
        if let Some(event) = stored.event {
            if let Some(delivery) = self.window.direct(event) {
                return delivery.stored(stored.sequence);
            }
            if self.shown.contains(event) {
                return actions.push(Action::Delete {
                    sequence: stored.sequence,
                });
            }
            self.shown.insert(event);
        }
        let delivery = self.window.push(Origin::Stored(stored.sequence), stored.bytes);
        actions.push(Action::Deliver {
            delivery,
            body: stored.body,
        });
    }

    fn read(&mut self, entries: Vec<Stored<B>>, through: u64, complete: bool, actions: &mut Vec<Action<B>>) {
        let reading = self.reading.take().expect("a reading ends that was asked for");
        let (mut fits, mut used) = (true, false);
        for stored in entries {
            if stored.sequence <= self.floor {
                continue;
            }
            if self.above.contains(&stored.sequence) {
                self.floor = stored.sequence;
            } else {
                if !self.fits(&stored) {
                    fits = false;
                    break;
                }
                self.floor = stored.sequence;
                self.deliver(stored, actions);
                used = true;
            }
        }
        if fits {
            self.floor = self.floor.max(through);
        }
        let everything = fits && complete;
        self.starved = !everything && (used || !fits);
        if everything {
            self.floor = self.floor.max(reading.known);
        } else {
            self.doubt();
        }
        self.above = self.above.split_off(&(self.floor + 1));
        if self.doubt {
            return;
        }
        if self.phase == Phase::CatchingUp && reading.after_fence {
            self.phase = Phase::Live;
            actions.push(Action::CaughtUp);
        }
        for stored in std::mem::take(&mut self.held_back) {
            if self.doubt {
                break;
            }
            if !self.is_known(stored.sequence) {
                self.deliver_live(stored, actions);
            }
        }
    }

    fn is_known(&self, sequence: u64) -> bool {
        sequence <= self.floor || self.above.contains(&sequence)
    }

    fn read_if_due(&mut self, actions: &mut Vec<Action<B>>) {
        let has_room = self.window.is_half_free() || (self.window.has_room_for_any() && !self.starved);
        if !self.doubt || self.reading.is_some() || !has_room {
            return;
        }
        self.doubt = false;
        self.starved = false;
        self.reading = Some(UnderWay {
            known: self.known,
            after_fence: self.fence_passed,
        });
        let (count, bytes) = self.window.room();
        // What is above the floor and delivered already is read again and skipped.
        let count = count + self.above.len();
        actions.push(Action::Read(Reading {
            from: self.floor + 1,
            count,
            bytes,
        }));
    }
}

/// What follows from the confirmation of a delivery.
const fn confirmed<B>(origin: Origin) -> Action<B> {
    match origin {
        Origin::Stored(sequence) => Action::Delete { sequence },
        Origin::Direct { worker, event } => Action::Confirmed { worker, event },
    }
}

#[cfg(test)]
mod bus_model;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod script_tests;
#[cfg(test)]
mod search_tests;
