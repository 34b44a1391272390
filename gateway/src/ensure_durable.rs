//! A durable that does not answer is made again in the background, on a node that is up: its own node may be down for
//! long, and operators read from it what a client has yet to confirm.

use std::time::Duration;

use serde_json::Value;
use tidings_nats::{Bus, Shard};
use tidings_protocol::ClientId;
use tokio::sync::Semaphore;

/// Durables that are made again at once, in this process. A third of them may be gone with a node.
static UNDER_WAY: Semaphore = Semaphore::const_new(8);
/// For a question about a durable, and for its deletion; the node of one that takes longer is down.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(1);
/// For its creation.
const CREATE_TIMEOUT: Duration = Duration::from_secs(5);
/// The death of a node may need elections first, of up to nine seconds. After these tries the next hello will do it.
const TRIES: u32 = 5;
/// Between tries.
const DELAY: Duration = Duration::from_secs(3);

/// Looks whether the durable answers, and if not, deletes it, whether or not anybody says so, and makes it again.
pub(crate) async fn ensure_durable(bus: &Bus, shard: Shard, client_id: ClientId, config: &Value) {
    for attempt in 1..=TRIES {
        let permit = UNDER_WAY.acquire().await.expect("it is never closed");
        if bus.durable_info(shard, client_id, DURABLE_TIMEOUT).await.is_ok() {
            return;
        }
        let _ = bus.delete_durable(shard, client_id, DURABLE_TIMEOUT).await;
        match bus.create_durable(shard, config, CREATE_TIMEOUT).await {
            Ok(()) => {
                tracing::info!(client.id = %client_id, "the durable did not answer and was made again");
                metrics::counter!("tidings_durables_remade_total").increment(1);
                return;
            }
            Err(error) => {
                tracing::debug!(client.id = %client_id, %error, attempt, "the durable was not made again");
            }
        }
        drop(permit);
        tokio::time::sleep(DELAY).await;
    }
}
