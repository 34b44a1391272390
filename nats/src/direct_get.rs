//! Direct Get (ADR-31 of NATS): reading stored messages without a consumer. Any replica answers, so what is
//! read may be behind, but never has a hole before its end.

use std::time::Duration;

use async_nats::{Message, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::StreamExt;
use serde::de::IntoDeserializer as _;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use tidings_protocol::Timestamp;

use crate::api::{ApiError, Bus};
use crate::headers::TRACE;

/// The most subjects that one `multi_last` may name; the server's bound.
pub(crate) const MULTI_LAST_MAX: usize = 1024;

/// A message as a stream stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// On which subject.
    pub subject: String,
    /// Its stream sequence.
    pub sequence: u64,
    /// When the stream stored it, by the server's clock.
    pub stored_at: Timestamp,
    /// Its bytes.
    pub payload: Bytes,
    /// Its [`TRACE`] header, if it has one; a stream's leader does not say.
    pub trace: Option<Box<str>>,
}

/// Why a read did not finish.
pub type DirectGetError = ApiError;

#[derive(Serialize)]
struct NextBySubject<'a> {
    seq: u64,
    batch: u32,
    max_bytes: u32,
    next_by_subj: &'a str,
}

#[derive(Serialize)]
pub(crate) struct MultiLast<'a, S> {
    pub(crate) multi_last: &'a [S],
    pub(crate) batch: usize,
}

#[derive(Serialize)]
pub(crate) struct NextOfSubject<'a> {
    pub(crate) seq: u64,
    pub(crate) next_by_subj: &'a str,
}

#[derive(Serialize)]
struct BySequence {
    seq: u64,
}

#[derive(Serialize)]
struct NextSince<'a> {
    start_time: Timestamp,
    next_by_subj: &'a str,
}

#[derive(Serialize)]
pub(crate) struct LastBySubject<'a> {
    pub(crate) last_by_subj: &'a str,
}

/// What a stream's leader answers to `STREAM.MSG.GET`.
#[derive(Deserialize)]
#[serde(bound = "H: DeserializeOwned + Default")]
struct Answer<H> {
    message: Stored<H>,
}

#[derive(Deserialize)]
struct Stored<H> {
    subject: String,
    seq: u64,
    time: Timestamp,
    #[serde(default)]
    hdrs: H,
    #[serde(default)]
    data: String,
}

/// Reads what JetStream writes into its answers.
pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, ApiError> {
    let bytes = BASE64.decode(text);
    bytes.map_err(|error| ApiError::Malformed(error.to_string()))
}

/// What a Direct Get of several messages found.
pub(crate) struct Found {
    pub(crate) messages: Vec<StoredMessage>,
    /// There is more.
    pub(crate) more: bool,
    /// The last sequence of whoever answered, where it says so.
    pub(crate) up_to: Option<u64>,
}

impl Bus {
    /// The messages of one subject from a sequence on, in order, at most `batch` and about `max_bytes`. The
    /// flag says that there are more.
    pub async fn next_by_subject(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        batch: u32,
        max_bytes: u32,
        timeout: Duration,
    ) -> Result<(Vec<StoredMessage>, bool), DirectGetError> {
        let body = NextBySubject {
            seq: from,
            batch,
            max_bytes,
            next_by_subj: subject,
        };
        let found = self.direct_get_many(stream, &body, timeout).await?;
        Ok((found.messages, found.more))
    }

    /// The last message of each subject that has one.
    pub async fn last_by_subjects(
        &self,
        stream: &str,
        subjects: &[String],
        timeout: Duration,
    ) -> Result<Vec<StoredMessage>, DirectGetError> {
        let mut last = Vec::new();
        for subjects in subjects.chunks(MULTI_LAST_MAX) {
            let body = MultiLast {
                multi_last: subjects,
                batch: subjects.len(),
            };
            last.extend(self.direct_get_many(stream, &body, timeout).await?.messages);
        }
        Ok(last)
    }

    /// The last message of each subject that matches a filter with wildcards, of which there may be `subjects_max`
    /// (at most 1,024); more are an error.
    pub async fn last_by_filter(
        &self,
        stream: &str,
        filter: &str,
        subjects_max: usize,
        timeout: Duration,
    ) -> Result<Vec<StoredMessage>, DirectGetError> {
        let body = MultiLast {
            multi_last: &[filter],
            batch: subjects_max.min(MULTI_LAST_MAX),
        };
        let found = self.direct_get_many(stream, &body, timeout).await?;
        if found.more {
            return Err(ApiError::Malformed(format!(
                "more than {subjects_max} subjects match {filter}"
            )));
        }
        Ok(found.messages)
    }

    /// The message at a sequence, from whichever replica answers: "not there" is no news of one that is behind
    /// ([`Self::message_now`]).
    pub async fn message_at(
        &self,
        stream: &str,
        sequence: u64,
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, DirectGetError> {
        let api = format!("$JS.API.DIRECT.GET.{stream}");
        let body = serde_json::to_vec(&BySequence { seq: sequence }).expect("API bodies have string keys");
        self.direct_get_one(api, body.into(), timeout).await
    }

    /// The first message of a subject, which may have wildcards, from a sequence on, from whichever replica answers.
    pub async fn first_from(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, DirectGetError> {
        let api = format!("$JS.API.DIRECT.GET.{stream}");
        let body = NextOfSubject {
            seq: from,
            next_by_subj: subject,
        };
        let body = serde_json::to_vec(&body).expect("API bodies have string keys");
        self.direct_get_one(api, body.into(), timeout).await
    }

    /// The last message of one subject.
    pub async fn last_by_subject(
        &self,
        stream: &str,
        subject: &str,
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, DirectGetError> {
        let api = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
        self.direct_get_one(api, Bytes::new(), timeout).await
    }

    async fn direct_get_one(
        &self,
        api: String,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, DirectGetError> {
        let request = Request::new().payload(body).timeout(Some(timeout));
        let message = self
            .client()
            .send_request(api.clone(), request)
            .await
            .map_err(|error| self.request_error(error.kind(), api))?;
        match message.status.map(|status| status.as_u16()) {
            Some(404) => Ok(None),
            Some(code) => Err(ApiError::Refused {
                code,
                description: message.description.unwrap_or_default(),
            }),
            None => stored(message).map(Some),
        }
    }

    /// The first message of a subject from a sequence on, asked of the stream's leader. Slower than Direct Get, which
    /// may be behind; a leader that was deposed and does not know is behind, too ([`Self::last_by_subjects_now`]).
    pub async fn leader_next(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let body = NextOfSubject {
            seq: from,
            next_by_subj: subject,
        };
        self.leader_get(stream, &body, timeout).await
    }

    /// The first message of a subject that was stored at a moment or later, asked of the stream's leader.
    pub async fn leader_next_since(
        &self,
        stream: &str,
        subject: &str,
        since: Timestamp,
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let body = NextSince {
            start_time: since,
            next_by_subj: subject,
        };
        self.leader_get(stream, &body, timeout).await
    }

    /// The last message of a subject, asked of the stream's leader. Never `>`: if the stream's last message was deleted,
    /// the server finds none.
    pub async fn leader_last(
        &self,
        stream: &str,
        subject: &str,
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let body = LastBySubject {
            last_by_subj: subject,
        };
        self.leader_get(stream, &body, timeout).await
    }

    pub(crate) async fn leader_get(
        &self,
        stream: &str,
        body: &(impl Serialize + Sync),
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let found = self.leader_get_with::<IgnoredAny>(stream, body, timeout).await?;
        Ok(found.map(|(message, _)| message))
    }

    /// A message and its headers, which are base64 where there are any, or [`IgnoredAny`] where nobody wants them.
    pub(crate) async fn leader_get_with<H: DeserializeOwned + Default>(
        &self,
        stream: &str,
        body: &(impl Serialize + Sync),
        timeout: Duration,
    ) -> Result<Option<(StoredMessage, H)>, ApiError> {
        let subject = format!("STREAM.MSG.GET.{stream}");
        let stored = match self.api::<Answer<H>>(&subject, body, timeout).await {
            Ok(answer) => answer.message,
            Err(error) if error.not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let message = StoredMessage {
            subject: stored.subject,
            sequence: stored.seq,
            stored_at: stored.time,
            payload: from_base64(&stored.data)?.into(),
            trace: None,
        };
        Ok(Some((message, stored.hdrs)))
    }

    pub(crate) async fn direct_get_many(
        &self,
        stream: &str,
        body: &(impl Serialize + Sync),
        timeout: Duration,
    ) -> Result<Found, DirectGetError> {
        if !self.connected() {
            return Err(ApiError::Disconnected);
        }
        let api = format!("$JS.API.DIRECT.GET.{stream}");
        let payload = serde_json::to_vec(body).expect("API bodies have string keys");
        let reply = self.client().new_inbox();
        let mut replies = self
            .client()
            .subscribe(reply.clone())
            .await
            .map_err(|_| ApiError::Disconnected)?;
        self.client()
            .publish_with_reply(api.clone(), reply, payload.into())
            .await
            .map_err(|_| ApiError::Disconnected)?;
        let mut messages = Vec::new();
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let message = match tokio::time::timeout_at(deadline, replies.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(ApiError::Disconnected),
                Err(_) => return Err(self.no_answer(&api)),
            };
            match message.status.map(|status| status.as_u16()) {
                None => messages.push(stored(message)?),
                // EOB: the batch is complete; the header says how many wait behind it.
                Some(204) => {
                    let number = |name| header(&message, name).and_then(|text| text.parse::<u64>().ok());
                    return Ok(Found {
                        messages,
                        more: number("Nats-Num-Pending").is_some_and(|pending| pending > 0),
                        up_to: number("Nats-UpTo-Sequence"),
                    });
                }
                Some(404) => {
                    return Ok(Found {
                        messages,
                        more: false,
                        up_to: None,
                    });
                }
                Some(503) => return Err(ApiError::NoResponders(api)),
                Some(code) => {
                    let description = message.description.unwrap_or_default();
                    return Err(ApiError::Refused { code, description });
                }
            }
        }
    }
}

fn header<'a>(message: &'a Message, name: &'static str) -> Option<&'a str> {
    message
        .headers
        .as_ref()?
        .get(name)
        .map(async_nats::HeaderValue::as_str)
}

fn stored(message: Message) -> Result<StoredMessage, ApiError> {
    let malformed = |name| ApiError::Malformed(format!("a stored message without {name}"));
    let subject = header(&message, "Nats-Subject")
        .ok_or_else(|| malformed("Nats-Subject"))?
        .to_owned();
    let sequence = header(&message, "Nats-Sequence")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| malformed("Nats-Sequence"))?;
    let stored_at = header(&message, "Nats-Time-Stamp")
        .and_then(timestamp)
        .ok_or_else(|| malformed("Nats-Time-Stamp"))?;
    let trace = header(&message, TRACE).map(Box::from);
    Ok(StoredMessage {
        subject,
        sequence,
        stored_at,
        payload: message.payload,
        trace,
    })
}

fn timestamp(text: &str) -> Option<Timestamp> {
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    Timestamp::deserialize(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_of_the_server_are_read() {
        assert_eq!(
            timestamp("2026-11-25T03:33:49.123456789Z").map(|moment| moment.to_string()),
            Some("2026-11-25T03:33:49.123Z".to_owned())
        );
        assert_eq!(timestamp("yesterday"), None);
    }
}
