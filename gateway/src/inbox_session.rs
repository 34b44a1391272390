//! What a connection knows of its inbox, and what follows from what it hears: a pure state machine. It takes
//! events and returns what to do; the connection's task does it. It holds sequences, never bodies.
//!
//! The stream is the truth; notices are a faster way to hear of it. Whatever casts doubt on the notices makes
//! the session read from the *floor*: the highest sequence up to which the inbox was actually read. Only a
//! reading moves the floor, never a live delivery.

use std::collections::BTreeSet;

use crate::window::Window;

/// Live deliveries above the floor that are remembered. Beyond, one reading moves the floor past them; 512 make
/// that two requests in 512 deliveries.
const ABOVE_MAX: usize = 512;
/// Notices kept while a reading is under way; beyond, another reading follows. A reading takes milliseconds.
const HELD_BACK_MAX: usize = 64;

/// What a session hears.
#[derive(Debug)]
pub(crate) enum Input<B> {
    /// The connection is open: read everything.
    Start,
    /// A worker says that an entry was stored.
    Notice(Stored<B>),
    /// The reading that was asked for has ended. `entries` are in stream order, without holes from its `from` on.
    /// `complete` says that nothing was stored behind the last one, according to the stream's leader.
    Read {
        /// What was read.
        entries: Vec<Stored<B>>,
        /// Whether it was everything.
        complete: bool,
    },
    /// A notice may have been lost.
    Doubt,
    /// From here on every worker knows of this session.
    FencePassed,
    /// The last sequence that is stored in the inbox.
    Checked(u64),
    /// The client has confirmed one delivery.
    Received(u64),
    /// The client has confirmed everything up to a delivery.
    ReceivedThrough(u64),
}

/// An entry of the inbox.
#[derive(Debug)]
pub(crate) struct Stored<B> {
    /// Its stream sequence.
    pub(crate) sequence: u64,
    /// Its size, for the window.
    pub(crate) bytes: usize,
    /// The rest of it.
    pub(crate) body: B,
}

/// What a session wants done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<B> {
    /// Write a delivery to the socket.
    Deliver {
        /// Its number on this connection.
        delivery: u64,
        /// What.
        body: B,
    },
    /// Delete an entry: it is confirmed.
    Delete {
        /// Its stream sequence.
        sequence: u64,
    },
    /// Read the inbox.
    Read(Reading),
    /// Tell the client that everything older has been sent.
    CaughtUp,
    /// Tell the client that it confirmed something that is not outstanding.
    UnknownDelivery(u64),
}

/// A reading of the inbox.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The first sequence to read.
    pub(crate) from: u64,
    /// At most so many entries.
    pub(crate) count: usize,
    /// At most about so many bytes.
    pub(crate) bytes: usize,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Not every worker knows of this session yet; notices only say that there is something to read.
    CatchingUp,
    /// Notices are delivered.
    Live,
}

/// A reading under way.
#[derive(Copy, Clone, Debug)]
struct UnderWay {
    /// The highest sequence known when it began: it was stored by then, so a complete reading has passed it.
    known: u64,
    /// It began after the fence.
    after_fence: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct InboxSession<B> {
    phase: Phase,
    floor: u64,
    /// The highest sequence that was delivered or read.
    known: u64,
    /// Delivered on this session and above the floor, confirmed or not.
    above: BTreeSet<u64>,
    window: Window,
    reading: Option<UnderWay>,
    /// Something may be stored that was not delivered: a reading must begin after this.
    doubt: bool,
    fence_passed: bool,
    /// Notices that came while a reading was under way, in the order they came.
    held_back: Vec<Stored<B>>,
}

impl<B> InboxSession<B> {
    pub(crate) const fn new() -> Self {
        Self {
            phase: Phase::CatchingUp,
            floor: 0,
            known: 0,
            above: BTreeSet::new(),
            window: Window::new(),
            reading: None,
            doubt: false,
            fence_passed: false,
            held_back: Vec::new(),
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
            Input::Read { entries, complete } => self.read(entries, complete, actions),
            Input::Checked(last) if last > self.floor => self.doubt(),
            Input::Checked(_) => {}
            Input::Received(delivery) => match self.window.confirm(delivery) {
                Some(sequence) => actions.push(Action::Delete { sequence }),
                None => actions.push(Action::UnknownDelivery(delivery)),
            },
            Input::ReceivedThrough(delivery) => match self.window.confirm_through(delivery) {
                Some(sequences) => {
                    actions.extend(sequences.into_iter().map(|sequence| Action::Delete { sequence }));
                }
                None => actions.push(Action::UnknownDelivery(delivery)),
            },
        }
        self.read_if_due(actions);
    }

    /// Whether the client must confirm before anything more is delivered.
    pub(crate) fn is_full(&self) -> bool {
        self.window.is_full()
    }

    /// Whether notices are delivered.
    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    fn doubt(&mut self) {
        self.doubt = true;
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
        if !self.window.has_room(stored.bytes) {
            self.doubt();
            return;
        }
        self.above.insert(stored.sequence);
        self.deliver(stored, actions);
        if self.above.len() > ABOVE_MAX {
            self.doubt();
        }
    }

    fn deliver(&mut self, stored: Stored<B>, actions: &mut Vec<Action<B>>) {
        self.known = self.known.max(stored.sequence);
        let delivery = self.window.push(stored.sequence, stored.bytes);
        actions.push(Action::Deliver {
            delivery,
            body: stored.body,
        });
    }

    fn read(&mut self, entries: Vec<Stored<B>>, complete: bool, actions: &mut Vec<Action<B>>) {
        let reading = self.reading.take().expect("a reading ends that was asked for");
        let mut everything = complete;
        for stored in entries {
            if stored.sequence <= self.floor {
                continue;
            }
            if self.above.contains(&stored.sequence) {
                self.floor = stored.sequence;
            } else {
                if !self.window.has_room(stored.bytes) {
                    everything = false;
                    break;
                }
                self.floor = stored.sequence;
                self.deliver(stored, actions);
            }
        }
        if everything {
            self.floor = self.floor.max(reading.known);
        } else {
            self.doubt();
        }
        self.above = self.above.split_off(&(self.floor + 1));
        if !everything || self.doubt {
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
        if !self.doubt || self.reading.is_some() || !self.window.is_half_free() {
            return;
        }
        self.doubt = false;
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet, VecDeque};

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn stored(sequence: u64) -> Stored<u64> {
        Stored {
            sequence,
            bytes: 10,
            body: sequence,
        }
    }

    fn run(session: &mut InboxSession<u64>, input: Input<u64>) -> Vec<Action<u64>> {
        let mut actions = Vec::new();
        session.handle(input, &mut actions);
        actions
    }

    fn read_of(sequences: &[u64], complete: bool) -> Input<u64> {
        Input::Read {
            entries: sequences.iter().copied().map(stored).collect(),
            complete,
        }
    }

    fn reading(from: u64) -> Action<u64> {
        Action::Read(Reading {
            from,
            count: 256,
            bytes: 262_144,
        })
    }

    fn live() -> InboxSession<u64> {
        let mut session = InboxSession::new();
        assert_eq!(run(&mut session, Input::Start), [reading(1)]);
        assert_eq!(run(&mut session, read_of(&[], true)), []);
        assert_eq!(run(&mut session, Input::FencePassed), [reading(1)]);
        assert_eq!(run(&mut session, read_of(&[], true)), [Action::CaughtUp]);
        session
    }

    #[test]
    fn a_notice_is_delivered_once() {
        let mut session = live();
        let delivered = [Action::Deliver { delivery: 1, body: 5 }];
        assert_eq!(run(&mut session, Input::Notice(stored(5))), delivered);
        assert_eq!(run(&mut session, Input::Notice(stored(5))), []);
        assert_eq!(
            run(&mut session, Input::Received(1)),
            [Action::Delete { sequence: 5 }]
        );
        assert_eq!(
            run(&mut session, Input::Received(1)),
            [Action::UnknownDelivery(1)]
        );
        assert_eq!(run(&mut session, Input::Notice(stored(5))), []);
    }

    #[test]
    fn only_a_reading_moves_the_floor() {
        let mut session = live();
        run(&mut session, Input::Notice(stored(9)));
        // 7 was stored, its notice was lost, and somebody noticed.
        assert!(matches!(
            run(&mut session, Input::Doubt)[..],
            [Action::Read(Reading { from: 1, .. })]
        ));
        let delivered = [Action::Deliver { delivery: 2, body: 7 }];
        assert_eq!(run(&mut session, read_of(&[7, 9], true)), delivered);
        assert!(matches!(
            run(&mut session, Input::Doubt)[..],
            [Action::Read(Reading { from: 10, .. })]
        ));
    }

    #[test]
    fn a_check_below_the_floor_is_no_reason_to_read() {
        let mut session = live();
        run(&mut session, Input::Doubt);
        run(&mut session, read_of(&[4], true));
        assert_eq!(run(&mut session, Input::Checked(4)), []);
        assert!(matches!(
            run(&mut session, Input::Checked(5))[..],
            [Action::Read(Reading { from: 5, .. })]
        ));
    }

    /// A small world: inboxes are written by two workers, each with its own chat and its own lane of notices.
    struct World {
        rng: StdRng,
        stored: BTreeMap<u64, usize>,
        last: u64,
        lanes: [VecDeque<Option<u64>>; 2],
        outstanding: Vec<(u64, u64)>,
        reading: Option<Reading>,
        delivered: Vec<u64>,
        confirmed: HashSet<u64>,
        caught_up: usize,
        chats: BTreeMap<u64, usize>,
        fence_passed: bool,
    }

    impl World {
        fn obey(&mut self, actions: Vec<Action<u64>>) {
            for action in actions {
                match action {
                    Action::Deliver { delivery, body } => {
                        self.delivered.push(body);
                        self.outstanding.push((delivery, body));
                    }
                    Action::Delete { sequence } => {
                        assert!(self.confirmed.contains(&sequence), "{sequence} was not confirmed");
                        self.stored.remove(&sequence);
                    }
                    Action::Read(reading) => assert!(self.reading.replace(reading).is_none(), "two readings"),
                    Action::CaughtUp => {
                        assert!(self.fence_passed);
                        self.caught_up += 1;
                    }
                    Action::UnknownDelivery(delivery) => panic!("{delivery} is outstanding"),
                }
            }
        }

        /// What a worker does: store, then tell, unless the notice is lost. Before the fence it may not know of
        /// the session and then tells nobody.
        fn store(&mut self) {
            let lane = self.rng.random_range(0..2);
            self.last += self.rng.random_range(1..3);
            self.stored.insert(self.last, lane);
            self.chats.insert(self.last, lane);
            if self.fence_passed || self.rng.random_bool(0.5) {
                let lost = self.rng.random_bool(0.1);
                self.lanes[lane].push_back((!lost).then_some(self.last));
            }
        }

        fn step(&mut self, session: &mut InboxSession<u64>) {
            let actions = match self.rng.random_range(0..12) {
                0..=2 => {
                    self.store();
                    vec![]
                }
                3..=6 => match self.pick_lane().and_then(|lane| self.lanes[lane].pop_front()) {
                    Some(Some(sequence)) => run(session, Input::Notice(stored(sequence))),
                    // A gap in the numbers is seen before the notice behind it.
                    Some(None) => run(session, Input::Doubt),
                    None => vec![],
                },
                7 | 8 => self.finish_reading(session),
                9 => self.confirm(session),
                10 if !self.fence_passed && self.rng.random_bool(0.2) => {
                    self.fence_passed = true;
                    run(session, Input::FencePassed)
                }
                _ => run(session, Input::Doubt),
            };
            self.obey(actions);
        }

        fn pick_lane(&mut self) -> Option<usize> {
            let lane = self.rng.random_range(0..2);
            [lane, 1 - lane]
                .into_iter()
                .find(|lane| !self.lanes[*lane].is_empty())
        }

        fn finish_reading(&mut self, session: &mut InboxSession<u64>) -> Vec<Action<u64>> {
            let Some(reading) = self.reading.take() else {
                return vec![];
            };
            let all: Vec<u64> = self
                .stored
                .range(reading.from..)
                .map(|(sequence, _)| *sequence)
                .collect();
            let count = self.rng.random_range(0..=reading.count.min(all.len()));
            let count = if self.rng.random_bool(0.7) {
                all.len().min(reading.count)
            } else {
                count
            };
            run(session, read_of(&all[..count], count == all.len()))
        }

        fn confirm(&mut self, session: &mut InboxSession<u64>) -> Vec<Action<u64>> {
            if self.outstanding.is_empty() {
                return vec![];
            }
            let index = self.rng.random_range(0..self.outstanding.len());
            if self.rng.random_bool(0.5) {
                let (delivery, sequence) = self.outstanding.remove(index);
                self.confirmed.insert(sequence);
                return run(session, Input::Received(delivery));
            }
            let (through, _) = self.outstanding[index];
            let (confirmed, rest) = self
                .outstanding
                .iter()
                .partition(|(delivery, _)| *delivery <= through);
            self.outstanding = rest;
            let confirmed: Vec<(u64, u64)> = confirmed;
            self.confirmed
                .extend(confirmed.into_iter().map(|(_, sequence)| sequence));
            run(session, Input::ReceivedThrough(through))
        }
    }

    /// Everything stored is delivered, once, in order within a chat, whatever happens to the notices.
    #[test]
    fn nothing_is_lost_doubled_or_reordered() {
        for seed in 0..2_000 {
            let mut world = World {
                rng: StdRng::seed_from_u64(seed),
                stored: BTreeMap::new(),
                last: 0,
                lanes: [VecDeque::new(), VecDeque::new()],
                outstanding: Vec::new(),
                reading: None,
                delivered: Vec::new(),
                confirmed: HashSet::new(),
                caught_up: 0,
                chats: BTreeMap::new(),
                fence_passed: false,
            };
            let mut session = InboxSession::new();
            let start = run(&mut session, Input::Start);
            world.obey(start);
            for _ in 0..world.rng.random_range(0..400) {
                world.step(&mut session);
            }
            if !world.fence_passed {
                world.fence_passed = true;
                let actions = run(&mut session, Input::FencePassed);
                world.obey(actions);
            }
            for _ in 0..2_000 {
                while let Some(lane) = world.pick_lane() {
                    let actions = match world.lanes[lane].pop_front().flatten() {
                        Some(sequence) => run(&mut session, Input::Notice(stored(sequence))),
                        None => run(&mut session, Input::Doubt),
                    };
                    world.obey(actions);
                }
                let actions = world.finish_reading(&mut session);
                world.obey(actions);
                let actions = world.confirm(&mut session);
                world.obey(actions);
            }
            let mut once = HashSet::new();
            let mut last = [0; 2];
            for sequence in &world.delivered {
                assert!(once.insert(*sequence), "seed {seed}: {sequence} twice");
                let chat = world.chats[sequence];
                assert!(
                    last[chat] < *sequence,
                    "seed {seed}: {sequence} after {}",
                    last[chat]
                );
                last[chat] = *sequence;
            }
            assert_eq!(once.len(), world.chats.len(), "seed {seed}: lost");
            assert!(world.stored.is_empty(), "seed {seed}: confirmed and still stored");
            assert_eq!(world.caught_up, 1, "seed {seed}");
            assert!(session.is_live());
        }
    }
}
