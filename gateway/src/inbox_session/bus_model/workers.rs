//! The fan-out workers: each works on the chats it holds, with its own view of who is there.

use std::collections::{BTreeMap, VecDeque};

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
    Beacon {
        number: u64,
        session: u64,
        client: bool,
    },
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
        }
    }
}

/// A chat, which is a partition of its own here, and its events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::inbox_session) struct Chat {
    holder: usize,
    /// Counts the readers that have held it, one after the other.
    tenure: u64,
    accepted: u64,
    acked: u64,
    /// Where an event was stored, by the id that JetStream remembers.
    stored: BTreeMap<(u64, bool), u64>,
}

impl Chat {
    pub(super) const fn held_by(holder: usize) -> Self {
        Self {
            holder,
            tenure: 0,
            accepted: 0,
            acked: 0,
            stored: BTreeMap::new(),
        }
    }
}

impl World {
    pub(super) fn begin(&mut self, worker: usize, chat: usize) -> bool {
        let (state, of) = (&mut self.workers[worker], &mut self.chats[chat]);
        let busy = state.works.iter().any(|work| work.chat == chat);
        if !state.alive || !state.registered || of.holder != worker || busy {
            return false;
        }
        of.accepted = of.accepted.max(of.acked + 1);
        state.works.push(Work {
            chat,
            tenure: of.tenure,
            event: of.acked,
            first: !state.client,
            stored: None,
            stored_before: false,
        });
        true
    }

    pub(super) fn store(&mut self, worker: usize, chat: usize) -> bool {
        let state = &mut self.workers[worker];
        let Some(work) = state
            .works
            .iter_mut()
            .find(|work| work.chat == chat && work.stored.is_none())
        else {
            return false;
        };
        let of = &mut self.chats[chat];
        work.stored_before = of.stored.contains_key(&(work.event, work.first));
        let sequence = *of.stored.entry((work.event, work.first)).or_insert_with(|| {
            // Nobody waits for whoever is taken for dead, nor will hear of what it still stores.
            self.untold |= !state.registered;
            self.inbox.store(Entry {
                chat: Some(chat),
                event: self.events.then(|| event_number(chat, work.event)),
                bytes: self.bytes,
                unreadable: false,
            })
        });
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
        let sequence = work.stored.expect("it was just looked at");
        if !work.first && state.session > 0 {
            state.number += 1;
            state.lane.push_back(Told::Notice {
                number: state.number,
                chat,
                tenure: work.tenure,
                sequence,
                stored_before: work.stored_before,
                connection: state.session,
            });
        }
        let of = &mut self.chats[chat];
        of.acked = of.acked.max(work.event + 1);
        true
    }

    pub(super) fn learn_session(&mut self, worker: usize) -> bool {
        let state = &mut self.workers[worker];
        state.alive
            && std::mem::replace(&mut state.session, self.gateway.connection) < self.gateway.connection
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
        let beacon = Told::Beacon {
            number: state.number,
            session: state.session,
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
        self.chats[chat].acked == self.chats[chat].accepted
    }

    /// The workers end what they began, and the gateway hears it.
    pub(super) fn settle_workers(&mut self) {
        for worker in 0..self.workers.len() {
            for chat in 0..self.chats.len() {
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
            let (holder, open) = (of.holder, of.acked < of.accepted);
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
            held && (chat.acked == chat.accepted || !self.workers[chat.holder].registered)
        });
        let mut workers = self.workers.iter().zip(&self.gateway.heard);
        chats
            && workers.all(|(worker, heard)| {
                worker.works.is_empty()
                    && worker.lane.is_empty()
                    && if worker.registered {
                        heard.number == worker.number && !heard.silent
                    } else {
                        heard.silent || !heard.any
                    }
            })
    }
}

/// Unlike that of any other event.
fn event_number(chat: usize, event: u64) -> u64 {
    chat as u64 * 1_000_000 + event
}
