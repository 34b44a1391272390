//! What is in hand: waiting, running, finished.

use std::time::{Duration, Instant};

use tidings_nats::DeliveryInfo;

use super::{Action, Delivery, PartitionReader, Running, Waiting};

/// An event that waits or runs is said to be in progress at a third of the consumer's `ack_wait` of 6 s.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

impl<D> PartitionReader<D> {
    /// A delivery in its place.
    pub(super) fn take(&mut self, info: DeliveryInfo, delivery: Delivery<D>, now: Instant) {
        let sequence = info.stream_sequence;
        let known = sequence <= self.highest;
        self.highest = self.highest.max(sequence);
        if let Some(running) = self.running.get_mut(&sequence) {
            if running.stored_at != info.stored_at {
                // Another event has its place: the stream has lost its end. What runs is of the one that was lost.
                self.cancel_running();
                return self.fresh_start(now);
            }
            running.connection = self.connection;
            // Not deleted in time, or started before a fresh start. It counts once.
            let before = running.again.replace(delivery).map_or(0, |again| again.bytes);
            let again = running.again.as_ref().expect("it was just put there").bytes;
            self.bytes = self.bytes + again - before;
        } else if known && self.is_waiting(sequence) {
            self.actions.push(Action::Progress {
                reply: delivery.reply,
            });
        } else if self.finished.contains(sequence, info.stored_at) {
            self.actions.push(Action::Forget { chat: delivery.chat });
            self.delete(sequence);
        } else if known {
            // In this generation everything below was to be waiting, running or finished: the consumer has gone astray.
            self.fresh_start(now);
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

    pub(super) fn is_waiting(&mut self, sequence: u64) -> bool {
        self.queue.iter_mut().any(|waiting| waiting.sequence == sequence)
    }

    pub(super) fn start_ready(&mut self, now: Instant) {
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
                connection: self.connection,
                bytes,
                reply,
                progress_at: waiting.progress_at.max(now),
                cancelled: false,
                blocks: true,
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

    pub(super) fn told(&mut self, sequence: u64) {
        if let Some(running) = self.running.get_mut(&sequence)
            && running.blocks
            && !running.cancelled
        {
            running.blocks = false;
            self.queue.done(&running.chat);
        }
    }

    pub(super) fn finish(&mut self, sequence: u64) {
        let Some(running) = self.running.remove(&sequence) else {
            return;
        };
        self.bytes -= running.bytes;
        self.finished.insert(sequence, running.stored_at);
        if let Some(again) = running.again {
            self.bytes -= again.bytes;
            self.actions.push(Action::Forget { chat: again.chat });
        }
        // A stream that was away may have come back without its end, and have another event in this place. If it is
        // this one it comes again.
        if running.connection == self.connection {
            self.delete(sequence);
        }
        if running.blocks {
            self.queue.done(&running.chat);
        }
    }

    /// Asks once at a time. Where that fails the event comes again, at the latest after the consumer's `ack_wait`.
    fn delete(&mut self, sequence: u64) {
        if self.deleting.insert(sequence) {
            self.actions.push(Action::Delete { sequence });
        }
    }

    pub(super) fn abandon(&mut self, sequence: u64, now: Instant) {
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
            let is_later = |other: &Waiting<D>| other.sequence > sequence;
            self.queue.push_before(running.chat.clone(), waiting, is_later);
        }
        if running.blocks {
            self.queue.done(&running.chat);
        }
    }

    pub(super) fn forget_waiting(&mut self) {
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

    /// The last ones first: whatever goes on when one has ended is before that one, so it cannot take the place of what it
    /// should have waited for.
    pub(super) fn cancel_running(&mut self) {
        for (sequence, running) in self.running.iter_mut().rev() {
            if !running.cancelled {
                running.cancelled = true;
                if !running.blocks {
                    // It may be worked on again, and what comes after it in its chat must not be before it then.
                    running.blocks = true;
                    self.queue.block(&running.chat);
                }
                self.actions.push(Action::Cancel { sequence: *sequence });
            }
        }
    }

    pub(super) fn say_progress(&mut self, now: Instant) {
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
