//! A NATS connection, and the JetStream requests that need more control than the client library gives: own
//! time limits, error codes as numbers, `no_erase`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::client::RequestErrorKind;
use async_nats::connection::State;
use async_nats::{Client, Request};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidings_protocol::Timestamp;

use crate::as_of_now::Leaderships;
use crate::denials::Denials;

/// Error code of a consumer that does not exist.
pub(crate) const CONSUMER_NOT_FOUND: u16 = 10014;
/// Error code of a message that does not exist.
const MESSAGE_NOT_FOUND: u16 = 10037;
/// Error code of deleting a sequence that holds nothing, between others that do.
const SEQUENCE_NOT_FOUND: u16 = 10043;
/// Error code of a deletion that failed, whatever the reason.
pub(crate) const DELETE_FAILED: u16 = 10057;
/// The reasons of a [`DELETE_FAILED`] that say that there is nothing: before the stream's first message, and beyond
/// its last one.
const NOTHING_TO_DELETE: [&str; 2] = ["no message found", "stream store EOF"];
/// Error codes when the last sequence of a subject is not the expected one: it is another one, or, with several
/// replicas, it is about to be.
const WRONG_LAST_SEQUENCE: [u16; 2] = [10071, 10164];

/// Why a request to JetStream did not do its work.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ApiError {
    /// JetStream said no.
    #[error("{description} ({code})")]
    Refused {
        /// The server's `err_code`.
        code: u16,
        /// The server's sentence.
        description: String,
    },
    /// No answer in time: it may have been done.
    #[error("no answer in time")]
    Timeout,
    /// Nobody listens: no such stream, or no leader.
    #[error("nobody listens on {0}")]
    NoResponders(String),
    /// This process's user may not ask that, and nothing was done; or it may not hear the answer.
    #[error("this NATS user has no permission for {0}")]
    Forbidden(String),
    /// No connection; nothing was sent.
    #[error("not connected")]
    Disconnected,
    /// An answer that this build does not understand.
    #[error("answer not understood: {0}")]
    Malformed(String),
}

impl ApiError {
    /// The server's error code, if it answered.
    pub const fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the thing asked for does not exist, or no longer.
    pub fn not_found(&self) -> bool {
        match self {
            Self::Refused {
                code: CONSUMER_NOT_FOUND | MESSAGE_NOT_FOUND | SEQUENCE_NOT_FOUND,
                ..
            } => true,
            Self::Refused {
                code: DELETE_FAILED,
                description,
            } => NOTHING_TO_DELETE.contains(&description.as_str()),
            _ => false,
        }
    }

    /// Whether the last sequence of the subject was not the one that a publish expected: somebody else wrote.
    pub fn is_wrong_last_sequence(&self) -> bool {
        self.code()
            .is_some_and(|code| WRONG_LAST_SEQUENCE.contains(&code))
    }
}

/// Where a stream begins and ends, according to its leader.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StreamBounds {
    /// How many messages it holds.
    pub messages: u64,
    /// The sequence of its first message.
    pub first_sequence: u64,
    /// When that was stored, by the clock of who was leader then.
    pub first_stored_at: Timestamp,
    /// The sequence of its last message, whether it is still there or not.
    pub last_sequence: u64,
    /// What time it is, by the leader's clock.
    pub now: Timestamp,
}

/// A NATS connection with JetStream. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    client: Client,
    jetstream: async_nats::jetstream::Context,
    leaderships: Arc<Leaderships>,
    denials: Arc<Denials>,
}

impl Bus {
    /// Around a connection, of which nobody says what it was forbidden.
    pub fn new(client: Client) -> Self {
        Self::with_denials(client, Arc::default())
    }

    /// Around a connection, and what is known to have been forbidden on it.
    pub fn with_denials(client: Client, denials: Arc<Denials>) -> Self {
        let jetstream = async_nats::jetstream::new(client.clone());
        Self {
            client,
            jetstream,
            leaderships: Arc::default(),
            denials,
        }
    }

    /// The connection.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The client library's JetStream.
    pub const fn jetstream(&self) -> &async_nats::jetstream::Context {
        &self.jetstream
    }

    pub(crate) fn leaderships(&self) -> &Leaderships {
        &self.leaderships
    }

    /// Whether the connection is up now.
    pub fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// A request to `$JS.API.<subject>` with a JSON body.
    pub async fn api<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: &(impl Serialize + Sync),
        timeout: Duration,
    ) -> Result<T, ApiError> {
        let payload = serde_json::to_vec(body).expect("API bodies have string keys");
        let payload = self
            .raw(format!("$JS.API.{subject}"), payload.into(), timeout)
            .await?;
        answer(&payload)
    }

    /// Deletes a stored message without erasing its bytes. One that is gone already is deleted.
    pub async fn delete_message(
        &self,
        stream: &str,
        sequence: u64,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Body {
            seq: u64,
            no_erase: bool,
        }
        let body = Body {
            seq: sequence,
            no_erase: true,
        };
        let subject = format!("STREAM.MSG.DELETE.{stream}");
        match self.api::<serde::de::IgnoredAny>(&subject, &body, timeout).await {
            Err(error) if !error.not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Where a stream begins and ends.
    pub async fn stream_bounds(&self, stream: &str, timeout: Duration) -> Result<StreamBounds, ApiError> {
        #[derive(Deserialize)]
        struct Info {
            ts: Timestamp,
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            messages: u64,
            first_seq: u64,
            first_ts: Timestamp,
            last_seq: u64,
        }
        let Info { ts, state } = self
            .api(&format!("STREAM.INFO.{stream}"), &serde_json::json!({}), timeout)
            .await?;
        Ok(StreamBounds {
            messages: state.messages,
            first_sequence: state.first_seq,
            first_stored_at: state.first_ts,
            last_sequence: state.last_seq,
            now: ts,
        })
    }

    /// How many messages each subject that matches a filter holds, according to the stream's leader; subjects
    /// that hold none are not there. For filters that match hundreds: the server answers at most 100,000.
    pub async fn messages_by_subject(
        &self,
        stream: &str,
        filter: &str,
        timeout: Duration,
    ) -> Result<BTreeMap<String, u64>, ApiError> {
        #[derive(Serialize)]
        struct Body<'a> {
            subjects_filter: &'a str,
        }
        #[derive(Deserialize)]
        struct Info {
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            #[serde(default)]
            subjects: BTreeMap<String, u64>,
        }
        let body = Body {
            subjects_filter: filter,
        };
        let info: Info = self.api(&format!("STREAM.INFO.{stream}"), &body, timeout).await?;
        Ok(info.state.subjects)
    }

    /// Deletes every message of a subject.
    pub async fn purge_subject(
        &self,
        stream: &str,
        subject: &str,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Body<'a> {
            filter: &'a str,
        }
        let body = Body { filter: subject };
        self.api::<serde::de::IgnoredAny>(&format!("STREAM.PURGE.{stream}"), &body, timeout)
            .await?;
        Ok(())
    }

    /// Deletes every message of a subject up to a sequence, that one included; says how many there were.
    pub async fn purge_subject_up_to(
        &self,
        stream: &str,
        subject: &str,
        sequence: u64,
        timeout: Duration,
    ) -> Result<u64, ApiError> {
        #[derive(Serialize)]
        struct Body<'a> {
            filter: &'a str,
            /// The first sequence that stays.
            seq: u64,
        }
        #[derive(Deserialize)]
        struct Answer {
            purged: u64,
        }
        let body = Body {
            filter: subject,
            seq: sequence + 1,
        };
        let answer: Answer = self
            .api(&format!("STREAM.PURGE.{stream}"), &body, timeout)
            .await?;
        Ok(answer.purged)
    }

    /// A request to any subject, with any body.
    pub(crate) async fn raw(
        &self,
        subject: String,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, ApiError> {
        if !self.connected() {
            return Err(ApiError::Disconnected);
        }
        let request = Request::new().payload(payload).timeout(Some(timeout));
        match self.client.send_request(subject.clone(), request).await {
            Ok(message) => Ok(message.payload),
            Err(error) => Err(self.request_error(error.kind(), subject)),
        }
    }

    /// What a failed request means here.
    pub(crate) fn request_error(&self, kind: RequestErrorKind, subject: String) -> ApiError {
        match kind {
            RequestErrorKind::NoResponders => ApiError::NoResponders(subject),
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                ApiError::Malformed(format!("{kind}: {subject}"))
            }
            RequestErrorKind::TimedOut | RequestErrorKind::Other => self.no_answer(&subject),
        }
    }

    /// Why there is no answer.
    pub(crate) fn no_answer(&self, subject: &str) -> ApiError {
        match self.denials.of_request(subject, Instant::now()) {
            Some(forbidden) => ApiError::Forbidden(forbidden),
            None => ApiError::Timeout,
        }
    }
}

/// Reads JetStream's answer, or the error in it.
pub(crate) fn answer<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ApiError> {
    #[derive(Deserialize)]
    struct Failure {
        error: Detail,
    }
    #[derive(Deserialize)]
    struct Detail {
        #[serde(default)]
        err_code: u16,
        #[serde(default)]
        description: String,
    }
    if let Ok(Failure { error }) = serde_json::from_slice(payload) {
        return Err(ApiError::Refused {
            code: error.err_code,
            description: error.description,
        });
    }
    serde_json::from_slice(payload).map_err(|error| ApiError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, description: &str) -> ApiError {
        ApiError::Refused {
            code,
            description: description.to_owned(),
        }
    }

    #[test]
    fn what_is_gone_already_is_told_from_what_cannot_be_deleted() {
        for (code, description) in [
            (10014, "consumer not found"),
            (10037, "no message found"),
            (10043, "sequence 3 not found"),
            (10057, "no message found"),
            (10057, "stream store EOF"),
        ] {
            assert!(refused(code, description).not_found(), "{code} {description}");
        }
        for (code, description) in [
            (10057, "stream msg delete failed: permission denied"),
            (10008, "system temporarily unavailable"),
        ] {
            assert!(!refused(code, description).not_found(), "{code} {description}");
        }
        assert!(!ApiError::Timeout.not_found());
    }
}
