//! Who else is alive: the instances of one kind of service, as the bucket INSTANCES has them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidings_nats::{Bus, INSTANCES, Instance, StoredMessage};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::boot_id::BootId;
use crate::context::Context;

/// How often the list is read without being asked.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A reading that takes longer has failed.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);

/// The instances of a kind at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Living {
    /// By boot id.
    pub instances: BTreeMap<BootId, Instance>,
    /// When the reading began: whoever registered before is in it, whoever stopped before is not.
    pub as_of: Instant,
}

/// A list that is read again and again until the service has ended. Cheap to clone.
///
/// It is polled and not watched, because only a reading that begins after a moment tells who was alive then: a
/// watcher does not know what is still on its way, and hears nothing of keys that expire.
#[derive(Clone, Debug)]
pub struct LivingWatch {
    bus: Bus,
    filter: String,
    living: watch::Sender<Arc<Living>>,
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl LivingWatch {
    /// Reads the instances of `service` once, then every second in a task. Fails when the first reading does.
    pub async fn start(context: &Context, service: &str) -> anyhow::Result<Self> {
        let (living, _) = watch::channel(Arc::new(Living {
            instances: BTreeMap::new(),
            as_of: Instant::now(),
        }));
        let watch = Self {
            bus: context.bus.clone(),
            filter: Instance::subject(&format!("{service}.*")),
            living,
            reading: Arc::default(),
        };
        watch.read().await?;
        let (task, ended) = (watch.clone(), context.ended.clone());
        context.tasks.spawn(async move {
            ended.run_until_cancelled(task.poll()).await;
        });
        Ok(watch)
    }

    /// The list as it was read last, and each later one. It stays what it was while NATS cannot be reached;
    /// `as_of` tells.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Living>> {
        self.living.subscribe()
    }

    /// The list as it was read last.
    pub fn now(&self) -> Arc<Living> {
        self.living.borrow().clone()
    }

    /// A list whose reading began after `moment`; one reading serves all who ask before it begins.
    pub async fn after(&self, moment: Instant) -> anyhow::Result<Arc<Living>> {
        let _turn = self.reading.lock().await;
        if self.living.borrow().as_of < moment {
            self.read().await?;
        }
        Ok(self.now())
    }

    async fn poll(&self) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            if let Err(error) = self.after(Instant::now()).await {
                tracing::debug!("{error:#}");
            }
        }
    }

    async fn read(&self) -> anyhow::Result<()> {
        let as_of = Instant::now();
        // As of now: a replica that is behind would leave out who has just come.
        let messages = self
            .bus
            .last_by_subjects_now(
                &format!("KV_{INSTANCES}"),
                std::slice::from_ref(&self.filter),
                POLL_TIMEOUT,
            )
            .await
            .map_err(|error| anyhow::anyhow!("cannot read the bucket {INSTANCES}: {error}"))?;
        let prefix = self.filter.trim_end_matches('*');
        let instances = messages
            .iter()
            .filter(|message| message.subject.starts_with(prefix))
            .filter_map(parse)
            .collect();
        self.living.send_if_modified(|living| {
            let changed = living.instances != instances;
            *living = Arc::new(Living { instances, as_of });
            changed
        });
        Ok(())
    }
}

/// A key that was deleted has an empty value and is not alive.
fn parse(message: &StoredMessage) -> Option<(BootId, Instance)> {
    let boot_id = message.subject.rsplit_once('.')?.1.parse().ok()?;
    Some((BootId(boot_id), Instance::decode(&message.payload)?))
}
