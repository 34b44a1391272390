//! How many messages are under way in a closed loop: one more begins when one is over.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore};

use super::ledger::Ended;
use super::plan::{Plan, Send, Sends};

/// Requests that one connection may have under way; beyond, the server stops reading it (PROTOCOL.md).
pub(crate) const OF_SENDER_MAX: usize = 64;
/// Draws in search of a sender who may have one more under way, before somebody is waited for.
const DRAWS: usize = 100;

/// When a message is over.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Its sender was told what became of it.
    Answered,
    /// That, and everybody has it.
    Delivered,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct InFlight {
    until: Until,
    free: Semaphore,
    /// By client: messages that are not answered.
    of_sender: Vec<AtomicUsize>,
    answered: Notify,
}

impl InFlight {
    /// So many messages of so many clients.
    pub(crate) fn new(messages: usize, clients: usize, until: Until) -> Self {
        Self {
            until,
            free: Semaphore::new(messages),
            of_sender: (0..clients).map(|_| AtomicUsize::new(0)).collect(),
            answered: Notify::new(),
        }
    }

    /// Waits until one more may begin, and draws it. It counts as under way from now on.
    pub(crate) async fn next(&self, plan: &Plan, sends: &mut Sends) -> Send {
        let free = self.free.acquire().await;
        free.expect("the semaphore is never closed").forget();
        loop {
            let answered = self.answered.notified();
            for _ in 0..DRAWS {
                let send = sends.draw();
                let of_sender = &self.of_sender[plan.sender(send) as usize];
                // Relaxed: only this task adds, and what others take away is seen the next time at the latest.
                if of_sender.load(Ordering::Relaxed) < OF_SENDER_MAX {
                    of_sender.fetch_add(1, Ordering::Relaxed);
                    return send;
                }
            }
            answered.await;
        }
    }

    /// Waits until this message may begin. It counts as under way from now on.
    pub(crate) async fn begin(&self, plan: &Plan, send: Send) {
        let free = self.free.acquire().await;
        free.expect("the semaphore is never closed").forget();
        let of_sender = &self.of_sender[plan.sender(send) as usize];
        loop {
            let answered = self.answered.notified();
            if of_sender.load(Ordering::Relaxed) < OF_SENDER_MAX {
                of_sender.fetch_add(1, Ordering::Relaxed);
                return;
            }
            answered.await;
        }
    }

    /// Something of a message of this sender is over.
    pub(crate) fn ended(&self, sender: u32, ended: Ended) {
        if ended.answered {
            self.of_sender[sender as usize].fetch_sub(1, Ordering::Relaxed);
            self.answered.notify_waiters();
        }
        let over = match self.until {
            Until::Answered => ended.answered,
            Until::Delivered => ended.message,
        };
        if over {
            self.free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::super::plan::Shape;
    use super::*;

    const ANSWERED: Ended = Ended {
        answered: true,
        message: false,
    };
    const OVER: Ended = Ended {
        answered: false,
        message: true,
    };

    fn plan() -> Plan {
        let shape = Shape {
            clients: 2,
            devices: 1,
            chats: 1,
            members: 2,
            seed: 1,
        };
        Plan::new(&shape).expect("possible")
    }

    fn begin_all(in_flight: &InFlight, plan: &Plan, sends: &mut Sends) -> Vec<u32> {
        std::iter::from_fn(|| in_flight.next(plan, sends).now_or_never())
            .map(|send| plan.sender(send))
            .collect()
    }

    #[test]
    fn one_begins_when_one_is_over() {
        let (plan, in_flight) = (plan(), InFlight::new(5, 2, Until::Delivered));
        let mut sends = plan.sends();
        let senders = begin_all(&in_flight, &plan, &mut sends);
        assert_eq!(senders.len(), 5);
        in_flight.ended(senders[0], ANSWERED);
        assert_eq!(begin_all(&in_flight, &plan, &mut sends).len(), 0);
        in_flight.ended(senders[0], OVER);
        assert_eq!(begin_all(&in_flight, &plan, &mut sends).len(), 1);
    }

    #[test]
    fn a_message_may_be_over_when_it_is_answered() {
        let (plan, in_flight) = (plan(), InFlight::new(1, 2, Until::Answered));
        let send = plan.sends().draw();
        assert!(in_flight.begin(&plan, send).now_or_never().is_some());
        assert!(in_flight.begin(&plan, send).now_or_never().is_none());
        in_flight.ended(plan.sender(send), ANSWERED);
        assert!(in_flight.begin(&plan, send).now_or_never().is_some());
        in_flight.ended(plan.sender(send), OVER);
        assert!(in_flight.begin(&plan, send).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_sender_has_no_more_under_way_than_its_connection_takes() {
        let (plan, in_flight) = (plan(), InFlight::new(1_000, 2, Until::Delivered));
        let mut sends = plan.sends();
        let senders = begin_all(&in_flight, &plan, &mut sends);
        for client in [0, 1] {
            let under_way = senders.iter().filter(|sender| **sender == client).count();
            assert_eq!(under_way, OF_SENDER_MAX);
        }
        let (next, ()) = tokio::join!(in_flight.next(&plan, &mut sends), async {
            tokio::task::yield_now().await;
            in_flight.ended(1, ANSWERED);
        });
        assert_eq!(plan.sender(next), 1);
    }
}
