//! Publishing to a stream, with an answer that says what the caller can do.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use serde::Deserialize;

use crate::api::{ApiError, Bus, answer};

/// JetStream's error code when a stream's or a subject's bound refuses a message.
const STORE_FAILED: u16 = 10077;
/// JetStream's error code when a message is larger than the stream's bound.
const MESSAGE_TOO_LARGE: u16 = 10054;

/// A publish ack.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Accepted {
    /// Where the message is in the stream; of a duplicate, where the first one is.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// It was there already.
    #[serde(default)]
    pub duplicate: bool,
}

/// Why a publish was not acked.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum PublishError {
    /// The subject holds as many messages as it may.
    #[error("the subject is full")]
    SubjectFull,
    /// The stream holds as many bytes as it may.
    #[error("the stream is full: {0}")]
    StreamFull(String),
    /// The message is larger than the stream takes. Will never succeed.
    #[error("the message is too large")]
    TooLarge,
    /// Anything else: not known whether it was stored. Retry with the same id.
    #[error(transparent)]
    Unknown(ApiError),
}

impl Bus {
    /// Publishes and waits for the publish ack. `headers` carry the `Nats-Msg-Id`. Nothing is sent while the
    /// connection is down: what is queued for a dead connection would be flushed long after the answer.
    pub async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Accepted, PublishError> {
        if !self.connected() {
            return Err(PublishError::Unknown(ApiError::Disconnected));
        }
        let request = Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(timeout));
        let message = self
            .client()
            .send_request(subject.clone(), request)
            .await
            .map_err(|error| match error.kind() {
                // The client library counts headers and payload against what the server takes.
                RequestErrorKind::MaxPayloadExceeded => PublishError::TooLarge,
                kind => PublishError::Unknown(self.request_error(kind, subject)),
            })?;
        answer::<Accepted>(&message.payload).map_err(publish_error)
    }

    /// [`Self::publish`] with a `Nats-Msg-Id` and no other header.
    pub async fn publish_with_id(
        &self,
        subject: String,
        message_id: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Accepted, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, message_id);
        self.publish(subject, headers, payload, timeout).await
    }
}

/// JetStream tells several bounds by one code; only its sentence says which.
fn publish_error(error: ApiError) -> PublishError {
    match &error {
        ApiError::Refused {
            code: STORE_FAILED,
            description,
        } => {
            if description.contains("per subject") {
                PublishError::SubjectFull
            } else if description.contains("maximum") {
                PublishError::StreamFull(description.clone())
            } else {
                PublishError::Unknown(error)
            }
        }
        ApiError::Refused {
            code: MESSAGE_TOO_LARGE,
            ..
        } => PublishError::TooLarge,
        _ => PublishError::Unknown(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, description: &str) -> PublishError {
        let payload = format!(
            r#"{{"error":{{"code":503,"err_code":{code},"description":"{description}"}},"stream":"CHATS","seq":0}}"#
        );
        publish_error(answer::<Accepted>(payload.as_bytes()).expect_err("an error"))
    }

    #[test]
    fn bounds_are_told_apart_by_the_sentence() {
        assert_eq!(
            refused(10077, "maximum messages per subject exceeded"),
            PublishError::SubjectFull
        );
        assert!(matches!(
            refused(10077, "maximum bytes exceeded"),
            PublishError::StreamFull(_)
        ));
        assert!(matches!(refused(10077, "store closed"), PublishError::Unknown(_)));
        assert!(matches!(refused(10158, "expected"), PublishError::Unknown(_)));
    }

    #[test]
    fn an_ack_is_read() {
        let payload = br#"{"stream":"CHATS","seq":41,"duplicate":true}"#;
        assert_eq!(
            answer(payload),
            Ok(Accepted {
                sequence: 41,
                duplicate: true
            })
        );
    }
}
