//! Where inboxes end as of now, asked for many at once: the answer takes a turn through the stream's log, and in a storm
//! of reconnects, or a doubt about thousands of sessions, each would ask for one of its own. Those of one shard that ask
//! at the same time are answered by the same few requests.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_nats::{ApiError, Bus, Shard, Topology, inbox_stream};
use tokio::sync::oneshot;

/// Subjects of one request; the server answers 1,024, and one more is asked for.
const SUBJECTS_MAX: usize = 1_000;
/// For a round. A stream without a leader answers nothing.
const TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct Ends {
    bus: Bus,
    shards: Vec<Line>,
}

/// Who asks about the inboxes of a shard.
#[derive(Debug, Default)]
struct Line {
    waiting: Mutex<Vec<Question>>,
    /// Whoever has it asks for all who wait. A round takes a few milliseconds; who comes meanwhile is in the next one, so
    /// that the more there is to do, the more is done at once.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Question {
    subjects: Vec<String>,
    answer: oneshot::Sender<Vec<u64>>,
}

impl Ends {
    pub(crate) fn new(bus: Bus, topology: Topology) -> Self {
        Self {
            bus,
            shards: topology.shards().map(|_| Line::default()).collect(),
        }
    }

    /// The last sequence that each of these subjects of a shard holds, 0 if it holds nothing: whatever was acknowledged
    /// before the call is in it. None if that cannot be found out.
    pub(crate) async fn last(&self, shard: Shard, subjects: Vec<String>) -> Option<Vec<u64>> {
        let line = &self.shards[usize::from(shard.0)];
        let (answer, mut answered) = oneshot::channel();
        line.waiting.lock().push(Question { subjects, answer });
        loop {
            let turn = tokio::select! {
                biased;
                answer = &mut answered => return answer.ok(),
                turn = line.turn.lock() => turn,
            };
            // A round before may have answered it while this waited.
            match answered.try_recv() {
                Ok(last) => return Some(last),
                Err(oneshot::error::TryRecvError::Closed) => return None,
                Err(oneshot::error::TryRecvError::Empty) => self.round(shard, line).await,
            }
            drop(turn);
        }
    }

    /// Asks for as many of those who wait as fit. Those who are not answered learn it by the end of their channel.
    async fn round(&self, shard: Shard, line: &Line) {
        let questions = take(&mut line.waiting.lock());
        let subjects: Vec<String> = questions
            .iter()
            .flat_map(|question| question.subjects.iter().cloned())
            .collect();
        if subjects.is_empty() {
            return;
        }
        metrics::counter!("tidings_end_checks_total").increment(1);
        match self.ask(shard, &subjects).await {
            Ok(last) => answer(questions, &last),
            Err(error) => tracing::debug!(%shard, %error, "where inboxes end is not known"),
        }
    }

    async fn ask(&self, shard: Shard, subjects: &[String]) -> Result<HashMap<String, u64>, ApiError> {
        let stream = inbox_stream(shard);
        let last = self.bus.last_by_subjects_now(&stream, subjects, TIMEOUT).await?;
        let last = last.into_iter();
        Ok(last.map(|message| (message.subject, message.sequence)).collect())
    }
}

/// The longest waiting of those who still wait, as many as one request takes.
fn take(waiting: &mut Vec<Question>) -> Vec<Question> {
    waiting.retain(|question| !question.answer.is_closed());
    let mut subjects = 0;
    let fit = waiting.iter().take_while(|question| {
        subjects += question.subjects.len();
        subjects <= SUBJECTS_MAX
    });
    let fit = fit.count();
    waiting.drain(..fit).collect()
}

fn answer(questions: Vec<Question>, last: &HashMap<String, u64>) {
    for question in questions {
        let subjects = question.subjects.iter();
        let sequences = subjects.map(|subject| last.get(subject).copied().unwrap_or(0));
        // Whoever has gone needs no answer.
        let _ = question.answer.send(sequences.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(subjects: &[&str]) -> (Question, oneshot::Receiver<Vec<u64>>) {
        let (answer, answered) = oneshot::channel();
        let subjects = subjects.iter().map(ToString::to_string).collect();
        (Question { subjects, answer }, answered)
    }

    #[test]
    fn a_round_takes_the_longest_waiting_and_nobody_who_has_gone() {
        let (mut waiting, mut answers) = (Vec::new(), Vec::new());
        for number in 0..600 {
            let (question, answered) = question(&[&format!("a.{number}"), &format!("b.{number}")]);
            waiting.push(question);
            answers.push(answered);
        }
        drop(answers.drain(..50));
        let first = take(&mut waiting);
        assert_eq!((first.len(), waiting.len()), (SUBJECTS_MAX / 2, 50));
        assert_eq!(first[0].subjects[0], "a.50");
        assert_eq!(take(&mut waiting).len(), 50);
        assert!(take(&mut waiting).is_empty());
    }

    #[test]
    fn each_is_told_the_last_of_each_of_its_subjects() {
        let (alice, mut for_alice) = question(&["inbox.a", "inbox.a.lost"]);
        let (bob, mut for_bob) = question(&["inbox.b"]);
        let last = [("inbox.a", 7), ("inbox.a.lost", 9), ("other", 12)];
        let last = last.map(|(subject, sequence)| (subject.to_owned(), sequence));
        answer(vec![alice, bob], &last.into());
        assert_eq!(for_alice.try_recv(), Ok(vec![7, 9]));
        assert_eq!(for_bob.try_recv(), Ok(vec![0]));
    }
}
