//! Getting, keeping and giving away the partition: pins, resets, generations, stops.

use std::time::{Duration, Instant};

use super::{Action, PartitionReader, Phase};

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

impl<D> PartitionReader<D> {
    /// Begins anew after an interruption: with the pin of before, if it may still hold.
    pub(super) fn begin_again(&mut self, now: Instant) {
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
    pub(super) fn open(&mut self) {
        self.generation += 1;
        self.pull = None;
        self.actions.push(Action::Open {
            generation: self.generation,
        });
    }

    /// Another is pinned, or nobody: what is in hand is theirs.
    pub(super) fn lose_pin(&mut self, now: Instant) {
        if self.pin.take().is_some() {
            self.cancel_running();
        }
        self.forget_waiting();
        if self.stopping {
            self.phase = Phase::Off;
            return;
        }
        self.open();
        self.in_vain = 0;
        self.phase = Phase::Waiting { ask_at: now };
    }

    /// The consumer or the way to it is not well: tries again in a while.
    pub(super) fn fail(&mut self, now: Instant) {
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

    /// Keeps the pin, forgets what waits, and has the consumer deliver from the beginning of the stream: what is
    /// stored is what is not finished.
    pub(super) fn fresh_start(&mut self, now: Instant) {
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

    pub(super) fn send_reset(&mut self, now: Instant) {
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

    pub(super) fn reset_answered(&mut self, done: bool, now: Instant) {
        if done {
            self.expected = 1;
            self.highest = 0;
            self.phase = Phase::Reading;
        } else {
            self.fresh_start(now);
        }
    }

    pub(super) fn be_reluctant(&mut self, reluctant: bool, now: Instant) {
        let before = std::mem::replace(&mut self.reluctant, reluctant);
        if let Phase::Waiting { ask_at } = &mut self.phase
            && before
            && !reluctant
        {
            *ask_at = now;
        }
    }

    pub(super) fn suspend(&mut self, now: Instant) {
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

    pub(super) fn stop(&mut self, within: Duration, now: Instant) {
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

    /// There are others to take the partition.
    pub(super) fn release(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Resetting { .. } | Phase::Reading) {
            self.drain(DRAIN_MAX, now);
        }
    }

    /// Starts nothing more; once nothing runs, the partition is given away.
    pub(super) fn drain(&mut self, within: Duration, now: Instant) {
        self.forget_waiting();
        self.open();
        self.phase = Phase::Draining {
            cancel_at: now + within,
        };
    }

    pub(super) fn drained(&mut self, cancel_at: Instant, now: Instant) {
        let late = now >= cancel_at;
        // Whoever is pinned next would do again what is not deleted yet.
        if self.running.is_empty() && (self.deleting.is_empty() || late) {
            self.unpin(now);
        } else if late {
            self.cancel_running();
        }
    }

    pub(super) fn unpin(&mut self, now: Instant) {
        self.pin = None;
        self.phase = Phase::Unpinning {
            until: now + ANSWER_TIMEOUT,
        };
        self.actions.push(Action::Unpin);
    }

    pub(super) fn unpinned(&mut self, now: Instant) {
        self.phase = if self.stopping || !self.allowed {
            Phase::Off
        } else {
            Phase::Pause { until: now + REST }
        };
        if self.stopping && self.running.is_empty() {
            self.end();
        }
    }

    pub(super) fn end(&mut self) {
        self.phase = Phase::Ended;
        self.actions.push(Action::End);
    }
}
