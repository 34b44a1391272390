//! A small model of a pinned-client consumer of nats-server 2.15.1, as probed there: enough of it to be as unkind to
//! readers as the real one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use tidings_nats::{ConsumerStatus, DeliveryInfo};

/// As in `nats/definitions/fanout.json`.
const ACK_WAIT: Duration = Duration::from_secs(6);
const PIN_TIMEOUT: Duration = Duration::from_secs(5);
const ACK_PENDING_MAX: usize = 4_096;

/// Who listens: a worker's inbox of a generation.
pub(super) type Inbox = (usize, u64);

/// A pull request.
#[derive(Clone, Debug, Hash)]
pub(super) struct Request {
    pub(super) inbox: Inbox,
    pub(super) number: u64,
    pub(super) batch: u32,
    /// The request takes no message at all.
    pub(super) too_small: bool,
    pub(super) no_wait: bool,
    pub(super) expires: Duration,
    pub(super) pin: Option<String>,
}

/// What comes to an inbox.
#[derive(Clone, Debug, Hash)]
pub(super) enum Output {
    Delivered {
        pin: String,
        info: DeliveryInfo,
        chat: u64,
    },
    Status {
        number: u64,
        status: ConsumerStatus,
        unanswered: Option<u32>,
    },
}

/// See the module.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Consumer {
    /// What the stream holds: sequence and chat.
    pub(super) stored: BTreeMap<u64, u64>,
    pub(super) last: u64,
    next: u64,
    delivered: u64,
    pending: BTreeMap<u64, Instant>,
    redeliver: VecDeque<u64>,
    pin: Option<(String, Instant)>,
    pins: u64,
    waiting: VecDeque<(Request, Instant)>,
    pub(super) interest: BTreeSet<Inbox>,
    pub(super) outputs: Vec<(Inbox, Output)>,
}

impl Consumer {
    pub(super) fn publish(&mut self, chat: u64) -> u64 {
        self.last += 1;
        self.stored.insert(self.last, chat);
        self.last
    }

    pub(super) fn request(&mut self, mut request: Request, now: Instant) {
        if let Some((pin, until)) = &mut self.pin {
            if request.pin.as_ref() == Some(pin) {
                *until = now + PIN_TIMEOUT;
            } else if request.pin.is_some() {
                return self.status(&request, ConsumerStatus::NotPinned, None);
            }
        }
        if request.no_wait {
            if !self.has_next() {
                return self.status(&request, ConsumerStatus::Empty, None);
            }
            request.expires = Duration::ZERO;
        }
        let until = now + request.expires;
        self.waiting.push_back((request, until));
        self.deliver(now);
    }

    /// Deleted from the stream: there is nothing left to ack.
    pub(super) fn delete(&mut self, sequence: u64) {
        self.stored.remove(&sequence);
        self.pending.remove(&sequence);
        self.redeliver.retain(|other| *other != sequence);
    }

    pub(super) fn progress(&mut self, sequence: u64, now: Instant) {
        if let Some(until) = self.pending.get_mut(&sequence) {
            *until = now + ACK_WAIT;
        }
    }

    pub(super) fn reset(&mut self, now: Instant) {
        self.pending.clear();
        self.redeliver.clear();
        self.next = 1;
        self.delivered = 0;
        self.deliver(now);
    }

    /// What a worker does that waits in vain to be pinned.
    pub(super) fn look(&mut self, now: Instant) {
        if self.pin.is_none() && !self.stored.is_empty() {
            self.reset(now);
        }
    }

    pub(super) fn unpin(&mut self, now: Instant) {
        self.pin = None;
        self.deliver(now);
    }

    /// Another node leads: pins and requests are gone. What was pending stays so, or is forgotten with all that came
    /// before: what was on its way while the consumer was reset makes that of a replica (adr/0019).
    pub(super) fn change_leader(&mut self, forgetful: bool) {
        self.pin = None;
        if forgetful {
            self.pending.clear();
            self.redeliver.clear();
            self.next = self.last + 1;
            self.delivered = 0;
        }
        for (request, _) in std::mem::take(&mut self.waiting) {
            self.status(&request, ConsumerStatus::Ended, None);
        }
    }

    /// What time does.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.pin.as_ref().is_some_and(|(_, until)| now >= *until) {
            self.pin = None;
        }
        let late: Vec<u64> = self
            .pending
            .iter()
            .filter(|(sequence, until)| now >= **until && !self.redeliver.contains(sequence))
            .map(|(sequence, _)| *sequence)
            .collect();
        self.redeliver.extend(late);
        self.deliver(now);
        let mut rest = VecDeque::new();
        for (request, until) in std::mem::take(&mut self.waiting) {
            if now >= until {
                self.status(&request, ConsumerStatus::Expired, Some(request.batch));
            } else {
                rest.push_back((request, until));
            }
        }
        self.waiting = rest;
    }

    pub(super) fn pinned(&self) -> bool {
        self.pin.is_some()
    }

    fn has_next(&self) -> bool {
        !self.redeliver.is_empty() || self.stored.range(self.next.max(1)..).next().is_some()
    }

    fn deliver(&mut self, now: Instant) {
        while self.has_next() && (self.pending.len() < ACK_PENDING_MAX || !self.redeliver.is_empty()) {
            let Some(place) = self.next_request(now) else {
                return;
            };
            let again = self.redeliver.pop_front();
            let sequence = again.unwrap_or_else(|| {
                let (sequence, _) = self
                    .stored
                    .range(self.next.max(1)..)
                    .next()
                    .expect("there is a next one");
                *sequence
            });
            let Some(chat) = self.stored.get(&sequence).copied() else {
                self.pending.remove(&sequence);
                continue;
            };
            if again.is_none() {
                self.next = sequence + 1;
            }
            self.delivered += 1;
            self.pending.insert(sequence, now + ACK_WAIT);
            let (request, _) = &mut self.waiting[place];
            request.batch -= 1;
            let (inbox, done) = (request.inbox, request.batch == 0);
            if done {
                self.waiting.remove(place);
            }
            let info = DeliveryInfo {
                delivered: 1,
                stream_sequence: sequence,
                consumer_sequence: self.delivered,
                stored_at: sequence,
                pending: 0,
            };
            let pin = self
                .pin
                .as_ref()
                .expect("whoever gets a message is pinned")
                .0
                .clone();
            self.outputs.push((inbox, Output::Delivered { pin, info, chat }));
        }
    }

    /// The request that gets the next message; it is pinned then.
    fn next_request(&mut self, now: Instant) -> Option<usize> {
        let mut place = 0;
        while place < self.waiting.len() {
            let (request, until) = self.waiting[place].clone();
            let expired = now >= until && !request.no_wait;
            let held = self.pin.as_ref().map(|(pin, _)| pin.clone());
            let wrong = request.pin.is_some() && request.pin != held;
            if expired || !self.interest.contains(&request.inbox) {
                self.waiting.remove(place);
                if expired {
                    self.status(&request, ConsumerStatus::Expired, Some(request.batch));
                }
            } else if wrong {
                self.waiting.remove(place);
                self.status(&request, ConsumerStatus::NotPinned, None);
            } else if request.pin.is_none() && held.is_some() {
                place += 1;
            } else if request.too_small {
                self.waiting.remove(place);
                self.status(&request, ConsumerStatus::BatchDone, Some(request.batch));
            } else {
                if held.is_none() {
                    self.pins += 1;
                    let pin = format!("pin-{}", self.pins);
                    self.waiting[place].0.pin = Some(pin.clone());
                    self.pin = Some((pin, now + PIN_TIMEOUT));
                }
                return Some(place);
            }
        }
        None
    }

    fn status(&mut self, request: &Request, status: ConsumerStatus, unanswered: Option<u32>) {
        let output = Output::Status {
            number: request.number,
            status,
            unanswered,
        };
        self.outputs.push((request.inbox, output));
    }
}
