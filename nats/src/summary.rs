//! All streams, and all consumers of a stream, in a few numbers each: what somebody who watches a system asks every second.
//! A few pages of JetStream's answers, however many messages, chats or clients there are.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidings_protocol::Timestamp;

use crate::api::{ApiError, Bus};

/// Pages that are asked for at most. The server puts 256 in a page: a system has some 70 streams, CHATS some 32 consumers.
const PAGES_MAX: usize = 16;

/// What a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// Its name.
    pub name: String,
    /// How many messages it holds.
    pub messages: u64,
    /// Their size in the store.
    pub bytes: u64,
    /// How many it may be; None without a bound.
    pub bytes_max: Option<u64>,
    /// The sequence of its last message, whether it is still there or not.
    pub last_sequence: u64,
    /// When its first message was stored, by the clock of who was leader then; None where it holds none.
    pub first_stored_at: Option<Timestamp>,
    /// How many consumers it has.
    pub consumers: u64,
}

/// What a consumer has before it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ConsumerSummary {
    /// Its name.
    pub name: String,
    /// Messages that it has not delivered.
    #[serde(rename = "num_pending")]
    pub unprocessed: u64,
    /// Messages that it has delivered and that are neither acked nor deleted.
    #[serde(rename = "num_ack_pending")]
    pub outstanding: u64,
}

#[derive(Deserialize)]
struct StreamInfo {
    config: Config,
    state: State,
}

#[derive(Deserialize)]
struct Config {
    name: String,
    #[serde(default)]
    max_bytes: i64,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    bytes: u64,
    last_seq: u64,
    first_ts: Timestamp,
    consumer_count: u64,
}

impl From<StreamInfo> for StreamSummary {
    fn from(info: StreamInfo) -> Self {
        let state = info.state;
        Self {
            name: info.config.name,
            messages: state.messages,
            bytes: state.bytes,
            bytes_max: u64::try_from(info.config.max_bytes).ok().filter(|max| *max > 0),
            last_sequence: state.last_seq,
            first_stored_at: (state.messages > 0).then_some(state.first_ts),
            consumers: state.consumer_count,
        }
    }
}

impl Bus {
    /// All streams, the buckets' included. One whose leader does not answer is not there.
    pub async fn stream_summaries(&self, timeout: Duration) -> Result<Vec<StreamSummary>, ApiError> {
        let infos: Vec<StreamInfo> = self.pages("STREAM.LIST", "streams", timeout).await?;
        Ok(infos.into_iter().map(StreamSummary::from).collect())
    }

    /// One stream, as its leader knows it.
    pub async fn stream_summary(&self, stream: &str, timeout: Duration) -> Result<StreamSummary, ApiError> {
        let subject = format!("STREAM.INFO.{stream}");
        let info: StreamInfo = self.api(&subject, &serde_json::json!({}), timeout).await?;
        Ok(info.into())
    }

    /// All consumers of a stream that has few.
    pub async fn consumer_summaries(
        &self,
        stream: &str,
        timeout: Duration,
    ) -> Result<Vec<ConsumerSummary>, ApiError> {
        self.pages(&format!("CONSUMER.LIST.{stream}"), "consumers", timeout)
            .await
    }

    async fn pages<T: DeserializeOwned>(
        &self,
        subject: &str,
        field: &str,
        timeout: Duration,
    ) -> Result<Vec<T>, ApiError> {
        #[derive(Serialize)]
        struct Body {
            offset: usize,
        }
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let body = Body { offset: all.len() };
            let mut answer: serde_json::Value = self.api(subject, &body, timeout).await?;
            let total = answer["total"].as_u64().unwrap_or(0) as usize;
            let malformed = |error: serde_json::Error| ApiError::Malformed(error.to_string());
            // Null where there are none.
            let page: Option<Vec<T>> = serde_json::from_value(answer[field].take()).map_err(malformed)?;
            let page = page.unwrap_or_default();
            let last = page.is_empty();
            all.extend(page);
            if last || all.len() >= total {
                break;
            }
        }
        Ok(all)
    }
}
