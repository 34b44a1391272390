//! Reading a stream as of now: what was acknowledged before the question is in the answer (adr/0012).
//!
//! Neither a replica nor the leader gives that by itself. A replica may be behind. A leader that was stopped for a
//! while, and another elected meanwhile, goes on answering as the leader until it hears of that. And "no message
//! found" is what nats-server 2.15.1 says of many things.
//!
//! So a barrier is published into the stream first: whoever has it has everything that was acknowledged before. In
//! streams where nothing of ours may lie around, or where nothing can be stored, a deletion of nothing goes through the
//! log instead, and the word of a leader counts that was one before and after, and was heard by a majority.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use crate::api::{ApiError, Bus, DELETE_FAILED};
use crate::direct_get::{LastBySubject, MULTI_LAST_MAX, MultiLast, StoredMessage};
use crate::publish::PublishError;
use crate::subject::{barrier_subject, takes_barriers};

/// Before a replica that was behind is asked again; doubles each time.
const BEHIND_DELAY: Duration = Duration::from_millis(20);
/// A replica that is further behind than this is catching up, which can take minutes: the leader is asked instead.
const BEHIND_MAX: Duration = Duration::from_millis(300);
/// Questions to a leader at once.
const LEADER_QUESTIONS_MAX: usize = 8;
/// A server stands for election when it has heard no leader for 4 s. So a leader that a majority was heard by more lately
/// is one, but for the moment in which another that could not hear it is elected.
const HEARD_WITHIN: Duration = Duration::from_secs(3);
/// Before a leader that was not sure is asked again.
const UNSURE_DELAY: Duration = Duration::from_millis(100);

/// Who leads a stream, as was seen last; one for each stream that was asked.
#[derive(Debug, Default)]
pub(crate) struct Leaderships(Mutex<HashMap<String, Leadership>>);

/// Who leads a stream, and since when. Both are missing where a stream has no log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Leadership {
    leader: Option<String>,
    leader_since: Option<String>,
}

/// What whoever says that it leads says of the stream.
#[derive(Debug, Deserialize)]
struct Info {
    #[serde(default)]
    cluster: ClusterInfo,
    state: State,
}

#[derive(Debug, Default, Deserialize)]
struct ClusterInfo {
    #[serde(flatten)]
    leadership: Leadership,
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Debug, Deserialize)]
struct Replica {
    /// How long ago it was heard, in nanoseconds; 0 if never since this one leads.
    #[serde(default)]
    active: u64,
}

#[derive(Debug, Deserialize)]
struct State {
    last_seq: u64,
}

impl ClusterInfo {
    /// Whether a majority was heard so lately that hardly another can have been elected.
    fn is_sure(&self) -> bool {
        let heard =
            |replica: &&Replica| replica.active > 0 && Duration::from_nanos(replica.active) < HEARD_WITHIN;
        // The leader itself is not among them.
        let heard = 1 + self.replicas.iter().filter(heard).count();
        2 * heard > 1 + self.replicas.len()
    }
}

impl Bus {
    /// The last message of each subject that has one, as of now: whatever was acknowledged before the call is in it.
    /// For inboxes' streams and buckets. Subjects may have wildcards in buckets; all of them together match at most
    /// 1,023. A message of another subject may be among them. Costs three small requests, and fails when nobody who is
    /// asked comes up to now in time.
    pub async fn last_by_subjects_now(
        &self,
        stream: &str,
        subjects: &[String],
        timeout: Duration,
    ) -> Result<Vec<StoredMessage>, ApiError> {
        let deadline = Instant::now() + timeout;
        if let Some(barrier) = self.barrier_if_taken(stream, timeout).await? {
            let found = self.last_beyond(stream, subjects, barrier, deadline).await;
            self.remove_barrier(stream, barrier);
            return found;
        }
        self.pass_log(stream, left(deadline)?).await?;
        self.last_of_leader(stream, subjects, 0, deadline).await
    }

    /// The last message of a subject of a bucket, which has no wildcards, as of now: whatever was acknowledged before
    /// the call is in it.
    pub async fn last_by_subject_now(
        &self,
        stream: &str,
        subject: &str,
        timeout: Duration,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let found = self
            .last_by_subjects_now(stream, &[subject.to_owned()], timeout)
            .await?;
        Ok(found.into_iter().find(|message| message.subject == subject))
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
        let deadline = Instant::now() + timeout;
        self.pass_log(stream, timeout).await?;
        loop {
            let before = self.known_leadership(stream, deadline).await?;
            let found = self.leader_get(stream, &body, left(deadline)?).await?;
            if self.led_on(stream, &before, sequence, deadline).await?.is_some() {
                return Ok(found);
            }
        }
    }

    /// The last sequence of a stream as of now, whether its message is still there or not: whatever was acknowledged
    /// before the call is not beyond it.
    pub async fn last_sequence(&self, stream: &str, timeout: Duration) -> Result<u64, ApiError> {
        let deadline = Instant::now() + timeout;
        if takes_barriers(stream)
            && let Some(barrier) = self.barrier_if_taken(stream, timeout).await?
        {
            self.remove_barrier(stream, barrier);
            return Ok(barrier);
        }
        loop {
            self.pass_log(stream, left(deadline)?).await?;
            let before = self.known_leadership(stream, deadline).await?;
            if let Some(last) = self.led_on(stream, &before, 0, deadline).await? {
                return Ok(last);
            }
        }
    }

    /// Publishes what is nobody's into an inboxes' stream or a bucket, and says its sequence: whoever has that, or has
    /// come up to it, has everything that was acknowledged before the call. A bucket keeps one of them.
    pub async fn barrier(&self, stream: &str, timeout: Duration) -> Result<u64, PublishError> {
        let subject = barrier_subject(stream);
        let accepted = self
            .publish(subject, HeaderMap::new(), Bytes::new(), timeout)
            .await?;
        Ok(accepted.sequence)
    }

    /// None where an inboxes' stream is full, or its disk takes nothing more: it must be readable all the same, and
    /// sweeping, which makes room, asks where it ends. A bucket fails: its subjects have wildcards, of which a leader
    /// tells one message.
    async fn barrier_if_taken(&self, stream: &str, timeout: Duration) -> Result<Option<u64>, ApiError> {
        match self.barrier(stream, timeout).await {
            Ok(barrier) => Ok(Some(barrier)),
            Err(
                PublishError::StreamFull(_)
                | PublishError::SubjectFull
                | PublishError::Unknown(ApiError::Refused { .. }),
            ) if !stream.starts_with("KV_") => Ok(None),
            Err(PublishError::Unknown(error)) => Err(error),
            Err(error) => Err(ApiError::Malformed(format!(
                "no barrier can be published: {error}"
            ))),
        }
    }

    /// In the background: streams of inboxes hold what is not confirmed and nothing else. One that stays, since this
    /// process dies, is gone when the stream's age limit is over.
    fn remove_barrier(&self, stream: &str, sequence: u64) {
        if stream.starts_with("KV_") {
            return;
        }
        let (bus, stream) = (self.clone(), stream.to_owned());
        tokio::spawn(async move {
            let timeout = Duration::from_secs(5);
            if let Err(error) = bus.delete_message(&stream, sequence, timeout).await {
                tracing::debug!(stream, stream.sequence = sequence, %error, "a barrier stays");
            }
        });
    }

    /// From whichever replica has the barrier; from the leader if the one that answers here is far behind.
    async fn last_beyond(
        &self,
        stream: &str,
        subjects: &[String],
        barrier: u64,
        deadline: Instant,
    ) -> Result<Vec<StoredMessage>, ApiError> {
        // Whoever answers says how far it is only where it finds something: the barrier at least.
        let named: Vec<&str> = subjects.iter().map(String::as_str).collect();
        let barriers = barrier_subject(stream);
        let named = [named, vec![barriers.as_str()]].concat();
        let body = MultiLast {
            multi_last: &named,
            batch: MULTI_LAST_MAX,
        };
        let (began, mut delay) = (Instant::now(), BEHIND_DELAY);
        loop {
            let found = self.direct_get_many(stream, &body, left(deadline)?).await?;
            if found.more {
                return Err(ApiError::Malformed(
                    "more subjects than are answered at once".to_owned(),
                ));
            }
            if found.up_to.is_some_and(|up_to| up_to >= barrier) {
                return Ok(found.messages);
            }
            if began.elapsed() + delay > BEHIND_MAX && !stream.starts_with("KV_") {
                return self.last_of_leader(stream, subjects, barrier, deadline).await;
            }
            tokio::time::sleep(delay.min(left(deadline)?)).await;
            delay *= 2;
        }
    }

    /// Subject by subject.
    async fn last_of_leader(
        &self,
        stream: &str,
        subjects: &[String],
        barrier: u64,
        deadline: Instant,
    ) -> Result<Vec<StoredMessage>, ApiError> {
        loop {
            let before = self.known_leadership(stream, deadline).await?;
            let timeout = left(deadline)?;
            let questions = subjects.iter().cloned().map(|subject| async move {
                let last = LastBySubject {
                    last_by_subj: &subject,
                };
                self.leader_get(stream, &last, timeout).await
            });
            let found: Vec<Option<StoredMessage>> = futures::stream::iter(questions)
                .buffer_unordered(LEADER_QUESTIONS_MAX)
                .try_collect()
                .await?;
            if self.led_on(stream, &before, barrier, deadline).await?.is_some() {
                return Ok(found.into_iter().flatten().collect());
            }
        }
    }

    /// Returns when a leader of the stream has applied all that was acknowledged before. It has deleted nothing; that is
    /// refused by nobody, also where nothing can be stored.
    async fn pass_log(&self, stream: &str, timeout: Duration) -> Result<(), ApiError> {
        // Far beyond the last one.
        match self.delete_message(stream, u64::MAX, timeout).await {
            // A disk that takes nothing more: tried, and so applied.
            Err(ApiError::Refused {
                code: DELETE_FAILED,
                description,
            }) if !description.contains("not permitted") => Ok(()),
            passed => passed,
        }
    }

    /// Who led when it was looked last, or leads now.
    async fn known_leadership(&self, stream: &str, deadline: Instant) -> Result<Leadership, ApiError> {
        let known = self.leaderships().0.lock().get(stream).cloned();
        match known {
            Some(known) => Ok(known),
            None => Ok(self.leader_info(stream, deadline).await?.cluster.leadership),
        }
    }

    /// The last sequence, if the same one leads still, is sure of it, and has come up to a sequence.
    async fn led_on(
        &self,
        stream: &str,
        before: &Leadership,
        sequence: u64,
        deadline: Instant,
    ) -> Result<Option<u64>, ApiError> {
        let info = self.leader_info(stream, deadline).await?;
        let last = info.state.last_seq;
        if !info.cluster.is_sure() || last < sequence {
            tokio::time::sleep(UNSURE_DELAY.min(left(deadline)?)).await;
            return Ok(None);
        }
        Ok((info.cluster.leadership == *before).then_some(last))
    }

    async fn leader_info(&self, stream: &str, deadline: Instant) -> Result<Info, ApiError> {
        let subject = format!("STREAM.INFO.{stream}");
        let info: Info = self
            .api(&subject, &serde_json::json!({}), left(deadline)?)
            .await?;
        let leadership = info.cluster.leadership.clone();
        self.leaderships().0.lock().insert(stream.to_owned(), leadership);
        Ok(info)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(seconds: &[u64]) -> ClusterInfo {
        let replica = |seconds: &u64| Replica {
            active: seconds * 1_000_000_000 + 1,
        };
        ClusterInfo {
            replicas: seconds.iter().map(replica).collect(),
            ..ClusterInfo::default()
        }
    }

    #[test]
    fn a_leader_is_believed_while_a_majority_hears_it() {
        assert!(heard(&[]).is_sure());
        assert!(heard(&[0, 0]).is_sure());
        assert!(heard(&[0, 100]).is_sure());
        assert!(!heard(&[3, 100]).is_sure());
        assert!(heard(&[2, 2, 9, 9]).is_sure());
        assert!(!heard(&[2, 9, 9, 9]).is_sure());
        let never = ClusterInfo {
            replicas: vec![Replica { active: 0 }, Replica { active: 0 }],
            ..ClusterInfo::default()
        };
        assert!(!never.is_sure());
    }
}
