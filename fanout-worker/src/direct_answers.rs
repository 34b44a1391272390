//! What gateways answer this worker about direct deliveries.

use std::sync::{Arc, LazyLock};

use futures::StreamExt as _;
use metrics::Counter;
use tidings_nats::{DirectAnswer, DirectAnswers, direct_subject};
use tidings_service::Context;
use tokio_util::sync::CancellationToken;

use crate::holds::Holds;
use crate::sessions::Sessions;

/// `tidings_fanout_direct_answers_total`. Looked up once, as that takes ten times as long as counting.
static CONFIRMED: LazyLock<Counter> = LazyLock::new(|| answers("confirmed"));
static REFUSED: LazyLock<Counter> = LazyLock::new(|| answers("refused"));

fn answers(answer: &'static str) -> Counter {
    metrics::counter!("tidings_fanout_direct_answers_total", "answer" => answer)
}

/// Listens until `end`, from before this returns. Answers that are lost are made up for by time: what is not answered
/// is stored, and what was granted is granted again.
pub(crate) async fn start(
    context: &Context,
    sessions: Arc<Sessions>,
    holds: Arc<Holds>,
    end: CancellationToken,
) -> anyhow::Result<()> {
    let client = context.nats.client();
    let mut answers = client
        .subscribe(direct_subject(&context.boot_id.to_string()))
        .await?;
    context.tasks.spawn_essential("answers", async move {
        let read = async {
            while let Some(message) = answers.next().await {
                match DirectAnswers::decode(&message.payload) {
                    Ok(DirectAnswers(answers)) => {
                        for answer in answers {
                            take(answer, &sessions, &holds);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "answers of a gateway cannot be read"),
                }
            }
            anyhow::bail!("the subscription to answers ended")
        };
        end.run_until_cancelled(read).await.unwrap_or(Ok(()))
    });
    Ok(())
}

fn take(answer: DirectAnswer, sessions: &Sessions, holds: &Holds) {
    match answer {
        DirectAnswer::Granted {
            client_id,
            connection,
            grant,
        } => sessions.grant(client_id, connection, grant),
        DirectAnswer::Confirmed { event, client_id } => {
            CONFIRMED.increment(1);
            holds.settle(event, client_id);
        }
        DirectAnswer::Refused { event, client_id } => {
            REFUSED.increment(1);
            sessions.revoke(client_id);
            holds.refuse(event, client_id);
        }
    }
}
