//! What was sent and what arrived: every message, every copy of it. Pure; times are given, from the start of the
//! load.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidings_protocol::{CLIENTS_MAX, PARTICIPANTS_MAX};

use super::latency::Latencies;
use super::plan::{Plan, Send};
use super::series::Series;

/// Messages of one run: 8 bytes are kept of each, so this is 800 MB.
pub(crate) const MESSAGES_MAX: usize = 100_000_000;
/// Words of 64 bits that have a bit for each client that may get a message.
const COPIES_WORDS: usize = (PARTICIPANTS_MAX * CLIENTS_MAX).div_ceil(64);

/// What became of a message, as its sender was told.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Fate {
    Unanswered,
    Accepted,
    Refused,
}

/// What a client got.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Delivered {
    /// Which client.
    pub(crate) client: u32,
    /// The message's number; none if it is not a message of this load.
    pub(crate) number: Option<usize>,
    /// Its place in the chat.
    pub(crate) seq: u64,
    /// It has the right text and the right chat.
    pub(crate) intact: bool,
    /// The client may have had it before: on a connection that broke before it was confirmed, or just after.
    pub(crate) again: bool,
}

/// What a note has brought to an end, for whoever sends when something ends.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The sender has just been told what became of the message.
    pub(crate) answered: bool,
    /// Nothing of the message is under way any more.
    pub(crate) message: bool,
}

/// The sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tally {
    /// Messages that were handed to a socket.
    pub(crate) sent: u64,
    /// Of those, with SUCCESS.
    pub(crate) accepted: u64,
    /// With FAILURE; by code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Neither, to the end.
    pub(crate) unanswered: u64,
    /// Copies of accepted messages: one for each client of a member but the one that sent it.
    pub(crate) expected: u64,
    /// Of those, how many came.
    pub(crate) received: u64,
    /// Of those, how many did not.
    pub(crate) missing: u64,
    /// Copies that came once more.
    pub(crate) duplicate: u64,
    /// Copies that came once more because a connection broke before they were confirmed, or just after; allowed.
    pub(crate) redelivered: u64,
    /// Copies that came after one of the same chat with a higher `seq`.
    pub(crate) out_of_order: u64,
    /// Messages of this load with a wrong text, in a wrong chat or at somebody whom they are not for.
    pub(crate) wrong: u64,
    /// Copies of messages that were refused or not answered: allowed after `unavailable`.
    pub(crate) unaccepted: u64,
}

/// Latencies of measured messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// From a message's start until its sender was told.
    pub(crate) accept: Latencies,
    /// From a message's start until a recipient had it.
    pub(crate) delivery: Latencies,
    /// From a message's start until it was written to the socket: the load generator's own share.
    pub(crate) lag: Latencies,
}

/// Which of the possible recipients have a message.
#[derive(Copy, Clone, Debug, Default)]
struct Copies([u64; COPIES_WORDS]);

/// A message that is not over: something of it may come yet.
#[derive(Copy, Clone, Debug)]
struct Open {
    start: Duration,
    measured: bool,
    fate: Fate,
    copies: Copies,
}

/// See the module. Of a message that is over, only to whom it went is kept.
#[derive(Debug)]
pub(crate) struct Ledger {
    plan: Arc<Plan>,
    /// By number.
    sends: Vec<Send>,
    /// By number. A refused message stays, since copies of it are allowed.
    open: HashMap<usize, Open>,
    /// The highest `seq`, by chat and client in it.
    highest: Vec<u64>,
    /// Clients in each chat.
    seats: usize,
    tally: Tally,
    /// First copies, of whatever message.
    came: u64,
    /// Copies of accepted messages that have not come.
    outstanding: u64,
    measured: Measured,
    /// Deliveries by the second, of whatever message.
    series: Series,
}

impl Copies {
    /// Whether it is the first one there.
    fn insert(&mut self, position: usize) -> bool {
        let (word, bit) = (&mut self.0[position / 64], 1 << (position % 64));
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

impl Ledger {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        let seats = plan.seats() as usize;
        Self {
            sends: Vec::new(),
            open: HashMap::new(),
            highest: vec![0; plan.chats.len() * seats],
            seats,
            plan,
            tally: Tally::default(),
            came: 0,
            outstanding: 0,
            measured: Measured::default(),
            series: Series::default(),
        }
    }

    /// A message begins: it is due, or about to be sent. Gives its number.
    pub(crate) fn begin(&mut self, send: Send, start: Duration, measured: bool) -> usize {
        let number = self.sends.len();
        self.sends.push(send);
        let open = Open {
            start,
            measured,
            fate: Fate::Unanswered,
            copies: Copies::default(),
        };
        self.open.insert(number, open);
        number
    }

    /// The message of a number, if it has begun.
    pub(crate) fn send(&self, number: usize) -> Option<Send> {
        self.sends.get(number).copied()
    }

    /// A message was written to its sender's socket.
    pub(crate) fn sent(&mut self, number: usize, at: Duration) {
        self.tally.sent += 1;
        if let Some(open) = self.open.get(&number).filter(|open| open.measured) {
            self.measured.lag.record(at.saturating_sub(open.start));
        }
    }

    /// Its sender got SUCCESS.
    pub(crate) fn accepted(&mut self, number: usize, at: Duration) -> Ended {
        let Some(open) = self.answered(number, Fate::Accepted) else {
            return Ended::default();
        };
        self.tally.accepted += 1;
        let missing = self.seats as u64 - 1 - open.copies.count();
        self.outstanding += missing;
        if open.measured {
            self.measured.accept.record(at.saturating_sub(open.start));
        }
        if missing == 0 {
            self.open.remove(&number);
        }
        Ended {
            answered: true,
            message: missing == 0,
        }
    }

    /// Its sender got FAILURE.
    pub(crate) fn refused(&mut self, number: usize, code: &str) -> Ended {
        if self.answered(number, Fate::Refused).is_none() {
            return Ended::default();
        }
        *self.tally.refused.entry(code.to_owned()).or_default() += 1;
        Ended {
            answered: true,
            message: true,
        }
    }

    /// The message as it is now, if this is its first answer.
    fn answered(&mut self, number: usize, fate: Fate) -> Option<Open> {
        let open = self.open.get_mut(&number)?;
        (open.fate == Fate::Unanswered).then(|| {
            open.fate = fate;
            *open
        })
    }

    /// A message came.
    pub(crate) fn delivered(&mut self, delivered: &Delivered, at: Duration) -> Ended {
        // Of an earlier run, then, or of somebody else's.
        let Some(number) = delivered.number else {
            return Ended::default();
        };
        let position = self.position(number, delivered);
        let Some((chat, position)) = position.filter(|_| delivered.intact) else {
            self.tally.wrong += 1;
            return Ended::default();
        };
        // Of a message that is over, everybody has a copy.
        let open = self.open.get_mut(&number);
        let first = open.and_then(|open| open.copies.insert(position).then_some(*open));
        let Some(open) = first else {
            if delivered.again {
                self.tally.redelivered += 1;
            } else {
                self.tally.duplicate += 1;
            }
            return Ended::default();
        };
        self.came += 1;
        let highest = &mut self.highest[chat as usize * self.seats + position];
        if delivered.seq < *highest {
            self.tally.out_of_order += 1;
        }
        *highest = delivered.seq.max(*highest);
        let latency = at.saturating_sub(open.start);
        self.series.record(at, latency);
        if open.measured {
            self.measured.delivery.record(latency);
        }
        if open.fate != Fate::Accepted {
            return Ended::default();
        }
        self.outstanding -= 1;
        let message = open.copies.count() == self.seats as u64 - 1;
        if message {
            self.open.remove(&number);
        }
        Ended {
            answered: false,
            message,
        }
    }

    /// The chat, and where the client stands in it, if the message is for that client.
    fn position(&self, number: usize, delivered: &Delivered) -> Option<(u32, usize)> {
        let send = self.send(number)?;
        let position = self.plan.position(send.chat, delivered.client)?;
        (position != send.position as usize).then_some((send.chat, position))
    }

    /// First copies so far, of whatever message.
    pub(crate) const fn came(&self) -> u64 {
        self.came
    }

    /// Whether every message that has begun is answered and every copy of the accepted ones has come.
    pub(crate) fn is_complete(&self) -> bool {
        let (answered, _) = self.so_far();
        answered == self.sends.len() as u64 && self.outstanding == 0
    }

    /// Messages written so far.
    pub(crate) const fn sent_so_far(&self) -> u64 {
        self.tally.sent
    }

    /// Messages answered so far, and copies that the accepted ones must lead to.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        let refused: u64 = self.tally.refused.values().sum();
        (
            self.tally.accepted + refused,
            self.tally.accepted * (self.seats as u64 - 1),
        )
    }

    /// Deliveries by the second, up to this moment.
    pub(crate) fn series(&mut self, now: Duration) -> &Series {
        self.series.reach(now);
        &self.series
    }

    /// Latencies of measured messages since this was last asked.
    pub(crate) fn take_measured(&mut self) -> Measured {
        std::mem::take(&mut self.measured)
    }

    /// The sums.
    pub(crate) fn tally(&self) -> Tally {
        let (answered, expected) = self.so_far();
        let unaccepted = self.open.values().filter(|open| open.fate != Fate::Accepted);
        let unaccepted = unaccepted.map(|open| open.copies.count()).sum();
        let received = self.came - unaccepted;
        Tally {
            unanswered: self.sends.len() as u64 - answered,
            expected,
            received,
            missing: expected - received,
            unaccepted,
            ..self.tally.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Shape;
    use super::*;

    /// With four messages, of which the first is not measured, a tenth of a second apart.
    fn ledger() -> Ledger {
        let shape = Shape {
            clients: 3,
            devices: 1,
            chats: 1,
            members: 3,
            seed: 3,
        };
        let plan = Arc::new(Plan::new(&shape).expect("possible"));
        let mut sends = plan.sends();
        let mut ledger = Ledger::new(plan);
        for number in 0..4 {
            assert_eq!(ledger.begin(sends.draw(), start(number), number > 0), number);
        }
        ledger
    }

    fn start(number: usize) -> Duration {
        Duration::from_millis(100) * number as u32
    }

    fn sender(ledger: &Ledger, number: usize) -> u32 {
        ledger.plan.sender(ledger.sends[number])
    }

    fn recipients(ledger: &Ledger, number: usize) -> Vec<u32> {
        let sender = sender(ledger, number);
        (0..3).filter(|client| *client != sender).collect()
    }

    fn deliver(ledger: &mut Ledger, client: u32, number: usize, seq: u64) -> Ended {
        let delivered = Delivered {
            client,
            number: Some(number),
            seq,
            intact: true,
            again: false,
        };
        ledger.delivered(&delivered, start(number) + Duration::from_millis(7))
    }

    #[test]
    fn a_run_without_a_fault_has_none() {
        let mut ledger = ledger();
        for number in 0..4 {
            assert!(!ledger.is_complete());
            ledger.sent(number, start(number));
            // A copy may be faster than the reply.
            for client in recipients(&ledger, number) {
                assert_eq!(
                    deliver(&mut ledger, client, number, number as u64 + 1),
                    Ended::default()
                );
            }
            let over = Ended {
                answered: true,
                message: true,
            };
            assert_eq!(
                ledger.accepted(number, start(number) + Duration::from_millis(5)),
                over
            );
        }
        let expected = Tally {
            sent: 4,
            accepted: 4,
            expected: 8,
            received: 8,
            ..Tally::default()
        };
        assert_eq!(ledger.tally(), expected);
        assert!(ledger.is_complete() && ledger.open.is_empty());
        assert_eq!(ledger.series(Duration::from_secs(1)).points()[0].deliveries, 8);
        // The first message is of the warm-up.
        let measured = ledger.take_measured();
        assert_eq!(measured.accept.percentiles().count, 3);
        let delivery = measured.delivery.percentiles();
        assert_eq!(delivery.count, 6);
        assert!((delivery.p50 - 7.0).abs() < 0.01, "{delivery:?}");
        assert_eq!(ledger.take_measured().delivery.percentiles().count, 0);
    }

    #[test]
    fn a_message_is_over_when_it_is_answered_and_everybody_has_it() {
        let mut ledger = ledger();
        let answered = ledger.accepted(0, Duration::from_secs(1));
        assert_eq!((answered.answered, answered.message), (true, false));
        let [one, other] = recipients(&ledger, 0)[..] else {
            panic!("two of three");
        };
        assert!(!deliver(&mut ledger, one, 0, 1).message);
        assert!(!deliver(&mut ledger, one, 0, 1).message);
        assert!(deliver(&mut ledger, other, 0, 1).message);
        // Also when nothing of it is kept any more.
        deliver(&mut ledger, other, 0, 1);
        let own = sender(&ledger, 0);
        deliver(&mut ledger, own, 0, 1);
        let tally = ledger.tally();
        assert_eq!((tally.duplicate, tally.wrong), (2, 1));
        assert!(ledger.refused(1, "unavailable").message);
        assert_eq!(ledger.refused(1, "unavailable"), Ended::default());
    }

    #[test]
    fn what_a_broken_connection_brings_again_is_no_duplicate() {
        let mut ledger = ledger();
        ledger.accepted(0, Duration::from_secs(1));
        let client = recipients(&ledger, 0)[0];
        let mut delivered = Delivered {
            client,
            number: Some(0),
            seq: 1,
            intact: true,
            again: true,
        };
        // It may have got lost instead of coming, and then is the first one.
        ledger.delivered(&delivered, Duration::from_secs(1));
        assert_eq!((ledger.tally().received, ledger.tally().redelivered), (1, 0));
        ledger.delivered(&delivered, Duration::from_secs(1));
        delivered.again = false;
        ledger.delivered(&delivered, Duration::from_secs(1));
        let tally = ledger.tally();
        assert_eq!((tally.received, tally.redelivered, tally.duplicate), (1, 1, 1));
    }

    #[test]
    fn every_fault_is_counted() {
        let mut ledger = ledger();
        for number in [0, 1] {
            ledger.accepted(number, Duration::from_secs(1));
        }
        ledger.refused(2, "rate_limited");
        let first = recipients(&ledger, 0);
        let second = recipients(&ledger, 1);
        let both = *first
            .iter()
            .find(|client| second.contains(client))
            .expect("of two of three");
        deliver(&mut ledger, both, 1, 20);
        deliver(&mut ledger, both, 0, 10);
        deliver(&mut ledger, both, 0, 10);
        let sender = sender(&ledger, 0);
        deliver(&mut ledger, sender, 0, 10);
        let to_refused = recipients(&ledger, 2)[0];
        deliver(&mut ledger, to_refused, 2, 30);
        // Nothing of this number was sent.
        deliver(&mut ledger, both, 4, 40);
        ledger.delivered(
            &Delivered {
                client: both,
                number: None,
                seq: 1,
                intact: false,
                again: false,
            },
            Duration::ZERO,
        );
        let expected = Tally {
            accepted: 2,
            refused: BTreeMap::from([("rate_limited".to_owned(), 1)]),
            unanswered: 1,
            expected: 4,
            received: 2,
            missing: 2,
            duplicate: 1,
            out_of_order: 1,
            wrong: 2,
            unaccepted: 1,
            ..Tally::default()
        };
        assert_eq!(ledger.tally(), expected);
    }
}
