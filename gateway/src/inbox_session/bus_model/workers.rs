//! The fan-out workers: each works on the chats it holds, with its own view of who is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Entry, Move, World};

/// A message on a worker's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::inbox_session) enum Told {
    Notice {
        number: u64,
        chat: usize,
        tenure: u64,
        sequence: u64,
        stored_before: bool,
        connection: u64,
    },
    Direct {
        number: u64,
        chat: usize,
        tenure: u64,
        event: u64,
        connection: u64,
        grant: u32,
    },
    Beacon {
        number: u64,
        session: u64,
        client: bool,
    },
}

/// What the gateway answers a worker about direct deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Granted { connection: u64, grant: u32 },
    Confirmed(u64),
    Refused(u64),
}

/// An event that was told directly, and is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Held {
    work: Work,
    connection: u64,
    grant: u32,
    refused: bool,
}

/// An event that a worker works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Work {
    chat: usize,
    /// In which of the chat's tenures it began.
    tenure: u64,
    event: u64,
    /// The worker did not know the client: the entry goes to the inbox that the client inherits.
    first: bool,
    stored: Option<u64>,
    /// Somebody had stored it already.
    stored_before: bool,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::inbox_session) struct Worker {
    alive: bool,
    pub(super) registered: bool,
    /// Up to where it has read SESSIONS; 0 is before the client's first session.
    session: u64,
    client: bool,
    pub(super) number: u64,
    pub(in crate::inbox_session) lane: VecDeque<Told>,
    works: Vec<Work>,
    /// In the order in which it was told.
    held: Vec<Held>,
    grant: Option<(u64, u32)>,
    /// What is on its way to it.
    pub(super) answers: VecDeque<Answer>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            alive: true,
            registered: true,
            session: 0,
            client: false,
            number: 0,
            lane: VecDeque::new(),
            works: Vec::new(),
            held: Vec::new(),
            grant: None,
            answers: VecDeque::new(),
        }
    }
}

impl Worker {
    pub(super) const fn is_alive(&self) -> bool {
        self.alive
    }
}

/// A chat, which is a partition of its own here, and its events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::inbox_session) struct Chat {
    holder: usize,
    /// Counts the readers that have held it, one after the other.
    tenure: u64,
    accepted: u64,
    /// The events that are finished.
    finished: BTreeSet<u64>,
    /// Where an event was stored, by the id that JetStream remembers.
    stored: BTreeMap<(u64, bool), u64>,
}

impl Chat {
    pub(super) const fn held_by(holder: usize) -> Self {
        Self {
            holder,
            tenure: 0,
            accepted: 0,
            finished: BTreeSet::new(),
            stored: BTreeMap::new(),
        }
    }

    fn is_finished(&self) -> bool {
        self.finished.len() as u64 == self.accepted
    }
}

impl World {
    pub(super) fn begin(&mut self, worker: usize, chat: usize) -> bool {
        let (state, of) = (&mut self.workers[worker], &mut self.chats[chat]);
        let busy = state.works.iter().any(|work| work.chat == chat);
        if !state.alive || !state.registered || of.holder != worker || busy {
            return false;
        }
        // What it holds from before it lost the chat it has given up; it works on that again.
        let tenure = of.tenure;
        state
            .held
            .retain(|held| held.work.chat != chat || held.work.tenure == tenure);
        let is_held = |event| {
            let mut held = state.held.iter();
            held.any(|held| held.work.chat == chat && held.work.event == event)
        };
        let next = (0..of.accepted).find(|event| !of.finished.contains(event) && !is_held(*event));
        let event = next.unwrap_or(of.accepted);
        of.accepted = of.accepted.max(event + 1);
        state.works.push(Work {
            chat,
            tenure,
            event,
            first: !state.client,
            stored: None,
            stored_before: false,
        });
        true
    }

    /// A worker tells what it works on before it stores it, where it may.
    pub(super) fn tell_directly(&mut self, worker: usize, chat: usize) -> bool {
        let state = &mut self.workers[worker];
        let place = state
            .works
            .iter()
            .position(|work| work.chat == chat && work.stored.is_none() && !work.first);
        let (Some(place), Some((connection, grant))) = (place, state.grant) else {
            return false;
        };
        let follows = |held: &Held| {
            held.work.chat != chat || (!held.refused && (held.connection, held.grant) == (connection, grant))
        };
        if connection != state.session || !state.held.iter().all(follows) {
            return false;
        }
        let work = state.works.remove(place);
        state.number += 1;
        state.lane.push_back(Told::Direct {
            number: state.number,
            chat,
            tenure: work.tenure,
            event: event_number(chat, work.event),
            connection,
            grant,
        });
        state.held.push(Held {
            work,
            connection,
            grant,
            refused: false,
        });
        true
    }

    /// The worker takes the next answer.
    pub(super) fn take_answer(&mut self, worker: usize) -> bool {
        let state = &mut self.workers[worker];
        let Some(answer) = state.answers.pop_front() else {
            return false;
        };
        let of = |held: &Held, event| event_number(held.work.chat, held.work.event) == event;
        match answer {
            Answer::Granted { connection, grant } => {
                if connection == state.session {
                    state.grant = Some((connection, grant));
                }
            }
            Answer::Confirmed(event) => {
                if let Some(place) = state.held.iter().position(|held| of(held, event)) {
                    let held = state.held.remove(place);
                    let known = self.client.has_confirmed(event) || self.is_stored(event);
                    assert!(known, "{event} is neither confirmed nor stored, and is finished");
                    self.chats[held.work.chat].finished.insert(held.work.event);
                }
            }
            Answer::Refused(event) => {
                state.grant = None;
                if let Some(held) = state.held.iter_mut().find(|held| of(held, event)) {
                    held.refused = true;
                }
            }
        }
        true
    }

    /// The first of a chat's events that a worker holds has waited too long, or is refused: it is worked on as others
    /// are.
    pub(super) fn store_held(&mut self, worker: usize, chat: usize) -> bool {
        let state = &mut self.workers[worker];
        let Some(place) = state.held.iter().position(|held| held.work.chat == chat) else {
            return false;
        };
        if !state.alive {
            return false;
        }
        let held = state.held[place];
        let sequence = self.put(worker, held.work);
        let state = &mut self.workers[worker];
        state.held.remove(place);
        let (sequence, stored_before) = sequence;
        let work = Work {
            stored: Some(sequence),
            stored_before,
            ..held.work
        };
        self.tell_stored(worker, work);
        true
    }

    /// Stores the entry of an event, unless JetStream remembers it; says where, and whether it did.
    fn put(&mut self, worker: usize, work: Work) -> (u64, bool) {
        let of = &mut self.chats[work.chat];
        let known = of.stored.contains_key(&(work.event, work.first));
        let sequence = *of.stored.entry((work.event, work.first)).or_insert_with(|| {
            // Nobody waits for whoever is taken for dead, nor will hear of what it still stores.
            self.untold |= !self.workers[worker].registered;
            self.inbox.store(Entry {
                chat: Some(work.chat),
                event: self.events.then(|| event_number(work.chat, work.event)),
                bytes: self.bytes,
                unreadable: false,
            })
        });
        (sequence, known)
    }

    /// Whether an event lies in the inbox, to be read.
    fn is_stored(&self, event: u64) -> bool {
        self.inbox.stored.values().any(|entry| entry.event == Some(event))
    }

    pub(super) fn store(&mut self, worker: usize, chat: usize) -> bool {
        let state = &self.workers[worker];
        let place = state
            .works
            .iter()
            .position(|work| work.chat == chat && work.stored.is_none());
        // What is held of the chat is stored before.
        let (Some(place), false) = (place, state.held.iter().any(|held| held.work.chat == chat)) else {
            return false;
        };
        let (sequence, known) = self.put(worker, state.works[place]);
        let work = &mut self.workers[worker].works[place];
        work.stored_before = known;
        work.stored = Some(sequence);
        true
    }

    pub(super) fn notify(&mut self, worker: usize, chat: usize) -> bool {
        let state = &mut self.workers[worker];
        let place = state
            .works
            .iter()
            .position(|work| work.chat == chat && work.stored.is_some());
        let Some(place) = place else {
            return false;
        };
        let work = state.works.remove(place);
        self.tell_stored(worker, work);
        true
    }

    fn tell_stored(&mut self, worker: usize, work: Work) {
        let state = &mut self.workers[worker];
        let sequence = work.stored.expect("it was stored before");
        if !work.first && state.session > 0 {
            state.number += 1;
            state.lane.push_back(Told::Notice {
                number: state.number,
                chat: work.chat,
                tenure: work.tenure,
                sequence,
                stored_before: work.stored_before,
                connection: state.session,
            });
        }
        self.chats[work.chat].finished.insert(work.event);
    }

    pub(super) fn learn_session(&mut self, worker: usize) -> bool {
        let state = &mut self.workers[worker];
        let connection = self.gateway.connection;
        let learns = state.alive && std::mem::replace(&mut state.session, connection) < connection;
        if learns {
            state.grant = None;
            state
                .held
                .iter_mut()
                .for_each(|held| held.refused |= held.connection != connection);
        }
        learns
    }

    pub(super) fn learn_client(&mut self, worker: usize) -> bool {
        let state = &mut self.workers[worker];
        state.alive && !std::mem::replace(&mut state.client, true)
    }

    /// A beacon that says nothing new changes nothing, and is left out. It does not claim to know the client while it works on something that it looked up before.
    pub(super) fn beacon(&mut self, worker: usize) -> bool {
        let state = &mut self.workers[worker];
        if !state.alive || !state.registered {
            return false;
        }
        let moving = state.held.iter().any(|held| held.connection != state.session);
        let beacon = Told::Beacon {
            number: state.number,
            // Not before what was told elsewhere is stored.
            session: state.session - u64::from(moving),
            client: state.client && state.works.iter().all(|work| !work.first),
        };
        let news = state.lane.back() != Some(&beacon) && !self.gateway.heard[worker].knows(beacon);
        if news {
            state.lane.push_back(beacon);
        }
        news
    }

    pub(super) fn double(&mut self, worker: usize) -> bool {
        let lane = &mut self.workers[worker].lane;
        let Some(front) = lane.front().copied() else {
            return false;
        };
        lane.push_front(front);
        true
    }

    /// Not before it was heard: it tells beacons twice a second from its start.
    pub(super) fn die(&mut self, worker: usize) -> bool {
        let state = &mut self.workers[worker];
        if !state.alive || !self.gateway.heard[worker].any {
            return false;
        }
        state.works.clear();
        state.held.clear();
        state.answers.clear();
        state.alive = false;
        self.expel(worker);
        true
    }

    pub(super) fn expel(&mut self, worker: usize) -> bool {
        let state = &mut self.workers[worker];
        if !self.gateway.heard[worker].any || !std::mem::take(&mut state.registered) {
            return false;
        }
        if self.gateway.heard[worker].silent {
            self.gateway.suspect();
        }
        self.settle_fence();
        true
    }

    /// Another worker takes it over, or the reader of the same one begins anew.
    pub(super) fn hand(&mut self, chat: usize, to: usize) -> bool {
        let of = &mut self.chats[chat];
        if self.workers[to].registered {
            of.holder = to;
            of.tenure += 1;
        }
        self.workers[to].registered
    }

    /// Whether to begin with this chat is to accept another event.
    pub(in crate::inbox_session) fn is_idle(&self, chat: usize) -> bool {
        self.chats[chat].is_finished()
    }

    /// The numbers of the events that are finished.
    pub(super) fn finished_events(&self) -> impl Iterator<Item = u64> {
        let chats = self.chats.iter().enumerate();
        chats.flat_map(|(chat, of)| of.finished.iter().map(move |event| event_number(chat, *event)))
    }

    /// The workers end what they began, and the gateway hears it.
    pub(super) fn settle_workers(&mut self) {
        for worker in 0..self.workers.len() {
            for chat in 0..self.chats.len() {
                while self.apply(Move::Answered { worker }) {}
                while self.apply(Move::StoreHeld { worker, chat }) {}
                while self.apply(Move::Store { worker, chat }) || self.apply(Move::Notify { worker, chat }) {}
            }
            self.apply(Move::LearnSession { worker });
            self.apply(Move::LearnClient { worker });
            self.apply(Move::Beacon { worker });
            while self.apply(Move::Hear { worker }) {}
            if !self.workers[worker].registered {
                self.apply(Move::Silence { worker });
            }
        }
        for chat in 0..self.chats.len() {
            let of = &self.chats[chat];
            let (holder, open) = (of.holder, !of.is_finished());
            if !self.workers[holder].registered {
                let alive = self.workers.iter().position(|worker| worker.registered);
                if let Some(to) = alive {
                    self.apply(Move::Hand { chat, to });
                }
            } else if open {
                self.apply(Move::Begin { worker: holder, chat });
            }
        }
    }

    /// Nobody holds what it began, and all that was told was heard; a worker that is dead may have told in vain.
    pub(super) fn are_workers_done(&self) -> bool {
        let chats = self.chats.iter().all(|chat| {
            let held =
                self.workers[chat.holder].registered || self.workers.iter().all(|worker| !worker.registered);
            held && (chat.is_finished() || !self.workers[chat.holder].registered)
        });
        let mut workers = self.workers.iter().zip(&self.gateway.heard);
        chats
            && workers.all(|(worker, heard)| {
                worker.works.is_empty()
                    && worker.held.is_empty()
                    && worker.answers.is_empty()
                    && worker.lane.is_empty()
                    && if worker.registered {
                        heard.number == worker.number && !heard.silent
                    } else {
                        heard.silent || !heard.any
                    }
            })
    }
}

/// How many events a chat has at most.
const EVENTS: u64 = 1_000_000;

/// Unlike that of any other event, and greater than those of its chat before it.
const fn event_number(chat: usize, event: u64) -> u64 {
    chat as u64 * EVENTS + event
}

/// The chat of an event.
pub(super) const fn chat_of(event: u64) -> usize {
    (event / EVENTS) as usize
}
