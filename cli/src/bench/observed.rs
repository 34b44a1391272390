//! What all clients of the load generator have seen, and the load they work on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tidings_protocol::{ChatId, ErrorCode, NewMessage};

use super::in_flight::InFlight;
use super::latency::{Latencies, Percentiles};
use super::ledger::{Delivered, Ended, Ledger};
use super::plan::{Plan, Run};

/// Connections whose end is told one by one; of the others only the number is.
const LOSSES_TOLD: usize = 5;

/// Shared by all clients.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Clients that are up to date.
    pub(crate) caught_up: AtomicU64,
    /// Changes of chats that were made in this run.
    pub(crate) chat_updates: AtomicU64,
    /// Messages, of whatever run.
    pub(crate) messages: AtomicU64,
    /// Times that the server said that an inbox had lost something.
    pub(crate) trimmed: AtomicU64,
    /// Notices of the server, such as that a window is full.
    pub(crate) notices: AtomicU64,
    /// Deliveries that came and are not confirmed yet.
    pub(crate) unconfirmed: AtomicU64,
    /// Times that a client was told to leave and has left.
    pub(crate) left: AtomicU64,
    /// Tries to come back that were refused or failed, and were followed by another.
    pub(crate) sent_away: AtomicU64,
    /// Messages that were sent again because the reply did not come through.
    pub(crate) sent_again: AtomicU64,
    /// Of clients that came back: until they were up to date.
    returns: Mutex<Latencies>,
    losses: Mutex<Vec<String>>,
    run_name: OnceLock<String>,
    load: OnceLock<Load>,
}

/// The load, once it is known.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) run: Run,
    pub(crate) plan: Arc<Plan>,
    /// In the order of [`Plan::chats`].
    pub(crate) chat_ids: Vec<ChatId>,
    /// The text of every message.
    pub(crate) body: String,
    /// From when times count.
    pub(crate) start: Instant,
    /// In a closed loop.
    pub(crate) in_flight: Option<InFlight>,
    ledger: Mutex<Ledger>,
}

impl Load {
    pub(crate) fn new(
        run: Run,
        plan: Arc<Plan>,
        chat_ids: Vec<ChatId>,
        body: String,
        start: Instant,
        in_flight: Option<InFlight>,
    ) -> Self {
        Self {
            run,
            chat_ids,
            body,
            start,
            in_flight,
            ledger: Mutex::new(Ledger::new(Arc::clone(&plan))),
            plan,
        }
    }

    /// Held for one note each time.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Time since [`Self::start`]; none before it.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A message's sender was told what became of it.
    pub(crate) fn answered(&self, number: usize, error: Option<&ErrorCode>) {
        let mut ledger = self.ledger();
        let ended = match error {
            None => ledger.accepted(number, self.now()),
            Some(code) => ledger.refused(number, code),
        };
        self.ended(ledger, number, ended);
    }

    /// A client got a message, at this moment.
    /// Whether it may have come before, on a connection that broke, is told by `again`.
    pub(crate) fn delivered(&self, client: u32, message: &NewMessage, again: bool, at: Duration) {
        let number = self.run.number(message.message_id);
        let right_text = message.message == self.body;
        let mut ledger = self.ledger();
        let send = number.and_then(|number| ledger.send(number));
        let right_chat = send.is_some_and(|send| self.chat_ids[send.chat as usize] == message.chat_id);
        let delivered = Delivered {
            client,
            number,
            seq: message.seq,
            intact: right_text && right_chat,
            again,
        };
        let ended = ledger.delivered(&delivered, at);
        if let Some(number) = number {
            self.ended(ledger, number, ended);
        }
    }

    fn ended(&self, ledger: MutexGuard<'_, Ledger>, number: usize, ended: Ended) {
        let send = ledger.send(number);
        drop(ledger);
        if let (Some(in_flight), Some(send)) = (&self.in_flight, send) {
            in_flight.ended(self.plan.sender(send), ended);
        }
    }
}

impl Observed {
    /// Chats with this name are of this run. Said once, before the first of them is made.
    pub(crate) fn name_run(&self, name: String) {
        self.run_name.get_or_init(|| name);
    }

    /// The name of the chats of this run.
    pub(crate) fn run_name(&self) -> Option<&String> {
        self.run_name.get()
    }

    /// From now on clients work on this load. Once.
    pub(crate) fn begin(&self, load: Load) -> &Load {
        self.load.get_or_init(|| load)
    }

    /// The load, once there is one.
    pub(crate) fn load(&self) -> Option<&Load> {
        self.load.get()
    }

    /// A client has come back and is up to date again.
    pub(crate) fn back(&self, after: Duration) {
        lock(&self.returns).record(after);
    }

    /// Of the clients that have come back so far: how long it took until they were up to date.
    pub(crate) fn returns(&self) -> Percentiles {
        lock(&self.returns).percentiles()
    }

    /// A connection has ended that should not have.
    pub(crate) fn lost(&self, who: &str, why: &str) {
        let mut losses = lock(&self.losses);
        if losses.len() < LOSSES_TOLD {
            super::say(&format!("{who} has lost its connection: {why}"));
        }
        losses.push(format!("{who}: {why}"));
    }

    /// How many connections have ended that should not have.
    pub(crate) fn losses(&self) -> usize {
        lock(&self.losses).len()
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    // Relaxed: a count on its own, and whoever reads it reads it again until it is what it must become.
    counter.fetch_add(1, Ordering::Relaxed);
}

/// As it is now.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts are whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
