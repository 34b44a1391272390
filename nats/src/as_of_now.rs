//! Reading a stream as of now: what was acknowledged before the question is in the answer.
//!
//! Neither a replica nor the leader gives that by itself. A replica may be behind. A leader that was elected just now
//! has all that was acknowledged in its log, but answers before it has applied it (nats-server 2.15.1). So the question
//! begins with something that goes through the log and changes nothing; whoever answers it has applied all that came
//! before. That the next answers are by the same leader, and not by one elected in between, shows by who leads the
//! stream since when, asked at the end.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::api::{ApiError, Bus};
use crate::direct_get::{LastBySubject, MULTI_LAST_MAX, MultiLast, NextOfSubject, StoredMessage};
use crate::publish::PublishError;

/// Before a replica that was behind is asked again.
const BEHIND_DELAY: Duration = Duration::from_millis(20);
/// The key of [`Bus::mark_bucket`]: no client, process or partition has it.
const MARK: &str = "mark";

/// Who leads a stream, as was seen last; one for each stream that was asked.
#[derive(Debug, Default)]
pub(crate) struct Leaderships(Mutex<HashMap<String, Leadership>>);

/// Who leads a stream, and since when. Both are missing where a stream has no log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Leadership {
    leader: Option<String>,
    leader_since: Option<String>,
}

/// What a leader that has applied everything said.
#[derive(Debug)]
struct Now {
    /// What was asked for.
    found: Option<StoredMessage>,
    /// The last sequence that was given to a message.
    last_sequence: u64,
}

impl Bus {
    /// The last message of each subject that has one, as of now: whatever was acknowledged before the call is in it.
    /// Subjects may have wildcards; all of them together match at most 1,023. A message of another subject may be among
    /// them. Costs four small requests, and fails when no replica comes up to the leader in time.
    ///
    /// Any replica is asked, and believed if it reaches up to the leader's last sequence. Since it says how far it is
    /// only where it finds something, a subject that holds something is asked for as well.
    pub async fn last_by_subjects_now(
        &self,
        stream: &str,
        subjects: &[String],
        timeout: Duration,
    ) -> Result<Vec<StoredMessage>, ApiError> {
        let deadline = Instant::now() + timeout;
        loop {
            // The first message, not the last: of a stream whose last message was deleted, the server finds no last one.
            let first = NextOfSubject {
                seq: 1,
                next_by_subj: ">",
            };
            let now = self.ask_now(stream, &first, deadline).await?;
            let Some(sentinel) = now.found else {
                return Ok(Vec::new());
            };
            let mut named: Vec<&str> = subjects.iter().map(String::as_str).collect();
            if !subjects.contains(&sentinel.subject) {
                named.push(&sentinel.subject);
            }
            let body = MultiLast {
                multi_last: &named,
                batch: MULTI_LAST_MAX,
            };
            let found = self.direct_get_many(stream, &body, left(deadline)?).await?;
            if found.more {
                return Err(ApiError::Malformed(
                    "more subjects than are answered at once".to_owned(),
                ));
            }
            // Else it is behind, or the sentinel was deleted meanwhile.
            if found.up_to.is_some_and(|up_to| up_to >= now.last_sequence) {
                return Ok(found.messages);
            }
            tokio::time::sleep(BEHIND_DELAY).await;
        }
    }

    /// The last message of a subject, which has no wildcards, as of now: whatever was acknowledged before the call is
    /// in it.
    pub async fn last_by_subject_now(
        &self,
        stream: &str,
        subject: &str,
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let last = LastBySubject {
            last_by_subj: subject,
        };
        let now = self.ask_now(stream, &last, Instant::now() + timeout).await?;
        Ok(now.found)
    }

    /// The message at a sequence, if it is there now: "not there" is said of none that was acknowledged before the call
    /// and not deleted.
    pub async fn message_now(
        &self,
        stream: &str,
        sequence: u64,
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let body = serde_json::json!({ "seq": sequence });
        if let Some(found) = self.leader_get(stream, &body, timeout).await? {
            return Ok(Some(found));
        }
        let now = self.ask_now(stream, &body, Instant::now() + timeout).await?;
        Ok(now.found)
    }

    /// The last sequence of a stream as of now, whether its message is still there or not: whatever was acknowledged
    /// before the call is not beyond it.
    pub async fn last_sequence(&self, stream: &str, timeout: Duration) -> Result<u64, ApiError> {
        let first = NextOfSubject {
            seq: 1,
            next_by_subj: ">",
        };
        let now = self.ask_now(stream, &first, Instant::now() + timeout).await?;
        Ok(now.last_sequence)
    }

    /// Puts a key of nobody's into a bucket and says its revision: who follows the bucket and has come up to it has seen
    /// everything that was acknowledged before the call.
    pub async fn mark_bucket(&self, bucket: &str, timeout: Duration) -> Result<u64, ApiError> {
        let subject = format!("$KV.{bucket}.{MARK}");
        match self
            .publish(subject, HeaderMap::new(), Bytes::new(), timeout)
            .await
        {
            Ok(accepted) => Ok(accepted.sequence),
            Err(PublishError::Unknown(error)) => Err(error),
            Err(error) => Err(ApiError::Malformed(error.to_string())),
        }
    }

    async fn ask_now(
        &self,
        stream: &str,
        question: &(impl Serialize + Sync),
        deadline: Instant,
    ) -> Result<Now, ApiError> {
        let seen = self.leaderships().0.lock().get(stream).cloned();
        let mut before = match seen {
            Some(seen) => seen,
            None => self.leadership(stream, left(deadline)?).await?.0,
        };
        loop {
            self.pass_log(stream, left(deadline)?).await?;
            let found = self.leader_get(stream, question, left(deadline)?).await?;
            let (after, last_sequence) = self.leadership(stream, left(deadline)?).await?;
            if after == before {
                return Ok(Now { found, last_sequence });
            }
            before = after;
        }
    }

    /// Returns when a leader of the stream has applied all that was acknowledged before.
    async fn pass_log(&self, stream: &str, timeout: Duration) -> Result<(), ApiError> {
        if let Some(bucket) = stream.strip_prefix("KV_") {
            // Buckets deny deletions.
            self.mark_bucket(bucket, timeout).await.map(drop)
        } else {
            // Far beyond the last one: nothing is deleted, also where nothing can be stored.
            self.delete_message(stream, u64::MAX, timeout).await
        }
    }

    /// Who leads, and the last sequence.
    async fn leadership(&self, stream: &str, timeout: Duration) -> Result<(Leadership, u64), ApiError> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            cluster: Leadership,
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            last_seq: u64,
        }
        let info: Info = self
            .api(&format!("STREAM.INFO.{stream}"), &serde_json::json!({}), timeout)
            .await?;
        let seen = info.cluster.clone();
        self.leaderships().0.lock().insert(stream.to_owned(), seen);
        Ok((info.cluster, info.state.last_seq))
    }
}

/// What is left of a time limit.
fn left(deadline: Instant) -> Result<Duration, ApiError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ApiError::Timeout);
    }
    Ok(left)
}
