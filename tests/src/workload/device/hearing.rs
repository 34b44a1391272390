//! What a device makes of what it is told.

use std::time::Duration;

use rand::RngExt as _;
use tidings_client::connection::Closed;
use tidings_protocol::{CloseCode, Reply, ServerFrame};

use super::{Device, RECONNECT, REPEATED, RETRY_AFTER_MAX};
use crate::workload::files::{Upload, fetch};
use crate::workload::outbox::{Answered, Ask};
use crate::workload::session::Session;
use crate::workload::words::are_whole;

impl Device {
    pub(super) fn heard(&mut self, session: &mut Session, frame: ServerFrame) {
        match frame {
            ServerFrame::NewMessage(message) => {
                session.delivered(message.delivery, Some(&mut self.rng));
                for attachment in &message.attachments {
                    fetch(&self.shared, &self.identity, &session.recorder, attachment);
                }
                let mut state = self.shared.world.lock();
                state.report.deliveries += 1;
                if !are_whole(&message.message) {
                    let note = format!("message {} came in part", message.message_id);
                    state.report.surprises.push(note);
                }
                let marker = state.markers.get(&message.chat_id);
                if marker.is_some_and(|marker| marker.message_id == message.message_id) {
                    state.marked.insert((self.identity.client_id, message.message_id));
                }
            }
            ServerFrame::ChatUpdate(update) => {
                session.delivered(update.delivery, Some(&mut self.rng));
                let mut state = self.shared.world.lock();
                state.report.deliveries += 1;
                state.updated(&update);
            }
            ServerFrame::InboxTrimmed(trimmed) => {
                session.delivered(trimmed.delivery, Some(&mut self.rng));
            }
            ServerFrame::CaughtUp(_) => session.caught_up = true,
            ServerFrame::Closing(closing) => {
                self.retry_after = closing.retry_after_ms.map(Duration::from_millis);
            }
            ServerFrame::Reply(reply) => {
                if !session.pinged(reply.id) {
                    self.replied(&reply);
                }
            }
            ServerFrame::Welcome(_) | ServerFrame::Notice(_) | ServerFrame::TokenExpiring(_) => {}
        }
    }

    fn replied(&mut self, reply: &Reply) {
        let Some(Answered { ask, result }) = self.outbox.reply(reply, &mut self.rng) else {
            return;
        };
        if let (Ask::Announce { errand }, Ok(reply)) = (&ask, &result) {
            Upload::begin(&self.shared, self.number, &self.identity, *errand, reply);
        }
        let mut state = self.shared.world.lock();
        match (ask, result) {
            (ask @ Ask::Send { .. }, Ok(reply)) => {
                if reply.duplicate == Some(true) {
                    state.report.duplicates += 1;
                    return;
                }
                state.report.accepted += 1;
                if !self.finishing && self.rng.random_bool(REPEATED) {
                    self.outbox.push(ask);
                }
            }
            // The one who was to mark it is not in the chat any more; somebody else will.
            (
                Ask::Send {
                    chat_id, message_id, ..
                },
                Err(_),
            ) => {
                if state
                    .markers
                    .get(&chat_id)
                    .is_some_and(|marker| marker.message_id == message_id)
                {
                    state.markers.remove(&chat_id);
                }
            }
            (Ask::Create { .. }, _) => state.creations += 1,
            (Ask::Look { .. }, Ok(reply)) => {
                if let Some(chat) = reply.chat {
                    state.looked_up(&chat);
                }
            }
            (Ask::Look { chat_id }, Err(_)) => {
                state.markers.remove(&chat_id);
            }
            (Ask::Announce { .. }, Err(code)) => {
                let note = format!("createAttachment was refused with {code}");
                state.report.surprises.push(note);
            }
            (Ask::Announce { .. } | Ask::Modify { .. } | Ask::Remove { .. }, _) => {}
        }
    }

    /// How long to wait before the next attempt; absent: there is none.
    pub(super) fn closed(&mut self, closed: &Closed) -> Option<Duration> {
        match closed.close_code() {
            Some(CloseCode::Forbidden) => {
                self.removed();
                return None;
            }
            Some(CloseCode::Replaced) => {
                // By nobody but itself: an attempt that was given up, and that a gateway came to answer later. A person
                // would open the program again.
                self.shared.world.lock().report.replaced_by_itself += 1;
            }
            _ => {}
        }
        let wait = match self.retry_after.take() {
            Some(after) => after.min(RETRY_AFTER_MAX) + Duration::from_millis(self.rng.random_range(0..500)),
            None => RECONNECT.delay(self.failures, self.rng.random()),
        };
        self.failures += 1;
        Some(wait)
    }
}
