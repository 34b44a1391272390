//! Events that can never be processed: they become dead letters.

use tokio_util::sync::CancellationToken;

use super::{FanOut, Incoming, Outcome};
use crate::dead_letter::dead_letter;
use crate::participants::ParticipantsCache;
use crate::tries::Tries;

impl FanOut {
    /// Makes a dead letter of an event, however long that takes.
    pub(super) async fn give_up(
        &self,
        incoming: &Incoming,
        reason: &str,
        tries: u32,
        cancelled: &CancellationToken,
    ) -> Outcome {
        let mut attempts = Tries::default();
        while !cancelled.is_cancelled() {
            match self.bury(incoming, reason, tries).await {
                Ok(()) => return Outcome::Finished,
                Err(error) => tracing::debug!(error, "a dead letter was not stored; trying again"),
            }
            attempts.count_one();
            cancelled
                .run_until_cancelled(tokio::time::sleep(attempts.delay()))
                .await;
        }
        Outcome::Abandoned
    }

    /// One try of that. Says why not.
    pub(super) async fn bury(&self, incoming: &Incoming, reason: &str, tries: u32) -> Result<(), String> {
        match self.payload(incoming).await {
            Ok(Some(payload)) => dead_letter(&self.bus, incoming, payload, reason, tries)
                .await
                .map_err(|error| error.to_string()),
            Ok(None) => Ok(()),
            Err(_) => Err("CHATS does not answer".to_owned()),
        }
    }
}

/// What was given up may have been a change of the chat: the next event finds out anew who is in it.
pub(super) fn forget_chat(participants: &ParticipantsCache, incoming: &Incoming) {
    let chat = incoming.subject.rsplit('.').next().unwrap_or_default();
    if let Ok(chat_id) = chat.parse() {
        participants.forget(chat_id);
    }
}
