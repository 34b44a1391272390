//! The gateway between the lanes and the session, as `live.rs`, `workers.rs` and `mailbox.rs` are.

use std::collections::{BTreeMap, VecDeque};

use crate::inbox_session::{Direct, Input};

use super::workers::Answer;
use super::{Told, World, stored};

/// The real one has room for 256.
const MAILBOX_MAX: usize = 6;

/// What waits for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mail {
    Notice { worker: usize, sequence: u64 },
    Direct { worker: usize, event: u64, grant: u32 },
    FencePassed,
    Checked(u64),
}

/// What was heard of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Heard {
    pub(super) any: bool,
    pub(super) number: u64,
    session: u64,
    client: bool,
    pub(super) silent: bool,
}

impl Heard {
    /// Whether a beacon says nothing new.
    pub(super) fn knows(&self, told: Told) -> bool {
        let Told::Beacon {
            number,
            session,
            client,
        } = told
        else {
            return false;
        };
        self.any && !self.silent && (self.number, self.session, self.client) == (number, session, client)
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::inbox_session) struct Gateway {
    pub(super) heard: Vec<Heard>,
    /// The latest lane of each worker in each chat, and the stamp of its beginning.
    lanes: BTreeMap<(usize, usize), (u64, u64)>,
    stamp: u64,
    /// The session's connection, which is also its revision in SESSIONS.
    pub(super) connection: u64,
    /// The last sequence when the fence had passed.
    pub(super) fence_at: Option<u64>,
    mail: VecDeque<Mail>,
    doubt: bool,
    /// The session reads, or has read, after this stamp was given.
    read_stamp: u64,
    /// After a doubt about all sessions, until the session is checked: a notice is a reason to read.
    suspected: bool,
    granted: bool,
    withdraw: bool,
}

impl Gateway {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            heard: vec![Heard::default(); workers],
            lanes: BTreeMap::new(),
            stamp: 0,
            connection: 1,
            fence_at: None,
            mail: VecDeque::new(),
            doubt: false,
            read_stamp: 0,
            suspected: false,
            granted: false,
            withdraw: false,
        }
    }

    fn withdraw(&mut self) {
        self.withdraw |= std::mem::take(&mut self.granted);
    }

    /// The session must read: notices that wait are found by that.
    pub(super) fn doubt(&mut self) {
        self.doubt = true;
        self.suspected = false;
        self.mail.retain(|mail| !matches!(mail, Mail::Notice { .. }));
    }

    fn notices(&self) -> usize {
        let notices = self.mail.iter();
        notices
            .filter(|mail| matches!(mail, Mail::Notice { .. } | Mail::Direct { .. }))
            .count()
    }

    /// Something may have been lost of some session, perhaps of this one.
    pub(super) fn suspect(&mut self) {
        if self.notices() > 0 {
            self.doubt();
        } else {
            self.suspected |= !self.doubt;
        }
    }

    pub(super) fn tell(&mut self, mail: Mail) {
        self.mail.push_back(mail);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.mail.is_empty() && !self.doubt && !self.suspected && !self.withdraw
    }

    pub(super) fn replace(&mut self) {
        self.connection += 1;
        self.fence_at = None;
        self.mail.clear();
        (self.doubt, self.suspected) = (false, false);
        (self.granted, self.withdraw) = (false, false);
        self.read_stamp = 0;
    }

    fn count(&mut self, worker: usize, number: u64, beacon: bool) {
        let heard = &mut self.heard[worker];
        (heard.any, heard.silent) = (true, false);
        if number > heard.number + u64::from(!beacon) {
            self.suspect();
        }
        self.heard[worker].number = self.heard[worker].number.max(number);
    }

    /// The stamp of a notice's lane.
    fn stamp(&mut self, worker: usize, chat: usize, tenure: u64) -> u64 {
        let next = self.stamp + 1;
        let lane = self.lanes.entry((worker, chat)).or_insert((tenure, next));
        if lane.0 < tenure {
            *lane = (tenure, next);
        }
        self.stamp = self.stamp.max(lane.1);
        lane.1
    }

    fn deliver(&mut self, worker: usize, sequence: u64, stamp: u64, stored_before: bool) {
        let in_order = stamp <= self.read_stamp && !self.suspected;
        if !self.doubt && in_order && !stored_before && self.notices() < MAILBOX_MAX {
            self.tell(Mail::Notice { worker, sequence });
            return;
        }
        // The reading that follows is after every lane that has begun.
        self.read_stamp = self.stamp;
        self.doubt();
    }

    /// Whether it is taken.
    fn deliver_directly(&mut self, worker: usize, event: u64, stamp: u64, grant: u32) -> bool {
        let in_order = stamp <= self.read_stamp && !self.suspected;
        let taken = !self.doubt && in_order && self.notices() < MAILBOX_MAX;
        if taken {
            self.tell(Mail::Direct { worker, event, grant });
        } else {
            self.withdraw();
        }
        taken
    }
}

impl World {
    pub(super) fn hear(&mut self, worker: usize) -> bool {
        let Some(told) = self.workers[worker].lane.pop_front() else {
            return false;
        };
        let gateway = &mut self.gateway;
        match told {
            Told::Notice {
                number,
                chat,
                tenure,
                sequence,
                stored_before,
                connection,
            } => {
                gateway.count(worker, number, false);
                let stamp = gateway.stamp(worker, chat, tenure);
                if connection == gateway.connection {
                    gateway.deliver(worker, sequence, stamp, stored_before);
                }
            }
            Told::Direct {
                number,
                chat,
                tenure,
                event,
                connection,
                grant,
            } => {
                gateway.count(worker, number, false);
                let stamp = gateway.stamp(worker, chat, tenure);
                if connection != gateway.connection || !gateway.deliver_directly(worker, event, stamp, grant)
                {
                    self.answer(worker, Answer::Refused(event));
                }
            }
            Told::Beacon {
                number,
                session,
                client,
            } => {
                gateway.count(worker, number, true);
                gateway.heard[worker].session = session;
                gateway.heard[worker].client = client;
                self.settle_fence();
            }
        }
        true
    }

    pub(super) fn silence(&mut self, worker: usize) -> bool {
        let heard = &mut self.gateway.heard[worker];
        if !heard.any || heard.silent {
            return false;
        }
        heard.silent = true;
        self.gateway.suspect();
        self.settle_fence();
        true
    }

    /// The leader's last sequence, asked for after the doubt, clears the session.
    pub(super) fn clear(&mut self) -> bool {
        let last = self.inbox.last_stored(0);
        let suspected = std::mem::take(&mut self.gateway.suspected);
        if suspected {
            self.gateway.withdraw();
        }
        if let Some(last) = last.filter(|_| suspected) {
            self.gateway.tell(Mail::Checked(last));
        }
        suspected
    }

    /// Whoever is registered must have passed, and whoever was heard lately.
    pub(super) fn settle_fence(&mut self) {
        let gateway = &mut self.gateway;
        let passed = self.workers.iter().zip(&gateway.heard).all(|(worker, heard)| {
            let passed = heard.any && heard.session >= gateway.connection && heard.client;
            passed || (!worker.registered && (heard.silent || !heard.any))
        });
        if passed && gateway.fence_at.is_none() {
            gateway.fence_at = Some(self.inbox.last);
            gateway.read_stamp = gateway.stamp;
            gateway.tell(Mail::FencePassed);
        }
    }

    pub(super) fn mail(&mut self) -> bool {
        if std::mem::take(&mut self.gateway.doubt) {
            self.tell(Input::Doubt);
            return true;
        }
        if std::mem::take(&mut self.gateway.withdraw) {
            self.tell(Input::Withdraw);
            return true;
        }
        let Some(mail) = self.gateway.mail.pop_front() else {
            return false;
        };
        let input = match mail {
            Mail::Notice { worker, sequence } => {
                self.tell(Input::Notice(stored(sequence, self.inbox.any(sequence))));
                self.grant(worker);
                return true;
            }
            Mail::Direct { worker, event, grant } => Input::Direct(Direct {
                worker: boot_id(worker),
                event,
                grant,
                bytes: self.bytes,
                body: DIRECT + event,
            }),
            Mail::FencePassed => Input::FencePassed,
            Mail::Checked(last) => Input::Checked(last),
        };
        self.tell(input);
        true
    }

    /// What a worker has told of was stored before: from now on it need not be.
    fn grant(&mut self, worker: usize) {
        if !self.direct {
            return;
        }
        if let Some(grant) = self.session.grant() {
            self.gateway.granted = true;
            let connection = self.gateway.connection;
            self.answer(worker, Answer::Granted { connection, grant });
        }
    }

    /// One that is dead is answered in vain.
    pub(super) fn answer(&mut self, worker: usize, answer: Answer) {
        if self.workers[worker].is_alive() {
            self.workers[worker].answers.push_back(answer);
        }
    }

    /// The session ends: what was told directly and is not confirmed must be stored.
    pub(super) fn refuse_all(&mut self) {
        let open: Vec<(uuid::Uuid, u64)> = self.session.directs().collect();
        for (worker, event) in open {
            self.answer(worker_of(worker), Answer::Refused(event));
        }
        let mail: Vec<Mail> = self.gateway.mail.iter().copied().collect();
        for mail in mail {
            if let Mail::Direct { worker, event, .. } = mail {
                self.answer(worker, Answer::Refused(event));
            }
        }
    }
}

/// What is delivered directly has its event's number beyond this, where others have their sequences.
pub(super) const DIRECT: u64 = 1 << 40;

pub(super) fn boot_id(worker: usize) -> uuid::Uuid {
    uuid::Uuid::from_u128(worker as u128)
}

pub(super) fn worker_of(boot_id: uuid::Uuid) -> usize {
    boot_id.as_u128() as usize
}
