//! Pull consumers, by hand: what to ask, and what the answers' reply subjects and statuses mean. By hand,
//! because the consumer sequence decides whether a delivery may be processed, and because a pull's reply
//! inbox must change with every fresh start.

use bytes::Bytes;
use serde::Serialize;

/// The body of a pull request, `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pull<'a> {
    /// At most so many messages.
    pub batch: u32,
    /// At most so many bytes; 0 is no bound.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_bytes: u32,
    /// Nanoseconds until the request ends by itself; 0 with `no_wait`.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub expires: u64,
    /// Answer with what is there, then 404.
    #[serde(skip_serializing_if = "is_false")]
    pub no_wait: bool,
    /// The priority group, where the consumer has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<&'a str>,
    /// The pin that this worker holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Pull<'_> {
    /// Where to send it.
    pub fn subject(stream: &str, consumer: &str) -> String {
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")
    }

    /// The body.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("the request has string names and no failing Serialize")
            .into()
    }
}

/// What the reply subject of a delivered message says.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryInfo {
    /// How often it has been delivered, this time included.
    pub delivered: u64,
    /// Its sequence in the stream.
    pub stream_sequence: u64,
    /// Its sequence in the consumer: 1, 2, 3, … since the consumer's last reset.
    pub consumer_sequence: u64,
    /// When the stream stored it, in nanoseconds since 1970. With the stream sequence it names a message for
    /// ever, also where a stream was made anew.
    pub stored_at: u64,
    /// How many more wait for this consumer.
    pub pending: u64,
}

impl DeliveryInfo {
    /// Reads `$JS.ACK.…` of either version: 9 tokens, or 11 and more with domain and account.
    pub fn parse(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.split('.').collect();
        if tokens.first() != Some(&"$JS") || tokens.get(1) != Some(&"ACK") {
            return None;
        }
        let first = match tokens.len() {
            9 => 4,
            11.. => 6,
            _ => return None,
        };
        let number = |offset: usize| tokens.get(first + offset)?.parse::<u64>().ok();
        Some(Self {
            delivered: number(0)?,
            stream_sequence: number(1)?,
            consumer_sequence: number(2)?,
            stored_at: number(3)?,
            pending: number(4)?,
        })
    }
}

/// A status that ends or accompanies a pull request.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConsumerStatus {
    /// 100: still there.
    Heartbeat,
    /// 404: nothing (more) there, for a `no_wait` pull.
    Empty,
    /// 408: the request has run out.
    Expired,
    /// 423: somebody else is pinned.
    NotPinned,
    /// 409: batch or byte bound reached; what was asked for has been delivered.
    BatchDone,
    /// 409: the consumer is gone, its leader has changed, or the server stops. Start anew.
    Ended,
    /// 503: nobody answers for this consumer.
    NoResponders,
    /// Anything else; treated as [`Self::Ended`].
    Other(u16),
}

impl ConsumerStatus {
    /// The meaning of a message without a payload; None for a delivered message.
    pub fn of(message: &async_nats::Message) -> Option<Self> {
        let status = message.status?.as_u16();
        let description = message.description.as_deref().unwrap_or_default();
        Some(match status {
            100 => Self::Heartbeat,
            404 => Self::Empty,
            408 => Self::Expired,
            423 => Self::NotPinned,
            409 if description.contains("Batch Completed") || description.contains("Exceeds MaxBytes") => {
                Self::BatchDone
            }
            409 => Self::Ended,
            503 => Self::NoResponders,
            other => Self::Other(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_subjects_of_both_versions_are_read() {
        let expected = DeliveryInfo {
            delivered: 1,
            stream_sequence: 41,
            consumer_sequence: 7,
            stored_at: 1_700_000_000_000_000_000,
            pending: 3,
        };
        for reply in [
            "$JS.ACK.CHATS.fanout-03.1.41.7.1700000000000000000.3",
            "$JS.ACK._.ACCHASH.CHATS.fanout-03.1.41.7.1700000000000000000.3",
            "$JS.ACK.hub.ACCHASH.CHATS.fanout-03.1.41.7.1700000000000000000.3.random",
        ] {
            assert_eq!(DeliveryInfo::parse(reply), Some(expected), "{reply}");
        }
        for reply in [
            "",
            "_INBOX.x",
            "$JS.ACK.CHATS.c.1.2.3.4",
            "$JS.ACK.CHATS.c.x.2.3.4.5",
        ] {
            assert_eq!(DeliveryInfo::parse(reply), None, "{reply}");
        }
    }

    #[test]
    fn a_pull_says_only_what_is_set() {
        let pull = Pull {
            batch: 10,
            no_wait: true,
            ..Pull::default()
        };
        assert_eq!(pull.encode(), r#"{"batch":10,"no_wait":true}"#);
        let pull = Pull {
            batch: 1,
            expires: 2,
            group: Some("fanout"),
            id: Some("p"),
            ..Pull::default()
        };
        assert_eq!(
            pull.encode(),
            r#"{"batch":1,"expires":2,"group":"fanout","id":"p"}"#
        );
    }
}
