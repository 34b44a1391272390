//! `sendMessage`: SUCCESS only after JetStream's publish ack.

use std::time::{Duration, Instant};

use tidings_nats::{Event, Message, chat_subject, event_headers};
use tidings_protocol::{Error, ErrorCode, Reply, SendMessage};
use tidings_service::clock;

use crate::gateway::Gateway;
use crate::sessions::SessionHandle;
use crate::unavailable::publish_error;

/// For the publish ack. A leader election takes 4 to 9 seconds; a client that waits longer retries with the same id.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

impl Gateway {
    /// Accepts a message, or says why not.
    pub(crate) async fn send_message(
        &self,
        session: &SessionHandle,
        request: SendMessage,
    ) -> Result<Reply, Error> {
        let started = Instant::now();
        if !request.attachments.is_empty() {
            let message = "attachments are not served by this version";
            return Err(Error::new(ErrorCode::AttachmentForbidden, message).at("attachments[0]"));
        }
        self.chat_of(request.chat_id, &session.user_id).await?;
        self.rate_limits.check_chat(request.chat_id)?;
        let sent_at = clock::now();
        let event = Event::Message(Message {
            chat_id: request.chat_id,
            message_id: request.message_id,
            user_id: session.user_id.clone(),
            client_id: session.client_id,
            sent_at,
            message: request.message,
            attachments: Vec::new(),
        });
        let subject = chat_subject(self.topology.partition(request.chat_id), request.chat_id);
        let headers = event_headers(&event, &event.message_id());
        let accepted = self
            .publisher
            .bus()
            .publish(subject, headers, event.encode(), PUBLISH_TIMEOUT)
            .await;
        let accepted = accepted.map_err(|error| publish_error(&error))?;
        metrics::histogram!("tidings_accept_seconds").record(started.elapsed());
        metrics::counter!("tidings_messages_accepted_total").increment(1);
        Ok(Reply {
            seq: Some(accepted.sequence),
            sent_at: Some(sent_at),
            duplicate: accepted.duplicate.then_some(true),
            ..Reply::success(request.id)
        })
    }
}
