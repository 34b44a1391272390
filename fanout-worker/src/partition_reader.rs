//! How one partition of CHATS is read, in order: a pure state machine that takes what happened and the time, and
//! says what to do. The I/O around it is `partition_task.rs`.
//!
//! A pin names one worker at a time, but is not exclusive, and a take-over or a reconnect hands out newer events
//! before the lost ones. So the reader believes a delivery only when its consumer sequence runs 1, 2, 3, … since
//! the reader's own reset of the consumer, and when it came to the reply inbox that was made for this reset (its
//! *generation*). At a new pin, a gap, a reconnect or an error it forgets what waits, resets, and begins again.
//! What runs at that moment runs on; its chat waits for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use tidings_nats::{ConsumerStatus, DeliveryInfo};

use crate::chat_queue::{ChatKey, ChatQueue};

/// Events in hand at most. Two chats at their bound of 500 stored events do not stop the others.
const EVENTS_MAX: usize = 1_024;
/// Bytes in hand at most; 32 partitions times this is what a worker may hold while the inboxes are full.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// A pull is sent when at least so much is free: more than the largest message of CHATS (1 MiB and its headers), so
/// that no pull is answered by "does not fit" again and again.
const BYTES_FREE_MIN: usize = 2 * 1024 * 1024;
/// A pull for a handful of events costs as much as one for many.
const EVENTS_FREE_MIN: usize = EVENTS_MAX / 4;
/// How long a pull waits at the server. A pin is renewed by pulls only, and lasts 5 s
/// (`priority_timeout` of `nats/definitions/fanout.json`).
const PULL_EXPIRES: Duration = Duration::from_secs(2);
/// An answer that comes later than this after a pull has expired will never come.
const PULL_GRACE: Duration = Duration::from_secs(2);
/// Without a pull for so long, one is sent only to renew the pin.
const RENEW_AFTER: Duration = Duration::from_millis(1_500);
/// After so long without a pull the pin is somebody else's.
const PIN_TIMEOUT: Duration = Duration::from_secs(5);
/// For an answer to a probe, a reset or an unpin. The task gives up sooner and says so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// Between resets: two workers that both believe to be pinned would otherwise reset each other in a tight loop.
const RESET_INTERVAL: Duration = Duration::from_millis(500);
/// After an error: the consumer's leader has changed or is being elected.
const ERROR_PAUSE: Duration = Duration::from_millis(500);
/// How long a partition is left alone after it was given away: enough for another worker to take it.
const REST: Duration = Duration::from_secs(4);
/// What is in hand may take so long when the partition is to be given away; then it is cancelled.
const DRAIN_MAX: Duration = Duration::from_secs(8);
/// A worker that holds its share asks for further partitions only so long …
const RELUCTANT_EXPIRES: Duration = Duration::from_secs(1);
/// … and pauses so long in between: whoever has less is asked first, and yet nothing stays unread.
const RELUCTANT_PAUSE: Duration = Duration::from_secs(2);
/// An event that waits or runs is said to be in progress at a third of the consumer's `ack_wait` of 60 s.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(20);
/// How many finished events are remembered, should their acks be lost: twice the consumer's `max_ack_pending`.
const FINISHED_MAX: usize = 8_192;

/// What a reader is told.
#[derive(Debug)]
pub(crate) enum Event<D> {
    /// Time has passed; at least four times a second.
    Tick,
    /// There is a connection (again).
    Connected,
    /// There is none.
    Disconnected,
    /// Something may have been lost on the way to this process.
    Doubt,
    /// The worker may (again) work: its own key is renewed.
    Resume,
    /// The worker may not work: its own key is too old.
    Suspend,
    /// Whether the worker holds its share of partitions already.
    Reluctant(bool),
    /// Give the partition away, if it is held.
    Release,
    /// Finish what runs, within this time, and end.
    Stop { within: Duration },
    /// A message came to a generation's inbox.
    Delivered {
        generation: u64,
        pin: Option<String>,
        info: DeliveryInfo,
        delivery: Delivery<D>,
    },
    /// A status came to a generation's inbox, for one of its pulls.
    Status {
        generation: u64,
        pull: u64,
        status: ConsumerStatus,
        /// How many messages the pull still waited for, where the status says it.
        unanswered: Option<u32>,
    },
    /// The consumer was reset, or not.
    Reset { generation: u64, done: bool },
    /// The consumer was unpinned, or not.
    Unpinned,
    /// All that follows from an event is stored.
    Finished { sequence: u64 },
    /// The work on an event was cancelled; something may be stored already.
    Abandoned { sequence: u64 },
}

/// A message of the stream.
#[derive(Debug)]
pub(crate) struct Delivery<D> {
    /// Its chat.
    pub(crate) chat: ChatKey,
    /// What it costs to keep it.
    pub(crate) bytes: usize,
    /// Where its ack goes.
    pub(crate) reply: String,
    /// Its content, which the reader does not look at.
    pub(crate) content: D,
}

/// What a reader wants done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<D> {
    /// Listen on the reply inbox of a generation, and on no earlier one any more. What was remembered of chats is
    /// forgotten.
    Open { generation: u64 },
    /// Ask for messages.
    Pull {
        generation: u64,
        number: u64,
        batch: u32,
        bytes_max: u32,
        expires: Duration,
        pin: Option<String>,
    },
    /// Ask for a message that is not to be delivered: renews the pin, or asks whether it still holds.
    Renew {
        generation: u64,
        number: u64,
        pin: String,
    },
    /// Reset the consumer to its ack floor, and tell.
    Reset { generation: u64 },
    /// Take the pin away, and tell.
    Unpin,
    /// Work on an event until it is finished or cancelled, and tell.
    Start {
        sequence: u64,
        chat: ChatKey,
        content: D,
    },
    /// End the work on an event at the next opportunity.
    Cancel { sequence: u64 },
    /// Acknowledge.
    Ack { reply: String },
    /// Say that it is being worked on.
    Progress { reply: String },
    /// Forget what is remembered of a chat: an event of it was finished elsewhere.
    Forget { chat: ChatKey },
    /// The reader has ended.
    End,
}

/// Where a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
struct OpenPull {
    number: u64,
    /// How many messages it still asks for.
    left: u32,
    /// When it is lost.
    until: Instant,
}

/// An event that is waiting.
#[derive(Debug)]
struct Waiting<D> {
    sequence: u64,
    stored_at: u64,
    progress_at: Instant,
    delivery: Delivery<D>,
}

/// An event that is being worked on.
#[derive(Debug)]
struct Running<D> {
    chat: ChatKey,
    stored_at: u64,
    bytes: usize,
    reply: String,
    progress_at: Instant,
    cancelled: bool,
    /// It was delivered again after a fresh start: once it is finished, this is acked; if it is abandoned, this
    /// is worked on.
    again: Option<Delivery<D>>,
}

/// The state machine of one partition.
#[derive(Debug)]
pub(crate) struct PartitionReader<D> {
    phase: Phase,
    connected: bool,
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
    reset_at: Option<Instant>,
    queue: ChatQueue<Waiting<D>>,
    running: HashMap<u64, Running<D>>,
    bytes: usize,
    finished: Finished,
    resets: u64,
    actions: Vec<Action<D>>,
}

impl<D> PartitionReader<D> {
    /// A reader that has not begun: it waits for `Connected` and `Resume`.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Off,
            connected: false,
            allowed: false,
            reluctant: false,
            stopping: false,
            generation: 0,
            pin: None,
            expected: 1,
            highest: 0,
            pull: None,
            pull_number: 0,
            pulled_at: now,
            reset_at: None,
            queue: ChatQueue::default(),
            running: HashMap::new(),
            bytes: 0,
            finished: Finished::default(),
            resets: 0,
            actions: Vec::new(),
        }
    }

    /// Whether this worker holds the partition, as far as the reader knows.
    pub(crate) const fn pinned(&self) -> bool {
        self.pin.is_some()
    }

    /// How often the consumer was asked to be reset.
    pub(crate) const fn resets(&self) -> u64 {
        self.resets
    }

    /// How many events wait or run.
    pub(crate) fn in_hand(&self) -> usize {
        let again = self.running.values().filter(|running| running.again.is_some());
        self.queue.waiting() + self.running.len() + again.count()
    }

    /// Takes what happened and says what to do.
    pub(crate) fn handle(&mut self, event: Event<D>, now: Instant) -> Vec<Action<D>> {
        if self.phase != Phase::Ended {
            self.apply(event, now);
            self.step(now);
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
            Event::Release => {
                if matches!(self.phase, Phase::Resetting { .. } | Phase::Reading) {
                    self.drain(DRAIN_MAX, now);
                }
            }
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
            Event::Finished { sequence } => self.finish(sequence),
            Event::Abandoned { sequence } => self.abandon(sequence, now),
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
            self.fail(now);
        }
        if self.phase == Phase::Reading {
            self.start_ready(now);
            self.pull(now);
        }
        self.renew(now);
        self.say_progress(now);
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

    /// Begins anew after an interruption: with the pin of before, if it may still hold.
    fn begin_again(&mut self, now: Instant) {
        self.forget_waiting();
        if !self.connected || !self.allowed || self.stopping {
            self.phase = Phase::Off;
            return;
        }
        match self.pin.clone() {
            Some(pin) if now < self.pulled_at + PIN_TIMEOUT => {
                self.open();
                self.phase = Phase::Probing {
                    until: now + ANSWER_TIMEOUT,
                };
                self.send_renewal(pin, now);
            }
            _ => self.lose_pin(now),
        }
    }

    /// Listens on a new inbox; what comes to an earlier one is ignored from now on.
    fn open(&mut self) {
        self.generation += 1;
        self.pull = None;
        self.actions.push(Action::Open {
            generation: self.generation,
        });
    }

    fn forget_waiting(&mut self) {
        for waiting in self.queue.iter_mut() {
            self.bytes -= waiting.delivery.bytes;
        }
        self.queue.clear();
        for running in self.running.values_mut() {
            if let Some(again) = running.again.take() {
                self.bytes -= again.bytes;
            }
        }
        self.pull = None;
    }

    fn cancel_running(&mut self) {
        for (sequence, running) in &mut self.running {
            if !running.cancelled {
                running.cancelled = true;
                self.actions.push(Action::Cancel { sequence: *sequence });
            }
        }
    }

    /// Another is pinned, or nobody: what is in hand is theirs.
    fn lose_pin(&mut self, now: Instant) {
        if self.pin.take().is_some() {
            self.cancel_running();
        }
        self.forget_waiting();
        if self.stopping {
            self.phase = Phase::Off;
            return;
        }
        self.open();
        self.phase = Phase::Waiting { ask_at: now };
    }

    /// The consumer or the way to it is not well: tries again in a while.
    fn fail(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Off | Phase::Unpinning { .. } | Phase::Ended) {
            self.pull = None;
            return;
        }
        if self.pin.take().is_some() {
            self.cancel_running();
        }
        self.forget_waiting();
        self.phase = Phase::Pause {
            until: now + ERROR_PAUSE,
        };
    }

    /// Keeps the pin, forgets what waits, and has the consumer deliver from its ack floor.
    fn fresh_start(&mut self, now: Instant) {
        self.forget_waiting();
        self.open();
        let send_at = self
            .reset_at
            .map_or(now, |reset_at| now.max(reset_at + RESET_INTERVAL));
        self.phase = Phase::Resetting {
            send_at: Some(send_at),
            until: send_at + ANSWER_TIMEOUT,
        };
    }

    fn send_reset(&mut self, now: Instant) {
        self.reset_at = Some(now);
        self.resets += 1;
        self.phase = Phase::Resetting {
            send_at: None,
            until: now + ANSWER_TIMEOUT,
        };
        self.actions.push(Action::Reset {
            generation: self.generation,
        });
    }

    fn reset_answered(&mut self, done: bool, now: Instant) {
        if done {
            self.expected = 1;
            self.highest = 0;
            self.phase = Phase::Reading;
        } else {
            self.fresh_start(now);
        }
    }

    fn be_reluctant(&mut self, reluctant: bool, now: Instant) {
        let before = std::mem::replace(&mut self.reluctant, reluctant);
        if let Phase::Waiting { ask_at } = &mut self.phase
            && before
            && !reluctant
        {
            *ask_at = now;
        }
    }

    fn suspend(&mut self, now: Instant) {
        self.allowed = false;
        self.cancel_running();
        self.forget_waiting();
        if self.pin.is_some() && self.connected {
            self.open();
            self.unpin(now);
        } else if !matches!(self.phase, Phase::Unpinning { .. }) {
            self.pin = None;
            self.phase = Phase::Off;
        }
    }

    fn stop(&mut self, within: Duration, now: Instant) {
        self.stopping = true;
        match self.phase {
            Phase::Resetting { .. } | Phase::Reading | Phase::Draining { .. } => {
                self.drain(within.min(DRAIN_MAX), now);
            }
            Phase::Unpinning { .. } => {}
            Phase::Probing { .. } => {
                self.cancel_running();
                self.forget_waiting();
                self.unpin(now);
            }
            _ => {
                self.cancel_running();
                self.forget_waiting();
                self.phase = Phase::Off;
            }
        }
    }

    /// Starts nothing more; once nothing runs, the partition is given away.
    fn drain(&mut self, within: Duration, now: Instant) {
        self.forget_waiting();
        self.open();
        self.phase = Phase::Draining {
            cancel_at: now + within,
        };
    }

    fn drained(&mut self, cancel_at: Instant, now: Instant) {
        if self.running.is_empty() {
            self.unpin(now);
        } else if now >= cancel_at {
            self.cancel_running();
        }
    }

    fn unpin(&mut self, now: Instant) {
        self.pin = None;
        self.phase = Phase::Unpinning {
            until: now + ANSWER_TIMEOUT,
        };
        self.actions.push(Action::Unpin);
    }

    fn unpinned(&mut self, now: Instant) {
        self.phase = if self.stopping || !self.allowed {
            Phase::Off
        } else {
            Phase::Pause { until: now + REST }
        };
        if self.stopping && self.running.is_empty() {
            self.end();
        }
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.actions.push(Action::End);
    }

    /// Asks for one message without a pin: whoever gets one is pinned.
    fn ask(&mut self, now: Instant) {
        let expires = if self.reluctant {
            RELUCTANT_EXPIRES
        } else {
            PULL_EXPIRES
        };
        // It is only looked at, not kept.
        self.send_pull(1, 0, expires, now);
    }

    fn pull(&mut self, now: Instant) {
        let events_free = EVENTS_MAX.saturating_sub(self.in_hand());
        let bytes_free = BYTES_MAX.saturating_sub(self.bytes);
        if self.pull.is_none() && events_free >= EVENTS_FREE_MIN && bytes_free >= BYTES_FREE_MIN {
            self.send_pull(events_free as u32, bytes_free as u32, PULL_EXPIRES, now);
        }
    }

    fn send_pull(&mut self, batch: u32, bytes_max: u32, expires: Duration, now: Instant) {
        self.pull_number += 1;
        self.pulled_at = now;
        self.pull = Some(OpenPull {
            number: self.pull_number,
            left: batch,
            until: now + expires + PULL_GRACE,
        });
        self.actions.push(Action::Pull {
            generation: self.generation,
            number: self.pull_number,
            batch,
            bytes_max,
            expires,
            pin: self.pin.clone(),
        });
    }

    /// Keeps the pin while there is no reason to pull.
    fn renew(&mut self, now: Instant) {
        let keeps = matches!(
            self.phase,
            Phase::Resetting { .. } | Phase::Reading | Phase::Draining { .. }
        );
        if keeps
            && now >= self.pulled_at + RENEW_AFTER
            && self.pull.is_none()
            && let Some(pin) = self.pin.clone()
        {
            self.send_renewal(pin, now);
        }
    }

    fn send_renewal(&mut self, pin: String, now: Instant) {
        self.pull_number += 1;
        self.pulled_at = now;
        self.actions.push(Action::Renew {
            generation: self.generation,
            number: self.pull_number,
            pin,
        });
    }

    fn delivered(&mut self, pin: Option<String>, info: DeliveryInfo, delivery: Delivery<D>, now: Instant) {
        match self.phase {
            // It comes again after the reset, in its place.
            Phase::Waiting { .. } => match pin {
                Some(_) => {
                    self.pin = pin;
                    self.pulled_at = now;
                    self.fresh_start(now);
                }
                None => self.fail(now),
            },
            Phase::Reading => {
                if pin != self.pin {
                    self.lose_pin(now);
                } else if info.consumer_sequence == self.expected {
                    self.expected += 1;
                    self.count_delivery();
                    self.take(info, delivery, now);
                } else {
                    self.fresh_start(now);
                }
            }
            // A pull of before; the reset brings it again.
            _ => {}
        }
    }

    fn count_delivery(&mut self) {
        if let Some(pull) = &mut self.pull {
            pull.left = pull.left.saturating_sub(1);
            if pull.left == 0 {
                self.pull = None;
            }
        }
    }

    /// A delivery in its place.
    fn take(&mut self, info: DeliveryInfo, delivery: Delivery<D>, now: Instant) {
        let sequence = info.stream_sequence;
        let known = sequence <= self.highest;
        self.highest = self.highest.max(sequence);
        if let Some(running) = self.running.get_mut(&sequence) {
            // Not acked in time, or started before a fresh start. It counts once.
            let before = running.again.replace(delivery).map_or(0, |again| again.bytes);
            let again = running.again.as_ref().expect("it was just put there").bytes;
            self.bytes = self.bytes + again - before;
        } else if known && self.is_waiting(sequence) {
            self.actions.push(Action::Progress {
                reply: delivery.reply,
            });
        } else if known || self.finished.contains(sequence, info.stored_at) {
            // In this generation everything below is waiting, running or finished.
            self.actions.push(Action::Forget { chat: delivery.chat });
            self.actions.push(Action::Ack {
                reply: delivery.reply,
            });
        } else {
            self.bytes += delivery.bytes;
            let waiting = Waiting {
                sequence,
                stored_at: info.stored_at,
                progress_at: now + PROGRESS_INTERVAL,
                delivery,
            };
            self.queue.push(waiting.delivery.chat.clone(), waiting);
        }
    }

    fn is_waiting(&mut self, sequence: u64) -> bool {
        self.queue.iter_mut().any(|waiting| waiting.sequence == sequence)
    }

    fn status(&mut self, pull: u64, status: ConsumerStatus, unanswered: Option<u32>, now: Instant) {
        let current = self.pull.as_ref().filter(|open| open.number == pull);
        match status {
            ConsumerStatus::Heartbeat => {}
            ConsumerStatus::NotPinned => {
                if !matches!(self.phase, Phase::Waiting { .. } | Phase::Unpinning { .. }) {
                    self.lose_pin(now);
                }
            }
            ConsumerStatus::Empty | ConsumerStatus::Expired | ConsumerStatus::BatchDone => {
                if matches!(self.phase, Phase::Probing { .. }) {
                    // Whatever it says, it does not say that somebody else is pinned.
                    self.fresh_start(now);
                } else if let Some(open) = current {
                    let complete = unanswered.is_none_or(|unanswered| unanswered == open.left);
                    self.pull = None;
                    match &mut self.phase {
                        Phase::Waiting { ask_at } if self.reluctant => *ask_at = now + RELUCTANT_PAUSE,
                        // The server delivered more than came here.
                        Phase::Reading if !complete => self.fresh_start(now),
                        _ => {}
                    }
                }
            }
            ConsumerStatus::Ended | ConsumerStatus::NoResponders | ConsumerStatus::Other(_) => self.fail(now),
        }
    }

    fn start_ready(&mut self, now: Instant) {
        while let Some((chat, waiting)) = self.queue.start() {
            let Delivery {
                bytes,
                reply,
                content,
                ..
            } = waiting.delivery;
            let running = Running {
                chat: chat.clone(),
                stored_at: waiting.stored_at,
                bytes,
                reply,
                progress_at: waiting.progress_at.max(now),
                cancelled: false,
                again: None,
            };
            self.running.insert(waiting.sequence, running);
            self.actions.push(Action::Start {
                sequence: waiting.sequence,
                chat,
                content,
            });
        }
    }

    fn finish(&mut self, sequence: u64) {
        let Some(running) = self.running.remove(&sequence) else {
            return;
        };
        self.bytes -= running.bytes;
        self.finished.insert(sequence, running.stored_at);
        let reply = match running.again {
            Some(again) => {
                self.bytes -= again.bytes;
                self.actions.push(Action::Forget { chat: again.chat });
                again.reply
            }
            None => running.reply,
        };
        self.actions.push(Action::Ack { reply });
        self.queue.done(&running.chat);
    }

    fn abandon(&mut self, sequence: u64, now: Instant) {
        let Some(running) = self.running.remove(&sequence) else {
            return;
        };
        self.bytes -= running.bytes;
        if let Some(delivery) = running.again {
            let waiting = Waiting {
                sequence,
                stored_at: running.stored_at,
                progress_at: now + PROGRESS_INTERVAL,
                delivery,
            };
            self.queue.push_first(running.chat.clone(), waiting);
        }
        self.queue.done(&running.chat);
    }

    fn say_progress(&mut self, now: Instant) {
        if !self.connected || self.pin.is_none() {
            return;
        }
        let waiting = self
            .queue
            .iter_mut()
            .map(|waiting| (&mut waiting.progress_at, &waiting.delivery.reply));
        let running = self.running.values_mut().map(|running| {
            let reply = running
                .again
                .as_ref()
                .map_or(&running.reply, |again| &again.reply);
            (&mut running.progress_at, reply)
        });
        for (progress_at, reply) in waiting.chain(running) {
            if now >= *progress_at {
                *progress_at = now + PROGRESS_INTERVAL;
                self.actions.push(Action::Progress { reply: reply.clone() });
            }
        }
    }
}

/// Events that were finished: their acks may have been lost, and a redelivery is acked only.
#[derive(Debug, Default)]
struct Finished {
    /// Stream sequence, and when it was stored: a stream that was made anew has the sequences again.
    known: HashSet<(u64, u64)>,
    order: VecDeque<(u64, u64)>,
}

impl Finished {
    fn insert(&mut self, sequence: u64, stored_at: u64) {
        if self.known.insert((sequence, stored_at)) {
            self.order.push_back((sequence, stored_at));
        }
        if self.order.len() > FINISHED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn contains(&self, sequence: u64, stored_at: u64) -> bool {
        self.known.contains(&(sequence, stored_at))
    }
}

#[cfg(test)]
mod consumer_model;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod script_tests;
