//! What this gateway answers the workers about direct deliveries: in order for each worker, several in a message.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_nats::{DirectAnswer, DirectAnswers, direct_subject};
use tidings_service::BootId;
use tokio::sync::Notify;
use uuid::Uuid;

/// Answers that come within this go together. A worker waits for them a hundred times as long before it stores what is
/// not answered.
const COALESCE: Duration = Duration::from_millis(10);
/// Answers that wait for one worker. As many as a thousand clients have unconfirmed in a second; beyond, the worker stores
/// the events, which is what it does without an answer.
const WAITING_MAX: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DirectAnswering {
    waiting: Mutex<HashMap<Uuid, Vec<DirectAnswer>>>,
    filled: Notify,
}

impl DirectAnswering {
    /// Hands an answer over. Never waits.
    pub(crate) fn answer(&self, worker: Uuid, answer: DirectAnswer) {
        let first = {
            let mut waiting = self.waiting.lock();
            let first = waiting.is_empty();
            let answers = waiting.entry(worker).or_default();
            if answers.len() < WAITING_MAX {
                answers.push(answer);
            } else {
                metrics::counter!("tidings_direct_answers_dropped_total").increment(1);
            }
            first
        };
        if first {
            self.filled.notify_one();
        }
    }

    /// Sends what is handed over, for ever. What does not arrive is stored by the worker after some time.
    pub(crate) async fn run(&self, client: &async_nats::Client) {
        loop {
            self.filled.notified().await;
            tokio::time::sleep(COALESCE).await;
            let waiting = std::mem::take(&mut *self.waiting.lock());
            for (worker, answers) in waiting {
                let subject = direct_subject(&BootId(worker).to_string());
                for answers in answers.chunks(DirectAnswers::MAX) {
                    let payload = DirectAnswers::encode(answers);
                    if let Err(error) = client.publish(subject.clone(), payload).await {
                        tracing::debug!(%error, "answers about direct deliveries were not sent");
                    }
                }
            }
        }
    }
}
