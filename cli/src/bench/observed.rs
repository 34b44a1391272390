//! What all clients of the load generator have seen, and the load they work on. In a process that runs a part of the clients
//! for another one, what they see goes there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidings_protocol::ChatId;

use super::event::{self, Arrival, Event};
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
    /// Deliveries that came.
    deliveries: AtomicU64,
    /// Of those, how many are confirmed or cannot be any more.
    settled: AtomicU64,
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
    traffic: OnceLock<Traffic>,
    load: OnceLock<Load>,
    /// The process that these clients belong to, if that is another one.
    elsewhere: Option<SyncSender<Event>>,
}

/// What messages look like, once it is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) run: Run,
    /// In the order of [`Plan::chats`].
    pub(crate) chat_ids: Vec<ChatId>,
    /// The text of every message.
    pub(crate) body: String,
    /// Which of them a chat is.
    #[serde(skip)]
    index: OnceLock<HashMap<ChatId, u32>>,
}

/// The load, once it is known.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) plan: Arc<Plan>,
    /// From when times count.
    pub(crate) start: Instant,
    start_nanoseconds: u64,
    /// In a closed loop.
    pub(crate) in_flight: Option<InFlight>,
    ledger: Mutex<Ledger>,
}

impl Traffic {
    pub(crate) const fn new(run: Run, chat_ids: Vec<ChatId>, body: String) -> Self {
        Self {
            run,
            chat_ids,
            body,
            index: OnceLock::new(),
        }
    }

    /// Which chat of this load it is.
    pub(crate) fn chat(&self, id: ChatId) -> Option<u32> {
        let index = || {
            (0..)
                .zip(&self.chat_ids)
                .map(|(index, id)| (*id, index))
                .collect()
        };
        self.index.get_or_init(index).get(&id).copied()
    }
}

impl Load {
    pub(crate) fn new(plan: Arc<Plan>, start: Instant, in_flight: Option<InFlight>) -> Self {
        Self {
            start,
            start_nanoseconds: event::nanoseconds_of(start),
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

    /// On the machine's clock.
    fn time(&self, at: u64) -> Duration {
        Duration::from_nanos(at.saturating_sub(self.start_nanoseconds))
    }

    fn answered(&self, number: usize, error: Option<&str>, at: u64) {
        let mut ledger = self.ledger();
        let ended = match error {
            None => ledger.accepted(number, self.time(at)),
            Some(code) => ledger.refused(number, code),
        };
        self.ended(ledger, number, ended);
    }

    fn delivered(&self, arrival: Arrival) {
        let mut ledger = self.ledger();
        let send = arrival.number.and_then(|number| ledger.send(number));
        let right_chat = send.is_some_and(|send| arrival.chat == Some(send.chat));
        let delivered = Delivered {
            client: arrival.client,
            number: arrival.number,
            seq: arrival.seq,
            intact: arrival.right_text && right_chat,
            again: arrival.again,
        };
        let ended = ledger.delivered(&delivered, self.time(arrival.at));
        if let Some(number) = arrival.number {
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
    /// Of clients that belong to another process.
    pub(crate) fn elsewhere(to: SyncSender<Event>) -> Self {
        Self {
            elsewhere: Some(to),
            ..Self::default()
        }
    }

    /// Something happened.
    pub(crate) fn note(&self, event: Event) {
        match &self.elsewhere {
            // Waits while that process is busy. Where it is gone, this one ends, too.
            Some(elsewhere) => drop(elsewhere.send(event)),
            None => self.count(event),
        }
    }

    fn count(&self, event: Event) {
        match event {
            Event::Sent { number, at } => {
                if let Some(load) = self.load() {
                    load.ledger().sent(number, load.time(at));
                }
            }
            Event::Answered { number, error, at } => {
                if let Some(load) = self.load() {
                    load.answered(number, error.as_deref(), at);
                }
            }
            Event::Message(arrival) => {
                if let Some(load) = self.load() {
                    load.delivered(arrival);
                }
                count(&self.messages);
                count(&self.deliveries);
            }
            Event::ChatUpdate { of_this_run } => {
                if of_this_run {
                    count(&self.chat_updates);
                }
                count(&self.deliveries);
            }
            Event::Trimmed => {
                count(&self.trimmed);
                count(&self.deliveries);
            }
            Event::UnknownDelivery => count(&self.deliveries),
            Event::Settled(deliveries) => {
                self.settled.fetch_add(deliveries, Ordering::Relaxed);
            }
            Event::CaughtUp => count(&self.caught_up),
            Event::Back { microseconds } => lock(&self.returns).record(Duration::from_micros(microseconds)),
            Event::Left => count(&self.left),
            Event::SentAway => count(&self.sent_away),
            Event::SentAgain => count(&self.sent_again),
            Event::Notice => count(&self.notices),
            Event::Lost { who, why } => self.lost(&who, &why),
            // Whoever reads them from the pipe hands them over.
            Event::Replied { .. } => {}
        }
    }

    /// Deliveries that came and are not confirmed yet.
    pub(crate) fn unconfirmed(&self) -> u64 {
        // In this order there are never too few.
        let settled = read(&self.settled);
        read(&self.deliveries) - settled
    }

    /// Chats with this name are of this run. Said once, before the first of them is made.
    pub(crate) fn name_run(&self, name: String) {
        self.run_name.get_or_init(|| name);
    }

    /// The name of the chats of this run.
    pub(crate) fn run_name(&self) -> Option<&String> {
        self.run_name.get()
    }

    /// From now on messages look like this. Once.
    pub(crate) fn expect(&self, traffic: Traffic) -> &Traffic {
        self.traffic.get_or_init(|| traffic)
    }

    /// What messages look like, once that is known.
    pub(crate) fn traffic(&self) -> Option<&Traffic> {
        self.traffic.get()
    }

    /// From now on clients work on this load. Once.
    pub(crate) fn begin(&self, load: Load) -> &Load {
        self.load.get_or_init(|| load)
    }

    /// The load, once there is one.
    pub(crate) fn load(&self) -> Option<&Load> {
        self.load.get()
    }

    /// Of the clients that have come back so far: how long it took until they were up to date.
    pub(crate) fn returns(&self) -> Percentiles {
        lock(&self.returns).percentiles()
    }

    fn lost(&self, who: &str, why: &str) {
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
