//! Reading messages together with their headers, which say what the payload does not: the id that a stream knows an
//! event by, why an event is a dead letter.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::json;
use tidings_protocol::Timestamp;

use crate::DEAD_LETTERS;
use crate::api::{ApiError, Bus};
use crate::direct_get::from_base64;
use crate::headers::{REASON, TRIES};

/// A message as it is stored, an event or a dead letter, with its headers.
#[derive(Clone, Debug)]
pub struct HeadedMessage {
    /// On which subject.
    pub subject: String,
    /// Its stream sequence.
    pub sequence: u64,
    /// When the stream stored it, by the server's clock.
    pub stored_at: Timestamp,
    /// Ours and those of JetStream. A dead letter has the event's, the reason and the number of tries.
    pub headers: HeaderMap,
    /// Its bytes.
    pub payload: Bytes,
}

impl HeadedMessage {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// The headers that the event of a dead letter had before it died, without its deduplication id.
    pub fn own_headers(&self) -> HeaderMap {
        let mut own = HeaderMap::new();
        for (name, values) in self.headers.iter() {
            let text = name.to_string();
            if text.starts_with("Nats-") || text == REASON || text == TRIES {
                continue;
            }
            for value in values {
                own.append(name.clone(), value.clone());
            }
        }
        own
    }
}

impl Bus {
    /// The first dead letter from a sequence on, asked of the stream's leader.
    pub async fn letter_from(&self, from: u64, timeout: Duration) -> Result<Option<HeadedMessage>, ApiError> {
        self.next_headed(DEAD_LETTERS, ">", from, timeout).await
    }

    /// The first message of a subject, which may have wildcards, from a sequence on, asked of the stream's leader.
    pub async fn next_headed(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        timeout: Duration,
    ) -> Result<Option<HeadedMessage>, ApiError> {
        let body = json!({ "seq": from, "next_by_subj": subject });
        let found = self.leader_get_with::<String>(stream, &body, timeout).await?;
        let Some((stored, encoded)) = found else {
            return Ok(None);
        };
        Ok(Some(HeadedMessage {
            subject: stored.subject,
            sequence: stored.sequence,
            stored_at: stored.stored_at,
            headers: headers(&String::from_utf8_lossy(&from_base64(&encoded)?)),
            payload: stored.payload,
        }))
    }
}

/// Reads `NATS/1.0`, then a line for each header.
fn headers(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.lines().skip(1) {
        if let Some((name, value)) = line.split_once(':') {
            headers.append(name, value.trim());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_own_headers_are_told_from_ours() {
        let text = "NATS/1.0\r\nNats-Msg-Id: dead.7\r\nTidings-Kind: message\r\nTidings-Reason: malformed: empty\r\nTidings-Tries: 1\r\n\r\n";
        let letter = HeadedMessage {
            subject: String::new(),
            sequence: 7,
            stored_at: Timestamp(0),
            headers: headers(text),
            payload: Bytes::new(),
        };
        assert_eq!(letter.header(REASON), Some("malformed: empty"));
        let own = letter.own_headers();
        assert_eq!(
            (
                own.len(),
                own.get("Tidings-Kind").map(async_nats::HeaderValue::as_str)
            ),
            (1, Some("message"))
        );
    }
}
