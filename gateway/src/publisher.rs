//! The connection that events are published on. What the client library has queued for a dead connection is
//! flushed when it comes back; so that nothing appears long after it was answered `unavailable`, a connection
//! that has been down for a while is given up, queue and all, and a new one is made.

use std::time::Duration;

use parking_lot::RwLock;
use std::sync::Arc;
use tidings_nats::Bus;
use tidings_service::{Context, NatsConnection};
use tokio::time::Instant;

/// How long a connection may be down before it is given up.
const DOWN_MAX: Duration = Duration::from_secs(10);
/// Between tries to make a new one.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Gives the connection of the moment. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    current: Arc<RwLock<Bus>>,
}

impl Publisher {
    /// With the task that replaces dead connections.
    pub(crate) async fn start(context: &Context) -> anyhow::Result<Self> {
        let connection = context.connect_nats("publish").await?;
        let publisher = Self {
            current: Arc::new(RwLock::new(connection.bus())),
        };
        let (task, context_of_task) = (publisher.clone(), context.clone());
        // Without it a connection that is given up would never be replaced.
        context.tasks.spawn_essential("publisher", async move {
            let stopping = context_of_task.stopping.clone();
            stopping
                .run_until_cancelled(Box::pin(task.replace_dead(context_of_task, connection)))
                .await;
            Ok(())
        });
        Ok(publisher)
    }

    /// The connection of the moment; it may be down.
    pub(crate) fn bus(&self) -> Bus {
        self.current.read().clone()
    }

    async fn replace_dead(&self, context: Context, mut connection: NatsConnection) {
        loop {
            down_for(&connection, DOWN_MAX).await;
            match context.connect_nats("publish").await {
                Ok(new) => {
                    *self.current.write() = new.bus();
                    connection = new;
                    tracing::warn!("the publishing connection was down for 10 s and is replaced");
                }
                Err(error) => {
                    tracing::debug!("no new publishing connection: {error:#}");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}

/// Waits until a connection has been down for so long.
async fn down_for(connection: &NatsConnection, limit: Duration) {
    let mut state = connection.state();
    loop {
        let (connected, since) = {
            let state = state.borrow_and_update();
            (state.connected, state.since)
        };
        let due = since + limit;
        if connected {
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        } else if Instant::now() >= due || tokio::time::timeout_at(due, state.changed()).await.is_err() {
            return;
        }
    }
}
