//! A small model of everything that an inbox session relies on: the inbox and its replicas, the workers and what they
//! know, the lanes of their notices, the gateway between, the client. It is as unkind as the real ones may be, and
//! after each step it checks what must always hold.

mod client;
mod gateway;
mod inbox;
mod workers;

use std::collections::BTreeSet;

use super::{Action, InboxSession, Input, Stored};

use self::client::Client;
use self::gateway::Gateway;
use self::inbox::Inbox;
pub(super) use self::workers::Told;
use self::workers::{Answer, Chat, Worker};

/// An entry of the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    /// None for a mark.
    pub(super) chat: Option<usize>,
    /// Which event it holds; None for a mark, and where events are not told apart.
    pub(super) event: Option<u64>,
    pub(super) bytes: usize,
    /// Of a version that this gateway does not know: it is kept and not delivered.
    pub(super) unreadable: bool,
}

/// One thing that can happen. What is not possible at the moment changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// A worker looks up the clients for the next event of a chat.
    Begin { worker: usize, chat: usize },
    /// It stores the entry.
    Store { worker: usize, chat: usize },
    /// It looks up the session, tells the gateway, and acks the event.
    Notify { worker: usize, chat: usize },
    /// It tells the gateway before it stores the entry, if that was granted.
    TellDirectly { worker: usize, chat: usize },
    /// It takes the next answer of the gateway.
    Answered { worker: usize },
    /// That answer is lost.
    LoseAnswer { worker: usize },
    /// It stores the first event of a chat that it holds, and tells the gateway.
    StoreHeld { worker: usize, chat: usize },
    /// It applies what stands in SESSIONS.
    LearnSession { worker: usize },
    /// It applies what stands in INVALIDATIONS.
    LearnClient { worker: usize },
    /// It tells how far it is.
    Beacon { worker: usize },
    /// The gateway takes the next message of a worker.
    Hear { worker: usize },
    /// That message is lost.
    Lose { worker: usize },
    /// It comes twice.
    Double { worker: usize },
    /// The worker is killed; what it sent is on its way.
    Die { worker: usize },
    /// The worker is frozen for so long that others take it for dead; what it began it may still end.
    Expel { worker: usize },
    /// The gateway has not heard of it for long.
    Silence { worker: usize },
    /// After a doubt about all sessions this one is checked.
    Clear,
    /// Another worker takes the chat's partition over.
    Hand { chat: usize, to: usize },
    /// The session takes the next thing that it is told.
    Mail,
    /// A replica that misses so many of the newest entries answers the reading, with so many entries at most.
    Answer { behind: usize, most: usize },
    /// It is said what follows, as of now.
    Finish,
    /// The session gets the answer.
    Return,
    /// The client confirms one of the outstanding deliveries.
    Confirm { place: usize },
    /// The client confirms everything up to one.
    ConfirmThrough { place: usize },
    /// The client confirms what is not outstanding.
    ConfirmWrongly { delivery: u64, through: bool },
    /// One of the confirmed entries is deleted.
    Delete { place: usize },
    /// The oldest entry is too old: a mark is stored instead of it.
    Expire,
    /// An entry that this gateway cannot read is stored.
    StoreUnreadable,
    /// An event is worked on again whose entry is confirmed and gone, and a server that has forgotten the entry's id
    /// stores it once more.
    StoreAgain,
    /// The gateway asks a replica that misses so many of the newest entries for the last sequence.
    Check { behind: usize },
    /// The gateway was reconnected, or the session has waited long for the fence.
    Doubt,
    /// The session has waited for more room than there is.
    Wait,
    /// The client connects again; the older session ends.
    Replace,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) session: InboxSession<u64>,
    pub(super) inbox: Inbox,
    pub(super) workers: Vec<Worker>,
    pub(super) chats: Vec<Chat>,
    pub(super) gateway: Gateway,
    pub(super) client: Client,
    /// Each entry has this size.
    pub(super) bytes: usize,
    /// Entries that nobody will tell of: only a check finds them.
    pub(super) untold: bool,
    /// Entries say which event they hold. The session remembers them in order, which makes many more states.
    pub(super) events: bool,
    /// Sessions grant direct delivery; events must be told apart for that.
    pub(super) direct: bool,
    /// The events that were shown, on whatever connection.
    shown: BTreeSet<u64>,
    /// Those that were too old, and need not be.
    expired: BTreeSet<u64>,
}

impl World {
    /// A session that has just begun, of a client that no worker knows.
    pub(super) fn new(workers: usize, chats: usize, bytes: usize) -> Self {
        let mut world = Self {
            session: InboxSession::new(),
            inbox: Inbox::default(),
            workers: vec![Worker::default(); workers],
            chats: (0..chats).map(|chat| Chat::held_by(chat % workers)).collect(),
            gateway: Gateway::new(workers),
            client: Client::new(chats),
            bytes,
            untold: false,
            events: false,
            direct: false,
            shown: BTreeSet::new(),
            expired: BTreeSet::new(),
        };
        world.tell(Input::Start);
        world
    }

    /// Does it, if it is possible, and says whether it was.
    pub(super) fn apply(&mut self, step: Move) -> bool {
        match step {
            Move::Begin { worker, chat } => self.begin(worker, chat),
            Move::Store { worker, chat } => self.store(worker, chat),
            Move::Notify { worker, chat } => self.notify(worker, chat),
            Move::TellDirectly { worker, chat } => self.tell_directly(worker, chat),
            Move::Answered { worker } => self.take_answer(worker),
            Move::LoseAnswer { worker } => self.workers[worker].answers.pop_front().is_some(),
            Move::StoreHeld { worker, chat } => self.store_held(worker, chat),
            Move::LearnSession { worker } => self.learn_session(worker),
            Move::LearnClient { worker } => self.learn_client(worker),
            Move::Beacon { worker } => self.beacon(worker),
            Move::Hear { worker } => self.hear(worker),
            Move::Lose { worker } => self.workers[worker].lane.pop_front().is_some(),
            Move::Double { worker } => self.double(worker),
            Move::Die { worker } => self.die(worker),
            Move::Expel { worker } => self.expel(worker),
            Move::Silence { worker } => self.silence(worker),
            Move::Clear => self.clear(),
            Move::Hand { chat, to } => self.hand(chat, to),
            Move::Mail => self.mail(),
            Move::Answer { behind, most } => self.inbox.answer(behind, most),
            Move::Finish => self.inbox.finish(),
            Move::Return => self.return_reading(),
            Move::Confirm { place } => self.confirm(place, false),
            Move::ConfirmThrough { place } => self.confirm(place, true),
            Move::ConfirmWrongly { delivery, through } => self.confirm_wrongly(delivery, through),
            Move::Delete { place } => self.inbox.delete(place),
            Move::Expire => self.expire(),
            Move::StoreUnreadable => {
                self.untold = true;
                let entry = Entry {
                    chat: None,
                    event: None,
                    bytes: self.bytes,
                    unreadable: true,
                };
                self.inbox.store(entry);
                true
            }
            Move::StoreAgain => self.store_again(),
            Move::Check { behind } => self.check(behind),
            Move::Doubt => {
                self.gateway.doubt();
                true
            }
            Move::Wait => {
                let waits = self.session.waits_for_room() && !self.is_full();
                if waits {
                    self.tell(Input::Waited);
                }
                waits
            }
            Move::Replace => self.replace(),
        }
    }

    /// Gives the session something to take, does what it wants, and checks what must hold after it.
    pub(super) fn tell(&mut self, input: Input<u64>) {
        let mut actions = Vec::new();
        self.session.handle(input, &mut actions);
        for action in actions {
            match action {
                Action::Deliver { delivery, body } if body >= gateway::DIRECT => {
                    let event = body - gateway::DIRECT;
                    self.shown.insert(event);
                    let entry = Entry {
                        chat: Some(workers::chat_of(event)),
                        event: Some(event),
                        bytes: self.bytes,
                        unreadable: false,
                    };
                    self.client.deliver(delivery, None, entry);
                }
                Action::Deliver { delivery, body } => {
                    let entry = self.inbox.any(body);
                    assert!(!entry.unreadable);
                    self.shown.extend(entry.event);
                    self.client.deliver(delivery, Some(body), entry);
                }
                Action::Delete { sequence } => {
                    self.client.check_delete(sequence, self.inbox.any(sequence).event);
                    self.inbox.deleting.insert(sequence);
                }
                Action::Read(reading) => self.inbox.ask(reading),
                Action::Confirmed { worker, event } => {
                    self.client.unsettled.remove(&event);
                    self.answer(gateway::worker_of(worker), Answer::Confirmed(event));
                }
                Action::Refused { worker, event } => {
                    self.answer(gateway::worker_of(worker), Answer::Refused(event));
                }
                Action::CaughtUp => {
                    let due = self.gateway.fence_at.expect("it is caught up after the fence");
                    let due = self.inbox.readable(..=due);
                    let due = due.map(|sequence| (sequence, self.inbox.any(sequence).event));
                    self.client.catch_up(due);
                }
                Action::UnknownDelivery(delivery) => {
                    assert!(self.client.takes_unknown(delivery), "{delivery} is outstanding");
                }
            }
        }
        self.check_session();
    }

    fn check_session(&self) {
        let session = &self.session;
        for sequence in self.inbox.readable(..=session.floor) {
            assert!(
                self.client.has(sequence, self.inbox.any(sequence).event),
                "the floor {} has passed {sequence}, which is stored and not delivered",
                session.floor
            );
        }
        assert!(session.above.len() <= super::ABOVE_MAX + 1);
        assert!(session.above.iter().all(|sequence| *sequence > session.floor));
        assert!(session.held_back.len() <= super::HELD_BACK_MAX);
        assert!(session.reading.is_none() || self.inbox.reading.is_some());
    }

    fn return_reading(&mut self) -> bool {
        let Some(read) = self.inbox.take_reading() else {
            return false;
        };
        let entries = read
            .entries
            .into_iter()
            .filter(|(_, entry)| !entry.unreadable)
            .map(|(sequence, entry)| stored(sequence, entry))
            .collect();
        self.tell(Input::Read {
            entries,
            through: read.through,
            complete: read.complete,
        });
        true
    }

    fn confirm(&mut self, place: usize, through: bool) -> bool {
        let Some(delivery) = self.client.confirm(place, through) else {
            return false;
        };
        self.tell(if through {
            Input::ReceivedThrough(delivery)
        } else {
            Input::Received(delivery)
        });
        let open = self.client.confirmed.difference(&self.client.deleted).count();
        assert_eq!(open, 0, "what was confirmed is deleted");
        let unsettled = &self.client.unsettled;
        assert!(
            unsettled.is_empty(),
            "nobody hears that {unsettled:?} are confirmed"
        );
        true
    }

    fn confirm_wrongly(&mut self, delivery: u64, through: bool) -> bool {
        if !self.client.expect_unknown(delivery, through) {
            return false;
        }
        self.tell(if through {
            Input::ReceivedThrough(delivery)
        } else {
            Input::Received(delivery)
        });
        assert!(self.client.unknown.is_none(), "{delivery} is not outstanding");
        true
    }

    fn check(&mut self, behind: usize) -> bool {
        let Some(last) = self.inbox.last_stored(behind) else {
            return false;
        };
        self.gateway.tell(gateway::Mail::Checked(last));
        true
    }

    fn expire(&mut self) -> bool {
        let Some(oldest) = self.inbox.stored.keys().next().copied() else {
            return false;
        };
        // A mark that takes the place of a mark is stored before that one is deleted, as any other.
        let mark = Entry {
            chat: None,
            event: None,
            bytes: self.bytes,
            unreadable: false,
        };
        self.inbox.store(mark);
        self.expired.extend(self.inbox.any(oldest).event);
        self.inbox.remove(oldest);
        self.untold = true;
        true
    }

    fn store_again(&mut self) -> bool {
        let Some(entry) = self.inbox.newest_gone(&self.client.known) else {
            return false;
        };
        self.inbox.store(entry);
        self.untold = true;
        true
    }

    fn replace(&mut self) -> bool {
        self.refuse_all();
        self.session = InboxSession::new();
        self.inbox.reading = None;
        self.client.reconnect();
        self.gateway.replace();
        self.tell(Input::Start);
        self.settle_fence();
        true
    }

    /// Everybody is well again: runs until nothing moves, and checks that everything came to its end, also where the
    /// client waits for more before it confirms anything.
    pub(super) fn settle(&mut self) {
        self.clone().settle_with(false);
        self.settle_with(true);
    }

    fn settle_with(&mut self, confirming: bool) {
        self.settle_some(confirming);
        // What a worker stored and did not tell of, the next one tells of when it works on the event; if there is one.
        self.untold |= self.workers.iter().all(|worker| !worker.registered);
        if self.untold {
            // What nobody tells of is found by the check.
            self.apply(Move::Check { behind: 0 });
            self.settle_some(confirming);
        }
        if confirming {
            self.check_settled();
        } else {
            self.check_delivered();
        }
    }

    fn settle_some(&mut self, confirming: bool) {
        for _ in 0..100 {
            let done = if confirming {
                self.is_done() && self.client.outstanding.is_empty()
            } else {
                self.is_full() || (self.is_done() && !self.session.waits_for_room())
            };
            if done && self.is_calm() {
                return;
            }
            self.settle_workers();
            self.settle_session();
            if confirming {
                self.apply(Move::ConfirmThrough { place: usize::MAX });
            } else {
                self.apply(Move::Wait);
            }
            while self.apply(Move::Delete { place: 0 }) {}
        }
        panic!("it does not come to rest: {:?}", self.session);
    }

    fn settle_session(&mut self) {
        self.apply(Move::Clear);
        while self.apply(Move::Mail) {}
        self.apply(Move::Answer {
            behind: 0,
            most: usize::MAX,
        });
        self.apply(Move::Finish);
        self.apply(Move::Return);
    }

    /// Nothing is under way at the session.
    fn is_calm(&self) -> bool {
        self.inbox.is_calm() && self.gateway.is_calm()
    }

    /// The workers have done everything, and the gateway has heard it.
    fn is_done(&self) -> bool {
        self.session.is_live() && self.are_workers_done()
    }

    /// Whatever there is room for is delivered.
    fn check_delivered(&self) {
        let mut stored = self.inbox.readable(..);
        let waits = stored.any(|sequence| !self.client.has(sequence, self.inbox.any(sequence).event));
        assert!(
            !waits || self.is_full(),
            "the client is to wait, and nobody says so"
        );
    }

    /// The client must confirm something. An entry that is larger than real ones is not waited for in vain.
    fn is_full(&self) -> bool {
        self.session.is_full() || !self.session.window.has_room(self.bytes)
    }

    fn check_settled(&self) {
        let left: Vec<u64> = self.inbox.readable(..).collect();
        assert_eq!(left, Vec::<u64>::new(), "stored and not delivered");
        assert!(self.client.caught_up, "no word that it is caught up");
        if self.events {
            for event in self.finished_events() {
                let due = self.shown.contains(&event) || self.expired.contains(&event);
                assert!(due, "{event} is finished and was never shown");
            }
        }
        assert!(!self.session.is_full());
    }
}

/// An entry as the session sees it.
pub(super) fn stored(sequence: u64, entry: Entry) -> Stored<u64> {
    Stored {
        sequence,
        bytes: entry.bytes,
        event: entry.event,
        body: sequence,
    }
}
