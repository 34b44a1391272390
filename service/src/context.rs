//! What a running service has at hand.

use std::ops::Deref;
use std::time::Duration;

use tidings_metadata::Metadata;
use tidings_nats::{Bus, Topology, setup};
use tokio_util::sync::CancellationToken;

use crate::boot_id::BootId;
use crate::conditions::{Condition, Conditions};
use crate::nats_connection::NatsConnection;
use crate::nats_settings::NatsSettings;
use crate::start::install_crypto_provider;
use crate::tasks::Tasks;

/// For commands, which do one thing at a time, and tests, which do a few.
const POSTGRES_CONNECTIONS_MAX: u32 = 4;
/// Of a context without a service.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Handed to a service by [`start::run`](crate::start::run). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// What it has beside the bus.
    pub base: BaseContext,
    /// The connection that everything may use. It stays connected while the service drains.
    pub nats: NatsConnection,
    /// For further connections of one's own, by [`Context::connect_nats`].
    pub nats_settings: NatsSettings,
    /// The bus on `nats`.
    pub bus: Bus,
    /// Into how many parts chats and inboxes are cut, as `tidings setup` made it.
    pub topology: Topology,
}

/// Handed to a service that does not use the bus by [`start::run_without_bus`](crate::start::run_without_bus). Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct BaseContext {
    /// The kind of service, such as `gateway`.
    pub service: &'static str,
    /// This run of this process.
    pub boot_id: BootId,
    /// Postgres. It may be away at times.
    pub metadata: Metadata,
    /// Cancelled at the first request to stop. From then on the service is not ready; it finishes what it has in
    /// hand and returns within `drain_timeout`.
    pub stopping: CancellationToken,
    /// Cancelled when the service has drained and returned: until then it needs what it needed before, so what
    /// works for it in the background ends with this and not with `stopping`.
    pub ended: CancellationToken,
    /// How long the stop may take.
    pub drain_timeout: Duration,
    /// What must hold for the service to be ready.
    pub conditions: Conditions,
    /// The tasks that are awaited at the end.
    pub tasks: Tasks,
}

impl BaseContext {
    /// Adds a condition for being ready; it does not hold until it is set.
    pub fn require(&self, name: &'static str) -> Condition {
        self.conditions.require(name)
    }

    /// Ready: all conditions hold and nobody asked to stop.
    pub fn is_ready(&self) -> bool {
        !self.stopping.is_cancelled() && self.conditions.hold()
    }

    /// A context without a service around it, for tests: see [`Context::attach`].
    pub async fn attach(service: &'static str, postgres_url: &str) -> anyhow::Result<Self> {
        install_crypto_provider();
        let metadata = Metadata::connect(postgres_url, POSTGRES_CONNECTIONS_MAX)?;
        metadata.check_schema().await?;
        let stopping = CancellationToken::new();
        Ok(Self {
            service,
            boot_id: BootId::random(),
            metadata,
            drain_timeout: DRAIN_TIMEOUT,
            conditions: Conditions::default(),
            tasks: Tasks::new(stopping.clone()),
            ended: stopping.clone(),
            stopping,
        })
    }
}

impl Deref for Context {
    type Target = BaseContext;

    fn deref(&self) -> &BaseContext {
        &self.base
    }
}

impl Context {
    /// A context without a service around it, for commands and tests: connects at once, and fails where
    /// [`start::run`](crate::start::run) would wait. Nothing listens, nothing obeys signals; whoever wants its tasks
    /// to end cancels `stopping`.
    pub async fn attach(service: &'static str, nats_url: &str, postgres_url: &str) -> anyhow::Result<Self> {
        Self::attach_by(service, NatsSettings::parse(nats_url)?, postgres_url).await
    }

    /// The same, by settings that may have another login than the URL's.
    pub async fn attach_by(
        service: &'static str,
        nats_settings: NatsSettings,
        postgres_url: &str,
    ) -> anyhow::Result<Self> {
        let base = BaseContext::attach(service, postgres_url).await?;
        let nats = NatsConnection::connect(&nats_settings, &format!("{service}-{}", base.boot_id)).await?;
        let bus = nats.bus();
        let topology = setup::check(&bus).await?;
        Ok(Self {
            base,
            nats,
            nats_settings,
            bus,
            topology,
        })
    }

    /// Another connection to the same servers, named `<service>-<boot id>-<purpose>`; see
    /// [`NatsConnection::connect`].
    pub async fn connect_nats(&self, purpose: &str) -> anyhow::Result<NatsConnection> {
        let name = format!("{}-{}-{purpose}", self.service, self.boot_id);
        NatsConnection::connect(&self.nats_settings, &name).await
    }
}
