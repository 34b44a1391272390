//! What was sent and what arrived: every message, every copy of it. Pure; times are given, from the start of the
//! load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidings_protocol::ErrorCode;

use super::latency::Latencies;
use super::plan::{Plan, Send};

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
    /// Copies of accepted messages: one for each member but the sender.
    pub(crate) expected: u64,
    /// Of those, how many came.
    pub(crate) received: u64,
    /// Of those, how many did not.
    pub(crate) missing: u64,
    /// Copies that came once more.
    pub(crate) duplicate: u64,
    /// Copies that came after one of the same chat with a higher `seq`.
    pub(crate) out_of_order: u64,
    /// Messages of this load with a wrong text, in a wrong chat or at somebody whom they are not for.
    pub(crate) wrong: u64,
    /// Copies of messages that were refused or not answered: allowed after `unavailable`.
    pub(crate) unaccepted: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    plan: Arc<Plan>,
    fates: Vec<Fate>,
    /// How often each copy came, by message and member.
    copies: Vec<u8>,
    /// The highest `seq`, by chat and member.
    highest: Vec<u64>,
    members: usize,
    tally: Tally,
    /// First copies, of whatever message.
    came: u64,
    /// Copies of accepted messages that have not come.
    outstanding: u64,
    /// From when a message was due until its sender was told; of measured messages.
    pub(crate) accept: Latencies,
    /// From when a message was due until a recipient had it; of measured messages.
    pub(crate) delivery: Latencies,
    /// From when a message was due until it was written to the socket: the load generator's own share.
    pub(crate) lag: Latencies,
    /// `delivery` since somebody cleared it.
    pub(crate) recent: Latencies,
}

impl Ledger {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        let members = plan.chats.first().map_or(0, Vec::len);
        Self {
            fates: vec![Fate::Unanswered; plan.sends.len()],
            copies: vec![0; plan.sends.len() * members],
            highest: vec![0; plan.chats.len() * members],
            members,
            plan,
            tally: Tally::default(),
            came: 0,
            outstanding: 0,
            accept: Latencies::default(),
            delivery: Latencies::default(),
            lag: Latencies::default(),
            recent: Latencies::default(),
        }
    }

    /// A message was written to its sender's socket.
    pub(crate) fn sent(&mut self, number: usize, at: Duration) {
        self.tally.sent += 1;
        if number >= self.plan.warmup {
            self.lag.record(at.saturating_sub(self.plan.due(number)));
        }
    }

    /// Its sender got SUCCESS.
    pub(crate) fn accepted(&mut self, number: usize, at: Duration) {
        if self.answered(number, Fate::Accepted) {
            self.tally.accepted += 1;
            self.outstanding += self.members as u64 - 1 - self.came_of(number);
            if number >= self.plan.warmup {
                self.accept.record(at.saturating_sub(self.plan.due(number)));
            }
        }
    }

    /// Its sender got FAILURE.
    pub(crate) fn refused(&mut self, number: usize, code: &ErrorCode) {
        if self.answered(number, Fate::Refused) {
            *self.tally.refused.entry(code.as_str().to_owned()).or_default() += 1;
        }
    }

    fn answered(&mut self, number: usize, fate: Fate) -> bool {
        let first = self.fates[number] == Fate::Unanswered;
        if first {
            self.fates[number] = fate;
        }
        first
    }

    /// A message came.
    pub(crate) fn delivered(&mut self, delivered: &Delivered, at: Duration) {
        // Of an earlier run, then, or of somebody else's.
        let Some(number) = delivered.number else { return };
        let Some(&Send {
            chat,
            position: sender,
        }) = self.plan.sends.get(number)
        else {
            self.tally.wrong += 1;
            return;
        };
        let position = self.plan.position(chat, delivered.client);
        let Some(position) = position.filter(|position| *position != sender as usize && delivered.intact)
        else {
            self.tally.wrong += 1;
            return;
        };
        let copies = &mut self.copies[number * self.members + position];
        *copies = copies.saturating_add(1);
        if *copies > 1 {
            self.tally.duplicate += 1;
            return;
        }
        self.came += 1;
        if self.fates[number] == Fate::Accepted {
            self.outstanding -= 1;
        }
        let highest = &mut self.highest[chat as usize * self.members + position];
        if delivered.seq < *highest {
            self.tally.out_of_order += 1;
        }
        *highest = delivered.seq.max(*highest);
        let latency = at.saturating_sub(self.plan.due(number));
        self.recent.record(latency);
        if number >= self.plan.warmup {
            self.delivery.record(latency);
        }
    }

    /// First copies so far, of whatever message.
    pub(crate) const fn came(&self) -> u64 {
        self.came
    }

    /// Members that have a message. Its sender gets no copy.
    fn came_of(&self, number: usize) -> u64 {
        let copies = &self.copies[number * self.members..(number + 1) * self.members];
        copies.iter().filter(|copies| **copies > 0).count() as u64
    }

    /// Whether every message is answered and every copy of the accepted ones has come.
    pub(crate) fn is_complete(&self) -> bool {
        let (answered, _) = self.so_far();
        answered == self.fates.len() as u64 && self.outstanding == 0
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
            self.tally.accepted * (self.members as u64 - 1),
        )
    }

    /// The sums.
    pub(crate) fn tally(&self) -> Tally {
        let (answered, expected) = self.so_far();
        let mut tally = self.tally.clone();
        for (number, fate) in self.fates.iter().enumerate() {
            let came = self.came_of(number);
            if *fate == Fate::Accepted {
                tally.received += came;
            } else {
                tally.unaccepted += came;
            }
        }
        tally.unanswered = self.fates.len() as u64 - answered;
        tally.expected = expected;
        tally.missing = expected - tally.received;
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Shape;
    use super::*;

    fn ledger() -> Ledger {
        let shape = Shape {
            clients: 3,
            chats: 1,
            members: 3,
            rate: 10.0,
            warmup: Duration::from_millis(100),
            measured: Duration::from_millis(300),
            seed: 3,
        };
        Ledger::new(Arc::new(Plan::new(&shape).expect("possible")))
    }

    fn recipients(ledger: &Ledger, number: usize) -> Vec<u32> {
        let sender = ledger.plan.sender(number);
        (0..3).filter(|client| *client != sender).collect()
    }

    fn deliver(ledger: &mut Ledger, client: u32, number: usize, seq: u64) {
        let delivered = Delivered {
            client,
            number: Some(number),
            seq,
            intact: true,
        };
        ledger.delivered(&delivered, ledger.plan.due(number) + Duration::from_millis(7));
    }

    #[test]
    fn a_run_without_a_fault_has_none() {
        let mut ledger = ledger();
        for number in 0..4 {
            assert!(!ledger.is_complete());
            ledger.sent(number, ledger.plan.due(number));
            // A copy may be faster than the reply.
            for client in recipients(&ledger, number) {
                deliver(&mut ledger, client, number, number as u64 + 1);
            }
            ledger.accepted(number, ledger.plan.due(number) + Duration::from_millis(5));
        }
        let expected = Tally {
            sent: 4,
            accepted: 4,
            expected: 8,
            received: 8,
            ..Tally::default()
        };
        assert_eq!(ledger.tally(), expected);
        assert!(ledger.is_complete());
        // The first message is of the warm-up.
        assert_eq!(ledger.accept.percentiles().count, 3);
        let delivery = ledger.delivery.percentiles();
        assert_eq!(delivery.count, 6);
        assert!((delivery.p50 - 7.0).abs() < 0.01, "{delivery:?}");
    }

    #[test]
    fn every_fault_is_counted() {
        let mut ledger = ledger();
        for number in [0, 1] {
            ledger.accepted(number, Duration::from_secs(1));
        }
        ledger.refused(2, &ErrorCode::RateLimited);
        let first = recipients(&ledger, 0);
        let second = recipients(&ledger, 1);
        let both = *first
            .iter()
            .find(|client| second.contains(client))
            .expect("of two of three");
        deliver(&mut ledger, both, 1, 20);
        deliver(&mut ledger, both, 0, 10);
        deliver(&mut ledger, both, 0, 10);
        let sender = ledger.plan.sender(0);
        deliver(&mut ledger, sender, 0, 10);
        let to_refused = recipients(&ledger, 2)[0];
        deliver(&mut ledger, to_refused, 2, 30);
        ledger.delivered(
            &Delivered {
                client: both,
                number: None,
                seq: 1,
                intact: false,
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
            wrong: 1,
            unaccepted: 1,
            ..Tally::default()
        };
        assert_eq!(ledger.tally(), expected);
    }
}
