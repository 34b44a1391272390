//! What this gateway answers the workers about direct deliveries: in order for each worker, several in a message.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use tidings_nats::{DirectAnswer, DirectAnswers, direct_subject};
use tidings_service::BootId;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// Confirmations that come within this go together: each message of them wakes this process, nats-server and the worker, which
/// with little to do is what they cost. A worker waits for them twenty times as long before it stores what is not answered.
const COALESCE: Duration = Duration::from_millis(50);
/// With what matters sooner all go within this: a refusal, since the worker tells more in vain until it hears of it; a grant; and
/// the end of a session, since a client that is elsewhere by then is shown again what the worker does not know to be confirmed.
const COALESCE_URGENT: Duration = Duration::from_millis(10);
/// Answers that wait. As many as a thousand clients have unconfirmed in a second; beyond, the workers store the events,
/// which is what they do without an answer.
const WAITING_MAX: usize = 65_536;
/// For the last answers to leave when the gateway stops; without them the workers store the events a second later.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes answers.
#[derive(Debug)]
pub(crate) struct DirectAnswering {
    answers: mpsc::Sender<(Uuid, DirectAnswer)>,
    urgent: Arc<Notify>,
}

impl DirectAnswering {
    /// With the task that sends them; it ends when this is gone and everything is sent. What does not arrive is stored
    /// by the worker after some time.
    pub(crate) fn new(client: Client) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (answers, waiting) = mpsc::channel(WAITING_MAX);
        let urgent = Arc::new(Notify::new());
        let sent = send(client, waiting, urgent.clone());
        (Self { answers, urgent }, sent)
    }

    /// Has what was handed over leave soon.
    pub(crate) fn hurry(&self) {
        self.urgent.notify_one();
    }

    /// Hands an answer over. Never waits.
    pub(crate) fn answer(&self, worker: Uuid, answer: DirectAnswer) {
        if !matches!(answer, DirectAnswer::Confirmed { .. }) {
            self.hurry();
        }
        if self.answers.try_send((worker, answer)).is_err() {
            metrics::counter!("tidings_direct_answers_dropped_total").increment(1);
        }
    }
}

async fn send(client: Client, mut waiting: mpsc::Receiver<(Uuid, DirectAnswer)>, urgent: Arc<Notify>) {
    let mut answers: HashMap<Uuid, Vec<DirectAnswer>> = HashMap::new();
    while let Some((worker, first)) = waiting.recv().await {
        let hurried = async {
            urgent.notified().await;
            tokio::time::sleep(COALESCE_URGENT).await;
        };
        // Which of both is over first is all the same.
        let _ = tokio::time::timeout(COALESCE, hurried).await;
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
