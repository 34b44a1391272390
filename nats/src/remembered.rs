//! Whether a stream has taken a message lately, also one that has left it: streams remember ids for their
//! `duplicate_window`.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_MESSAGE_ID, NATS_ROLLUP};
use bytes::Bytes;

use crate::api::{ApiError, Bus};
use crate::publish::PublishError;

/// Neither of the two words that the header may have. A message with it is refused, whatever the stream allows; but one
/// whose id is known is answered as the copy that it is, which is looked at first (nats-server 2.15, with and without
/// replicas; what else refuses a message does so too early, or too late).
const NO_ROLLUP: &str = "none";
/// JetStream's error code for that.
const ROLLUP_REFUSED: u16 = 10111;

impl Bus {
    /// Where the message of this id is or was in the stream of the subject, if the stream remembers it. None says
    /// little: it was never there, or too long ago, or the server was restarted after it had left.
    ///
    /// Nothing is stored and no id is taken.
    pub async fn remembered(
        &self,
        subject: &str,
        message_id: &str,
        timeout: Duration,
    ) -> Result<Option<u64>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, message_id);
        headers.insert(NATS_ROLLUP, NO_ROLLUP);
        let asked = self
            .publish(subject.to_owned(), headers, Bytes::new(), timeout)
            .await;
        match asked {
            Ok(accepted) => Ok(Some(accepted.sequence)),
            Err(PublishError::Unknown(error)) if error.code() == Some(ROLLUP_REFUSED) => Ok(None),
            Err(PublishError::Unknown(error)) => Err(error),
            Err(error) => Err(ApiError::Malformed(error.to_string())),
        }
    }
}
