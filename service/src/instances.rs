//! Which processes are alive: each renews a key of its own in the bucket INSTANCES, from which the server removes
//! what is not renewed.
//!
//! A process that cannot renew its key is taken for dead by the others within 10 s, and must behave as if it were:
//! a worker stops, a gateway sends its clients elsewhere ([`Registration::unrenewed_for`]).

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use tidings_nats::{Bus, INSTANCES, Instance};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::boot_id::BootId;
use crate::clock;
use crate::conditions::Condition;
use crate::context::Context;

/// How long the bucket keeps a key that is not renewed (`max_age` of `nats/definitions/instances.json`).
pub const INSTANCE_AGE_MAX: Duration = Duration::from_secs(10);
/// How often a key is renewed: four renewals may fail before it is gone.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// A renewal that takes longer has failed; the next one is due by then.
const RENEW_TIMEOUT: Duration = Duration::from_millis(1500);
/// A renewal that was acked so long after the one before it may have found the key expired.
const LAPSE_AFTER: Duration = Duration::from_secs(9);
/// After this the condition `instance` does not hold.
const CONDITION_AFTER: Duration = Duration::from_secs(5);

/// `<service>.<boot id>`, a key of INSTANCES.
pub fn instance_key(service: &str, boot_id: BootId) -> String {
    format!("{service}.{boot_id}")
}

/// A key that is being renewed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registration {
    renewed: watch::Receiver<Renewed>,
}

#[derive(Copy, Clone, Debug)]
struct Renewed {
    at: Instant,
    lapses: u64,
}

impl Registration {
    /// Writes the key, then renews it in a task until `end`, and deletes it then. Fails when the first writing
    /// does. Sets the condition `instance`.
    ///
    /// `end` is when others need not reckon with this process any more: `context.ended`, or an earlier moment of
    /// the drain.
    pub async fn start(
        context: &Context,
        address: Option<String>,
        end: tokio_util::sync::CancellationToken,
    ) -> anyhow::Result<Self> {
        let instance = Instance {
            service: context.service.to_owned(),
            address,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: clock::now(),
        };
        let value = instance.encode();
        let key = instance_key(context.service, context.boot_id);
        let condition = context.require("instance");
        let started = Instant::now();
        put(&context.bus, &key, value.clone(), RENEW_TIMEOUT)
            .await
            .map_err(|error| anyhow::anyhow!("cannot register in the bucket {INSTANCES}: {error}"))?;
        condition.holds();
        let (sender, renewed) = watch::channel(Renewed {
            at: started,
            lapses: 0,
        });
        let bus = context.bus.clone();
        context.tasks.spawn(async move {
            end.run_until_cancelled(renew(&bus, &key, &value, &sender, &condition))
                .await;
            condition.fails("stopped");
            if let Err(error) = delete(&bus, &key).await {
                tracing::debug!(%error, "the instance's key was not deleted; it will expire");
            }
        });
        Ok(Self { renewed })
    }

    /// When the last successful renewal began. The key is there at least until [`INSTANCE_AGE_MAX`] later.
    pub fn renewed(&self) -> Instant {
        self.renewed.borrow().at
    }

    /// How often the key may have been gone for a while and come back, because this process was stopped or could not
    /// renew it: others may not have reckoned with it meanwhile.
    pub fn lapses(&self) -> u64 {
        self.renewed.borrow().lapses
    }

    /// Whether the last successful renewal began less than `limit` ago. With a limit below [`INSTANCE_AGE_MAX`],
    /// others see this process.
    pub fn is_renewed_within(&self, limit: Duration) -> bool {
        self.renewed().elapsed() < limit
    }

    /// Waits until no renewal has succeeded for `limit`.
    pub async fn unrenewed_for(&self, limit: Duration) {
        loop {
            let due = self.renewed() + limit;
            tokio::time::sleep_until(due).await;
            if self.renewed() + limit <= Instant::now() {
                return;
            }
        }
    }
}

async fn renew(bus: &Bus, key: &str, value: &Bytes, renewed: &watch::Sender<Renewed>, condition: &Condition) {
    let mut interval = tokio::time::interval(RENEW_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval.tick().await;
    loop {
        interval.tick().await;
        let started = Instant::now();
        match put(bus, key, value.clone(), RENEW_TIMEOUT).await {
            Ok(()) => {
                renewed.send_modify(|renewed| {
                    renewed.lapses += u64::from(renewed.at.elapsed() >= LAPSE_AFTER);
                    renewed.at = started;
                });
                condition.holds();
            }
            Err(error) => {
                metrics::counter!("tidings_instance_renewal_failures_total").increment(1);
                let unrenewed = renewed.borrow().at.elapsed();
                tracing::warn!(%error, seconds = unrenewed.as_secs(), "the instance's key was not renewed");
                if unrenewed >= CONDITION_AFTER {
                    condition.fails("the key in INSTANCES cannot be renewed");
                }
            }
        }
    }
}

async fn put(bus: &Bus, key: &str, value: Bytes, timeout: Duration) -> anyhow::Result<()> {
    bus.publish(Instance::subject(key), HeaderMap::new(), value, timeout)
        .await?;
    Ok(())
}

/// The marker that the key-value convention asks for; it expires like a value.
async fn delete(bus: &Bus, key: &str) -> anyhow::Result<()> {
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    bus.publish(Instance::subject(key), headers, Bytes::new(), RENEW_TIMEOUT)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_subjects_of_the_bucket() {
        let boot_id = BootId(uuid::Uuid::from_u128(0xab));
        let key = instance_key("fanout-worker", boot_id);
        assert_eq!(key, "fanout-worker.000000000000000000000000000000ab");
        assert_eq!(
            Instance::subject(&key),
            "$KV.INSTANCES.fanout-worker.000000000000000000000000000000ab"
        );
    }
}
