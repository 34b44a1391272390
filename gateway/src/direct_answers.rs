//! What this gateway answers the workers about direct deliveries: in order for each worker, several in a message.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::Client;
use tidings_nats::{DirectAnswer, DirectAnswers, direct_subject};
use tidings_service::BootId;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Answers that come within this go together: each message of them wakes this process, nats-server and the worker, which with
/// little to do is what they cost. A worker waits for them twenty times as long before it stores what is not answered.
const COALESCE: Duration = Duration::from_millis(50);
/// Answers that wait. As many as a thousand clients have unconfirmed in a second; beyond, the workers store the events,
/// which is what they do without an answer.
const WAITING_MAX: usize = 65_536;
/// For the last answers to leave when the gateway stops; without them the workers store the events a second later.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes answers.
#[derive(Debug)]
pub(crate) struct DirectAnswering {
    answers: mpsc::Sender<(Uuid, DirectAnswer)>,
}

impl DirectAnswering {
    /// With the task that sends them; it ends when this is gone and everything is sent. What does not arrive is stored
    /// by the worker after some time.
    pub(crate) fn new(client: Client) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (answers, waiting) = mpsc::channel(WAITING_MAX);
        (Self { answers }, send(client, waiting))
    }

    /// Hands an answer over. Never waits.
    pub(crate) fn answer(&self, worker: Uuid, answer: DirectAnswer) {
        if self.answers.try_send((worker, answer)).is_err() {
            metrics::counter!("tidings_direct_answers_dropped_total").increment(1);
        }
    }
}

async fn send(client: Client, mut waiting: mpsc::Receiver<(Uuid, DirectAnswer)>) {
    let mut answers: HashMap<Uuid, Vec<DirectAnswer>> = HashMap::new();
    while let Some((worker, first)) = waiting.recv().await {
        tokio::time::sleep(COALESCE).await;
        answers.insert(worker, vec![first]);
        // What comes meanwhile waits for the next time.
        for _ in 0..waiting.len() {
            let Ok((worker, answer)) = waiting.try_recv() else {
                break;
            };
            answers.entry(worker).or_default().push(answer);
        }
        for (worker, answers) in answers.drain() {
            let subject = direct_subject(&BootId(worker).to_string());
            for answers in answers.chunks(DirectAnswers::MAX) {
                let payload = DirectAnswers::encode(answers);
                if let Err(error) = client.publish(subject.clone(), payload).await {
                    tracing::debug!(%error, "answers about direct deliveries were not sent");
                }
            }
        }
    }
    // Nothing depends on whether it succeeds.
    let _ = tokio::time::timeout(FLUSH_TIMEOUT, client.flush()).await;
}
