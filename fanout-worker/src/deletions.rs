//! Deleting finished events from CHATS. It is what an ack would be elsewhere: what is stored is not finished (adr/0019).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tidings_nats::{ApiError, Bus, CHATS};
use tidings_protocol::ChatId;
use tokio::sync::Semaphore;

use crate::rounds::{Bounds, Rounds};
use crate::together::{Together, Wanted};

/// For one deletion: an election of the stream takes about as long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// So many at once, as many as a gateway has on their way for confirmations: the server queues 10,000 requests of all
/// clients, and drops all of them when there are more.
const DELETIONS_MAX: usize = 256;
/// What is finished is deleted together, so that neither nats-server nor the worker is woken for each event.
pub(crate) const ROUND: Bounds = Bounds {
    // At 200 messages a second 20 go together, and more would save little. A worker that dies leaves so much more to be worked
    // on again, beside what it holds for a second at most.
    length: Duration::from_millis(100),
    // A quarter of `DELETIONS_MAX`, so that a round finds room at once, and at most so many are worked on again.
    most: 64,
    // A tenth of what a worker holds of one chat (`EVENTS_OF_CHAT_MAX`, where these count too), and a fiftieth of what CHATS
    // takes of it: nobody is refused because of a round. Limits let 20 messages a second into a chat, 2 in a round.
    most_of_chat: 10,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Deletions {
    bus: Bus,
    permits: Semaphore,
    /// The requests of a round leave together.
    together: Together<Deletion, Result<(), DeletionError>>,
    /// What is finished waits here for others.
    pub(crate) rounds: Arc<Rounds>,
}

/// An event that is to be deleted if it still may.
struct Deletion {
    sequence: u64,
    may_still: Box<dyn Fn() -> bool + Send>,
}

impl std::fmt::Debug for Deletion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deletion")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Why an event was not deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeletionError {
    /// NATS was asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// NATS was not asked: another event may be in its place by now.
    #[error("the connection is another one")]
    Reconnected,
    /// Not known whether NATS was asked.
    #[error("whoever asked for several was ended")]
    Ended,
}

impl Deletions {
    pub(crate) fn new(bus: Bus, round: Bounds) -> Self {
        Self {
            bus,
            permits: Semaphore::new(DELETIONS_MAX),
            together: Together::new(),
            rounds: Rounds::new(round),
        }
    }

    /// Deletes an event, once there is room for the request, if it may still be done then. With the chat in which somebody
    /// who is new would wait for it, it waits for a round; without one it goes at once. One that is gone already is deleted.
    pub(crate) async fn delete(
        &self,
        sequence: u64,
        chat_id: Option<ChatId>,
        may_still: impl Fn() -> bool + Send + 'static,
    ) -> Result<(), DeletionError> {
        if let Some(chat_id) = chat_id
            && may_still()
        {
            self.rounds.next(chat_id).await;
        }
        let _permit = self.permits.acquire().await.expect("it is never closed");
        let wanted = Deletion {
            sequence,
            may_still: Box::new(may_still),
        };
        let deleted = self.together.run(wanted, |wanted| ask(self.bus.clone(), wanted));
        let result = deleted.await.unwrap_or(Err(DeletionError::Ended));
        if result.is_err() {
            metrics::counter!("tidings_fanout_deletion_failures_total").increment(1);
        }
        result
    }
}

/// Sends all requests before it waits for the first answer.
async fn ask(bus: Bus, wanted: Wanted<Deletion, Result<(), DeletionError>>) {
    let mut asked: FuturesUnordered<_> = wanted
        .into_iter()
        .map(async |(deletion, done)| {
            let result = if (deletion.may_still)() {
                let deleted = bus.delete_message(CHATS, deletion.sequence, TIMEOUT);
                deleted.await.map_err(DeletionError::from)
            } else {
                Err(DeletionError::Reconnected)
            };
            // Where nobody waits any more, nobody is to be told.
            let _ = done.send(result);
        })
        .collect();
    while asked.next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_not_be_deleted_any_more_is_not_asked_for() {
        // Of a server that is not there: whoever asks hears of that.
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let client = options
            .connect("127.0.0.1:1")
            .await
            .expect("it is not waited for");
        let round = Bounds { most: 1, ..ROUND };
        let deletions = Deletions::new(Bus::new(client), round);
        let deleted = |may_still: bool| deletions.delete(1, None, move || may_still);
        assert!(matches!(
            deleted(true).await,
            Err(DeletionError::Api(ApiError::Disconnected))
        ));
        assert!(matches!(deleted(false).await, Err(DeletionError::Reconnected)));
    }
}
