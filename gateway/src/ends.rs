//! Where inboxes end as of now, asked for many at once: the answer takes a turn through the stream's log, and in a storm
//! of reconnects, or a doubt about thousands of sessions, each would ask for one of its own. Those of one shard that ask
//! at the same time are answered by the same few requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_nats::{ApiError, Bus, Shard, Topology, inbox_stream};
use tokio::sync::oneshot;

/// Subjects of one round. The server sends their whole last messages, of up to 70 KiB, and cuts a connection off for
/// which 64 MiB wait.
const SUBJECTS_MAX: usize = 200;
/// For a round. A stream without a leader answers nothing.
const TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct Ends {
    bus: Bus,
    shards: Vec<Mutex<Line>>,
}

/// Who asks about the inboxes of a shard.
#[derive(Debug, Default)]
struct Line {
    waiting: Vec<Question>,
    /// Somebody asks for all who wait, round after round. One takes a few milliseconds; who comes meanwhile is in the
    /// next one, so that the more there is to do, the more is done at once.
    asking: bool,
}

#[derive(Debug)]
struct Question {
    subjects: Vec<String>,
    answer: oneshot::Sender<Vec<u64>>,
}

impl Ends {
    pub(crate) fn new(bus: Bus, topology: Topology) -> Arc<Self> {
        let shards = topology.shards().map(|_| Mutex::default()).collect();
        Arc::new(Self { bus, shards })
    }

    /// The last sequence that each of these subjects of a shard holds, 0 if it holds nothing: whatever was acknowledged
    /// before the call is in it. None if that cannot be found out.
    pub(crate) async fn last(self: &Arc<Self>, shard: Shard, subjects: Vec<String>) -> Option<Vec<u64>> {
        let (answer, answered) = oneshot::channel();
        {
            let mut line = self.shards[usize::from(shard.0)].lock();
            line.waiting.push(Question { subjects, answer });
            if !line.asking {
                line.asking = true;
                // By nobody who waits: each of them may go, or be busy with something else, at any moment.
                tokio::spawn(self.clone().ask_all(shard));
            }
        }
        answered.await.ok()
    }

    /// Asks until nobody waits. Those who are not answered learn it by the end of their channel.
    async fn ask_all(self: Arc<Self>, shard: Shard) {
        let line = &self.shards[usize::from(shard.0)];
        let _asking = Asking(line);
        loop {
            let questions = {
                let mut line = line.lock();
                let questions = take(&mut line.waiting);
                line.asking = !questions.is_empty();
                questions
            };
            if questions.is_empty() {
                return;
            }
            metrics::counter!("tidings_end_checks_total").increment(1);
            match self.ask(shard, &questions).await {
                Ok(last) => answer(questions, &last),
                Err(error) => {
                    tracing::debug!(%shard, %error, "where inboxes end is not known");
                    // Whoever came meanwhile learns it at once, and not after as many rounds as there are before it:
                    // readings hold places that other shards wait for.
                    line.lock().waiting.clear();
                }
            }
        }
    }

    async fn ask(&self, shard: Shard, questions: &[Question]) -> Result<HashMap<String, u64>, ApiError> {
        let subjects = questions.iter().flat_map(|question| &question.subjects);
        let subjects: Vec<String> = subjects.cloned().collect();
        let stream = inbox_stream(shard);
        let last = self.bus.last_by_subjects_now(&stream, &subjects, TIMEOUT).await?;
        let last = last.into_iter();
        Ok(last.map(|message| (message.subject, message.sequence)).collect())
    }
}

/// Should whoever asks panic, the next one who wants to know asks again.
struct Asking<'a>(&'a Mutex<Line>);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.lock() = Line::default();
        }
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
        for number in 0..150 {
            let (question, answered) = question(&[&format!("a.{number}"), &format!("b.{number}")]);
            waiting.push(question);
            answers.push(answered);
        }
        drop(answers.drain(..30));
        let first = take(&mut waiting);
        assert_eq!((first.len(), waiting.len()), (SUBJECTS_MAX / 2, 20));
        assert_eq!(first[0].subjects[0], "a.30");
        assert_eq!(take(&mut waiting).len(), 20);
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
