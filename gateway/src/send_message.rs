//! `sendMessage`: SUCCESS only after JetStream's publish ack.
//!
//! A message that names attachments asks Postgres first; one that names none does not.

use std::time::{Duration, Instant};

use tidings_nats::{Event, HEADER_GRANTED, Message, chat_subject, event_headers};
use tidings_protocol::{Error, Reply, SendMessage};
use tidings_service::{Kind, Span, clock};

use crate::gateway::Gateway;
use crate::sessions::SessionHandle;
use crate::unavailable::publish_error;

/// For the publish ack. A leader election takes 4 to 9 seconds; a client that waits longer retries with the same id.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

impl Gateway {
    /// Accepts a message, or says why not. One that is traced has a span.
    pub(crate) async fn send_message(
        &self,
        session: &SessionHandle,
        request: SendMessage,
        span: Option<&Span>,
    ) -> Result<Reply, Error> {
        let started = Instant::now();
        self.chat_of(request.chat_id, &session.user_id).await?;
        self.rate_limits.check_chat(request.chat_id)?;
        let grant = if request.attachments.is_empty() {
            None
        } else {
            Some(self.grant(&session.user_id, &request).await?)
        };
        let (version, attachments) = grant.map(|grant| (grant.version, grant.attachments)).unzip();
        let sent_at = clock::now();
        let event = Event::Message(Message {
            chat_id: request.chat_id,
            message_id: request.message_id,
            user_id: session.user_id.clone(),
            client_id: session.client_id,
            sent_at,
            message: request.message,
            attachments: attachments.unwrap_or_default(),
        });
        let subject = chat_subject(self.topology.partition(request.chat_id), request.chat_id);
        let mut headers = event_headers(&event, &event.message_id());
        if let Some(version) = version {
            headers.insert(HEADER_GRANTED, version.to_string());
        }
        let mut publish = span.and_then(|span| Span::child(span.context(), "publish", Kind::Producer));
        if let Some(publish) = &publish {
            publish.context().put(&mut headers);
        }
        let accepted = self
            .publisher
            .bus()
            .publish(subject, headers, event.encode(), PUBLISH_TIMEOUT)
            .await;
        if let Some(publish) = &mut publish {
            match &accepted {
                Ok(accepted) => publish.set("stream.sequence", accepted.sequence as i64),
                Err(error) => publish.fail(error.to_string()),
            }
        }
        drop(publish);
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
