//! How a device finds out that nothing more comes.

use tidings_client::connection::Closed;
use tokio::time::Instant;

use super::{Device, QUIET};
use crate::workload::session::Session;

impl Device {
    pub(super) fn answer_rest(&mut self, answer: Result<(), String>) {
        if let Some(rest) = self.rest.take() {
            // Whoever asked may have given up.
            rest.done.send(answer).ok();
        }
    }

    /// Whether it has come to rest, or should have.
    pub(super) async fn look_at_rest(&mut self, session: &mut Session) -> Result<(), Closed> {
        let Some(rest) = &self.rest else {
            return Ok(());
        };
        let fresh = self.connections > rest.above;
        let late = rest.deadline <= Instant::now();
        let quiet = session.delivered_at.elapsed() >= QUIET;
        let marked = self.missing_markers().is_empty();
        if fresh
            && session.caught_up
            && self.outbox.len() == 0
            && marked
            && quiet
            && session.settled().await?
        {
            session.recorder.at_rest();
            self.answer_rest(Ok(()));
        } else if late {
            self.give_up_rest(Some(session));
        }
        Ok(())
    }

    pub(super) fn give_up_rest(&mut self, session: Option<&Session>) {
        let reason = match session {
            None => "not connected".to_owned(),
            Some(session) if !session.caught_up => "connected, but caughtUp never came".to_owned(),
            Some(_) if self.outbox.len() > 0 => self.outbox.tell(),
            Some(_) if !self.missing_markers().is_empty() => {
                format!(
                    "the last message never came: {}",
                    self.missing_markers().join(", ")
                )
            }
            Some(_) => "deliveries do not end, or the last ping is not answered".to_owned(),
        };
        if let Some(last) = &self.last {
            last.not_at_rest(reason.clone());
        }
        self.answer_rest(Err(reason));
    }

    /// Chats of which this device should have the last message, and has not.
    pub(super) fn missing_markers(&self) -> Vec<String> {
        let state = self.shared.world.lock();
        let client_id = self.identity.client_id;
        let missing = state.markers.iter().filter(|(_, marker)| {
            marker.sender != client_id
                && marker
                    .users
                    .as_ref()
                    .is_some_and(|users| users.contains(&self.identity.user_id))
                && !state.marked.contains(&(client_id, marker.message_id))
        });
        missing
            .map(|(chat_id, marker)| format!("{} of chat {chat_id}", marker.message_id))
            .collect()
    }
}
