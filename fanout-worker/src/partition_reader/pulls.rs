//! Asking for messages, and what the answers mean.

use std::time::{Duration, Instant};

use tidings_nats::{ConsumerStatus, DeliveryInfo};

use super::{Action, Delivery, OpenPull, PartitionReader, Phase};

/// Events in hand at most: the consumer's `max_ack_pending`, beyond which the server gives out no more. Seven chats that
/// wait for better weather, each at its bound of 500 stored events, do not stop the others.
pub(super) const EVENTS_MAX: usize = 4_096;
/// Events of one pull at most.
pub(super) const BATCH_MAX: usize = 1_024;
/// Bytes in hand at most. The contents that are kept (`payloads.rs`) and the rest of [`EVENTS_MAX`] events leave
/// [`BYTES_FREE_MIN`] free.
pub(super) const BYTES_MAX: usize = 8 * 1024 * 1024;
/// A pull is sent when at least so much is free: more than the largest message of CHATS (1 MiB and its headers), so
/// that no pull is answered by "does not fit" again and again.
pub(super) const BYTES_FREE_MIN: usize = 2 * 1024 * 1024;
/// A pull for a handful of events costs as much as one for many.
pub(super) const EVENTS_FREE_MIN: usize = BATCH_MAX / 4;
/// How long a pull waits at the server when it follows another; at any other moment between a quarter of that and a quarter
/// more, since all pulls of a worker end together, so that those which nothing came for wake it and the server once, and not once for
/// each partition. A pin is renewed by pulls only, and lasts 5 s (`priority_timeout` of `nats/definitions/fanout.json`): the longest
/// pull, [`PULL_GRACE`] and a tick of the task are 4.7.
const PULL_EXPIRES: Duration = Duration::from_secs(2);
/// An answer that comes later than this after a pull has expired will never come.
const PULL_GRACE: Duration = Duration::from_secs(2);
/// Without a pull for so long, one is sent only to renew the pin.
const RENEW_AFTER: Duration = Duration::from_millis(1_500);
/// A worker that holds its share asks for further partitions only so long …
const RELUCTANT_EXPIRES: Duration = Duration::from_secs(1);
/// … and pauses so long in between: whoever has less is asked first, and yet nothing stays unread.
const RELUCTANT_PAUSE: Duration = Duration::from_secs(2);
/// After the first pull that nothing came for, and then after so many, some 10 s, it is looked whether there is really
/// nothing: a consumer that has forgotten an event (adr/0019) delivers it to nobody, whoever waits to be pinned is not, and
/// whoever was pinned before an election does not hear that he is no longer. A look is two requests, most of the time.
const LOOK_EVERY: u32 = 5;

impl<D> PartitionReader<D> {
    /// Asks for one message without a pin: whoever gets one is pinned.
    pub(super) fn ask(&mut self, now: Instant) {
        let expires = if self.reluctant {
            RELUCTANT_EXPIRES
        } else {
            self.expires(now)
        };
        // It is only looked at, not kept.
        self.send_pull(1, 0, expires, now);
    }

    pub(super) fn pull(&mut self, now: Instant) {
        if self.pull.is_some() {
            return;
        }
        let events_free = EVENTS_MAX.saturating_sub(self.in_hand());
        let bytes_free = BYTES_MAX.saturating_sub(self.bytes);
        if events_free >= EVENTS_FREE_MIN && bytes_free >= BYTES_FREE_MIN {
            self.send_pull(
                events_free.min(BATCH_MAX) as u32,
                bytes_free as u32,
                self.expires(now),
                now,
            );
        }
    }

    /// How long a pull of this moment waits.
    fn expires(&self, now: Instant) -> Duration {
        let passed = now.duration_since(self.began).as_nanos() % PULL_EXPIRES.as_nanos();
        let left = PULL_EXPIRES.saturating_sub(Duration::from_nanos(passed as u64));
        if left < PULL_EXPIRES / 4 {
            left + PULL_EXPIRES
        } else {
            left
        }
    }

    pub(super) fn send_pull(&mut self, batch: u32, bytes_max: u32, expires: Duration, now: Instant) {
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
    pub(super) fn renew(&mut self, now: Instant) {
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

    pub(super) fn send_renewal(&mut self, pin: String, now: Instant) {
        self.pull_number += 1;
        self.pulled_at = now;
        self.actions.push(Action::Renew {
            generation: self.generation,
            number: self.pull_number,
            pin,
        });
    }

    pub(super) fn delivered(
        &mut self,
        pin: Option<String>,
        info: DeliveryInfo,
        delivery: Delivery<D>,
        now: Instant,
    ) {
        self.unanswered = 0;
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

    fn look_after_vain_pull(&mut self) {
        if self.in_vain.is_multiple_of(LOOK_EVERY) {
            self.actions.push(Action::Look);
        }
        self.in_vain += 1;
    }

    /// Nobody answers for a consumer that is not there, either.
    pub(super) fn unanswered_pull(&mut self, now: Instant) {
        if self.unanswered.is_multiple_of(LOOK_EVERY) {
            self.actions.push(Action::Look);
        }
        self.unanswered += 1;
        self.fail(now);
    }

    pub(super) fn count_delivery(&mut self) {
        self.in_vain = 0;
        if let Some(pull) = &mut self.pull {
            pull.left = pull.left.saturating_sub(1);
            if pull.left == 0 {
                self.pull = None;
            }
        }
    }

    pub(super) fn status(
        &mut self,
        pull: u64,
        status: ConsumerStatus,
        unanswered: Option<u32>,
        now: Instant,
    ) {
        let current = self.pull.as_ref().filter(|open| open.number == pull);
        if !matches!(status, ConsumerStatus::NoResponders) {
            self.unanswered = 0;
        }
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
                    let idle = self.in_hand() == 0;
                    match &mut self.phase {
                        Phase::Waiting { ask_at } => {
                            if self.reluctant {
                                *ask_at = now + RELUCTANT_PAUSE;
                            }
                            self.look_after_vain_pull();
                        }
                        // The server delivered more than came here.
                        Phase::Reading if !complete => self.fresh_start(now),
                        Phase::Reading if idle => self.look_after_vain_pull(),
                        _ => {}
                    }
                }
            }
            ConsumerStatus::NoResponders => self.unanswered_pull(now),
            ConsumerStatus::Ended | ConsumerStatus::Other(_) => self.fail(now),
        }
    }
}
