//! How one partition of CHATS is read, in order: a pure state machine that takes what happened and the time, and
//! says what to do. The I/O around it is `partition_task.rs`.
//!
//! A pin names one worker at a time, but is not exclusive, and a take-over or a reconnect hands out newer events
//! before the lost ones. So the reader believes a delivery only when its consumer sequence runs 1, 2, 3, … since
//! the reader's own reset of the consumer, and when it came to the reply inbox that was made for this reset (its
//! *generation*). At a new pin, a gap, a reconnect or an error it forgets what waits, resets, and begins again.
//! What runs at that moment runs on; its chat waits for it. An event that is finished is deleted from the stream:
//! what is stored is what is not finished, whatever the consumer believes (adr/0019).

mod finished;
mod hold;
mod interface;
mod pulls;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::chat_queue::{ChatKey, ChatQueue};

use self::finished::Finished;
pub(crate) use self::interface::{Action, Delivery, Event};

/// Where a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
enum Phase {
    /// Not connected, or not allowed to work.
    Off,
    /// Between two tries.
    Pause { until: Instant },
    /// Asking without a pin: another is pinned, or nothing came yet. The next request is due at `ask_at`.
    Waiting { ask_at: Instant },
    /// Asking whether the pin of before a reconnect still holds.
    Probing { until: Instant },
    /// The consumer is to be reset at `send_at`, or has been asked to and answers before `until`.
    Resetting {
        send_at: Option<Instant>,
        until: Instant,
    },
    /// Pinned and reading.
    Reading,
    /// Pinned and finishing what runs.
    Draining { cancel_at: Instant },
    /// Asked to be unpinned.
    Unpinning { until: Instant },
    /// Over.
    Ended,
}

/// The one pull that is out.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
struct OpenPull {
    number: u64,
    /// How many messages it still asks for.
    left: u32,
    /// When it is lost.
    until: Instant,
}

/// An event that is waiting.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
struct Waiting<D> {
    sequence: u64,
    stored_at: u64,
    progress_at: Instant,
    delivery: Delivery<D>,
}

/// An event that is being worked on.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
struct Running<D> {
    chat: ChatKey,
    stored_at: u64,
    /// During which connection it was delivered last.
    connection: u64,
    bytes: usize,
    reply: String,
    progress_at: Instant,
    cancelled: bool,
    /// The next event of its chat waits for it: it is not told yet, or it will have to be worked on again before that.
    blocks: bool,
    /// It was delivered again, after a fresh start or because it took long: if it is abandoned, this is worked on.
    again: Option<Delivery<D>>,
}

/// The state machine of one partition.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) struct PartitionReader<D> {
    /// From when on the worker's pulls are reckoned.
    began: Instant,
    phase: Phase,
    connected: bool,
    /// Counts the connections that were lost.
    connection: u64,
    /// Whether the worker's own key is fresh.
    allowed: bool,
    reluctant: bool,
    stopping: bool,
    generation: u64,
    pin: Option<String>,
    /// The consumer sequence that is due.
    expected: u64,
    /// The highest stream sequence of this generation.
    highest: u64,
    pull: Option<OpenPull>,
    pull_number: u64,
    pulled_at: Instant,
    /// How many pulls in a row ended with nothing.
    in_vain: u32,
    /// How many in a row nobody answered.
    unanswered: u32,
    reset_at: Option<Instant>,
    queue: ChatQueue<Waiting<D>>,
    running: BTreeMap<u64, Running<D>>,
    bytes: usize,
    finished: Finished,
    /// What was asked to be deleted and is not answered.
    deleting: BTreeSet<u64>,
    resets: u64,
    actions: Vec<Action<D>>,
}

impl<D> PartitionReader<D> {
    /// A reader that has not begun: it waits for `Connected` and `Resume`. All readers of a worker are told the same moment, by
    /// which their pulls end together.
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            phase: Phase::Off,
            connected: false,
            connection: 0,
            allowed: false,
            reluctant: false,
            stopping: false,
            generation: 0,
            pin: None,
            expected: 1,
            highest: 0,
            pull: None,
            pull_number: 0,
            pulled_at: began,
            in_vain: 0,
            unanswered: 0,
            reset_at: None,
            queue: ChatQueue::default(),
            running: BTreeMap::new(),
            bytes: 0,
            finished: Finished::default(),
            deleting: BTreeSet::new(),
            resets: 0,
            actions: Vec::new(),
        }
    }

    /// Whether this worker holds the partition, as far as the reader knows.
    pub(crate) const fn pinned(&self) -> bool {
        self.pin.is_some()
    }

    /// Whether the partition is to be given away, once its events are finished and deleted.
    pub(crate) const fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    /// The pin of this worker, which is another one each time that it gets the partition.
    pub(crate) fn pin(&self) -> Option<&str> {
        self.pin.as_deref()
    }

    /// How often the consumer was asked to be reset.
    pub(crate) const fn resets(&self) -> u64 {
        self.resets
    }

    /// How many events wait, run, or are being deleted.
    pub(crate) fn in_hand(&self) -> usize {
        let again = self.running.values().filter(|running| running.again.is_some());
        self.queue.waiting() + self.running.len() + again.count() + self.deleting.len()
    }

    /// Takes what happened and says what to do.
    pub(crate) fn handle(&mut self, event: Event<D>, now: Instant) -> Vec<Action<D>> {
        if self.phase != Phase::Ended {
            let tick = matches!(event, Event::Tick);
            self.apply(event, now);
            self.step(now);
            if tick {
                self.say_progress(now);
            }
        }
        std::mem::take(&mut self.actions)
    }

    fn apply(&mut self, event: Event<D>, now: Instant) {
        match event {
            Event::Tick => {}
            Event::Connected => {
                self.connected = true;
                self.begin_again(now);
            }
            Event::Disconnected => {
                self.connected = false;
                self.connection += 1;
                self.forget_waiting();
                if self.stopping {
                    self.cancel_running();
                }
                self.phase = Phase::Off;
            }
            Event::Doubt => match self.phase {
                Phase::Resetting { .. } | Phase::Reading => self.fresh_start(now),
                Phase::Waiting { .. } | Phase::Probing { .. } => self.begin_again(now),
                _ => {}
            },
            Event::Resume => {
                self.allowed = true;
                if self.phase == Phase::Off {
                    self.begin_again(now);
                }
            }
            Event::Suspend => self.suspend(now),
            Event::Reluctant(reluctant) => self.be_reluctant(reluctant, now),
            Event::Release => self.release(now),
            Event::Stop { within } => self.stop(within, now),
            Event::Delivered {
                generation,
                pin,
                info,
                delivery,
            } => {
                if generation == self.generation {
                    self.delivered(pin, info, delivery, now);
                }
            }
            Event::Status {
                generation,
                pull,
                status,
                unanswered,
            } => {
                if generation == self.generation {
                    self.status(pull, status, unanswered, now);
                }
            }
            Event::Reset { generation, done } => {
                if generation == self.generation && matches!(self.phase, Phase::Resetting { .. }) {
                    self.reset_answered(done, now);
                }
            }
            Event::Unpinned => {
                if matches!(self.phase, Phase::Unpinning { .. }) {
                    self.unpinned(now);
                }
            }
            Event::Told { sequence } => self.told(sequence),
            Event::Finished { sequence } => self.finish(sequence),
            Event::Abandoned { sequence } => self.abandon(sequence, now),
            Event::Deleted { sequence } => {
                self.deleting.remove(&sequence);
            }
        }
    }

    /// What is due by now, whatever happened last.
    fn step(&mut self, now: Instant) {
        loop {
            let before = self.phase;
            self.leave_phase(now);
            if self.phase == before {
                break;
            }
        }
        if self.pull.as_ref().is_some_and(|pull| now >= pull.until) {
            // The server or the way there has lost it, and perhaps more.
            self.unanswered_pull(now);
        }
        if self.phase == Phase::Reading {
            self.start_ready(now);
            self.pull(now);
        }
        self.renew(now);
    }

    /// What the phase waited for.
    fn leave_phase(&mut self, now: Instant) {
        match self.phase {
            Phase::Pause { until } if now >= until => self.begin_again(now),
            Phase::Waiting { ask_at } if self.pull.is_none() && now >= ask_at => self.ask(now),
            Phase::Probing { until } if now >= until => self.lose_pin(now),
            Phase::Resetting {
                send_at: Some(send_at),
                ..
            } if now >= send_at => self.send_reset(now),
            Phase::Resetting { send_at: None, until } if now >= until => self.fresh_start(now),
            Phase::Draining { cancel_at } => self.drained(cancel_at, now),
            Phase::Unpinning { until } if now >= until => self.unpinned(now),
            Phase::Off | Phase::Pause { .. } if self.stopping && self.running.is_empty() => self.end(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod consumer_model;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod script_tests;
#[cfg(test)]
mod search_tests;
#[cfg(test)]
mod world;
