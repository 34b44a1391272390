//! An event on its way through a worker.

use async_nats::HeaderMap;
use bytes::Bytes;
use tidings_nats::{CHATS, Lane};
use tidings_service::clock;

use super::FanOut;
use super::entries::PUBLISH_TIMEOUT;
use crate::payloads::Held;
use crate::tries::Failure;

/// An event as CHATS delivered it.
pub(crate) struct Incoming {
    /// Its stream sequence.
    pub(crate) sequence: u64,
    /// When CHATS stored it, in nanoseconds since 1970 by the clock of its leader.
    pub(crate) stored_at: u64,
    /// In which order it is told.
    pub(crate) lane: Lane,
    /// `chat.<partition>.<chat>`.
    pub(crate) subject: String,
    /// As the gateway wrote them.
    pub(crate) headers: HeaderMap,
    /// The event. Without it, it is read again when it is needed.
    pub(crate) payload: Option<(Bytes, Held)>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("sequence", &self.sequence)
            .field("subject", &self.subject)
            .field(
                "payload_bytes",
                &self.payload.as_ref().map(|(payload, _)| payload.len()),
            )
            .finish_non_exhaustive()
    }
}

impl Incoming {
    /// How long ago it was accepted. Two clocks are compared: never less than nothing.
    pub(crate) fn age_seconds(&self) -> f64 {
        let milliseconds = (self.stored_at / 1_000_000) as i64;
        clock::now().0.saturating_sub(milliseconds).max(0) as f64 / 1000.0
    }
}

impl FanOut {
    /// What the event says; nothing, if it has left CHATS meanwhile: another worker has finished it.
    pub(super) async fn payload(&self, incoming: &Incoming) -> Result<Option<Bytes>, Failure> {
        if let Some((payload, _)) = &incoming.payload {
            return Ok(Some(payload.clone()));
        }
        metrics::counter!("tidings_fanout_read_again_total").increment(1);
        let again = self.bus.message_now(CHATS, incoming.sequence, PUBLISH_TIMEOUT);
        // Boxed, since few events are read again and every one has room for this.
        let stored = Box::pin(again)
            .await
            .map_err(|error| Failure::Weather(format!("CHATS does not answer: {error}")))?;
        Ok(stored.map(|stored| stored.payload))
    }
}
