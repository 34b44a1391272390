//! The way every service starts and stops.
//!
//! Start: log, crypto provider, metrics, admin port, NATS and Postgres (however long it takes), then the service. Stop:
//! not ready, the service drains, its tasks end, the connection is flushed; all within the drain timeout.

use std::future::Future;
use std::process::ExitCode;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use tidings_metadata::Metadata;
use tidings_nats::setup::{self, SetupError};
use tidings_nats::{Bus, NatsUser, Topology};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::boot_id::BootId;
use crate::conditions::{Condition, Conditions};
use crate::config::{BaseConfig, CommonConfig};
use crate::context::{BaseContext, Context};
use crate::logging;
use crate::metrics::Metrics;
use crate::nats_connection::NatsConnection;
use crate::nats_settings::NatsSettings;
use crate::postgres;
use crate::runtime::runtime;
use crate::sockets;
use crate::stop::{EXIT_CODE_AT_ONCE, StopRequests};
use crate::tasks::Tasks;
use crate::trace::Traces;

/// How often histograms are sorted into their buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Between questions to a JetStream that does not answer yet.
const SETUP_RETRY_DELAY: Duration = Duration::from_secs(1);
/// What a blocking call may still take once everything else has ended.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// The last flush to NATS, where the drain left time for it or not.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a service to its end. On the bus it is this user. The future that `service` returns runs until
/// `context.stopping` and drains then; an error of it stops the process with a failure.
///
/// The exit code is 0 after a stop that was asked for and done in time, 1 after a failure or a drain that took too
/// long; a second request to stop ends the process at once with [`EXIT_CODE_AT_ONCE`].
pub fn run<F, Fut>(name: &'static str, user: NatsUser, config: &CommonConfig, service: F) -> ExitCode
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    block_on(name, &config.base, Box::pin(start(name, user, config, service)))
}

/// Runs a service that does not use the bus to its end; see [`run`].
pub fn run_without_bus<F, Fut>(name: &'static str, config: &BaseConfig, service: F) -> ExitCode
where
    F: FnOnce(BaseContext) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    block_on(name, config, Box::pin(start_without_bus(name, config, service)))
}

fn block_on(
    name: &'static str,
    config: &BaseConfig,
    service: impl Future<Output = anyhow::Result<()>>,
) -> ExitCode {
    if let Err(error) = logging::install(config.log_format, &config.log) {
        // There is no log to say it in.
        eprintln!("tidings {name}: {error:#}");
        return ExitCode::FAILURE;
    }
    if let Err(error) = sockets::raise_files_limit() {
        tracing::warn!("{error:#}; it stays as it is");
    }
    install_crypto_provider();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(service);
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    match result {
        Ok(()) => {
            tracing::info!(service = name, "stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(service = name, "stopped: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes `ring` the provider of every TLS connection of this process. To be called first thing in every process
/// that does not go through [`run`]: where two providers are compiled in, rustls panics at its first use otherwise.
pub fn install_crypto_provider() {
    // An error says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn start<F, Fut>(
    name: &'static str,
    user: NatsUser,
    config: &CommonConfig,
    service: F,
) -> anyhow::Result<()>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let nats_settings = NatsSettings::new(&config.nats, user)?;
    let process = Process::start(name, &config.base).await?;
    let base = process.context.clone();
    let nats_condition = base.require("nats");
    let nats_name = format!("{name}-{}", base.boot_id);
    let asked_to_stop = base.stopping.clone().cancelled_owned();
    let Some(nats) = NatsConnection::connect_with_retries(&nats_settings, &nats_name, asked_to_stop).await
    else {
        return Ok(());
    };
    tokio::spawn(watch_connection(nats.clone(), nats_condition));
    let bus = nats.bus();
    let Some(topology) = base
        .stopping
        .run_until_cancelled(topology(&bus))
        .await
        .transpose()?
    else {
        return Ok(());
    };
    if !process.wait_for_schema().await? {
        return Ok(());
    }
    let context = Context {
        base,
        bus,
        topology,
        nats: nats.clone(),
        nats_settings,
    };
    // What the tasks published last is on its way before the process ends.
    let flush = async {
        let flushed = tokio::time::timeout(FLUSH_TIMEOUT, nats.client().flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("the last messages to NATS were not flushed");
        }
    };
    // Boxed, since each function that it is handed to would have room for it, twice.
    process.run(Box::pin(service(context)), flush).await
}

async fn start_without_bus<F, Fut>(name: &'static str, config: &BaseConfig, service: F) -> anyhow::Result<()>
where
    F: FnOnce(BaseContext) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let process = Process::start(name, config).await?;
    if !process.wait_for_schema().await? {
        return Ok(());
    }
    let context = process.context.clone();
    process
        .run(Box::pin(service(context)), std::future::ready(()))
        .await
}

/// What every service has around it.
struct Process {
    context: BaseContext,
    postgres: Condition,
    service: Condition,
    traces: Option<Traces>,
}

impl Process {
    /// Signals are obeyed, and the admin port answers, when it returns.
    async fn start(name: &'static str, config: &BaseConfig) -> anyhow::Result<Self> {
        let boot_id = BootId::random();
        let stopping = CancellationToken::new();
        let conditions = Conditions::default();
        let postgres = conditions.require("postgres");
        let service = conditions.require("service");
        let stop_requests = StopRequests::new().context("cannot listen for signals")?;
        tokio::spawn(obey(stop_requests, stopping.clone(), config.drain_timeout));

        let metadata = Metadata::connect(config.postgres_url()?.expose(), config.postgres_connections_max)
            .context("--postgres-url")?;
        let metrics = Metrics::install(name)?;
        tokio::spawn(upkeep(metrics.clone()));
        let traces = config
            .otlp_endpoint
            .as_ref()
            .map(|endpoint| Traces::start(endpoint, name, boot_id));
        let traces = traces.transpose()?;
        let admin = Admin {
            service: name,
            boot_id,
            conditions: conditions.clone(),
            stopping: stopping.clone(),
            metrics,
        };
        let admin_address = admin.serve(config.admin_listen).await?;
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(service = name, boot.id = %boot_id, version, admin.address = %admin_address, "starting");
        let context = BaseContext {
            service: name,
            boot_id,
            metadata,
            tasks: Tasks::new(stopping.clone()),
            stopping,
            ended: CancellationToken::new(),
            drain_timeout: config.drain_timeout,
            conditions,
        };
        Ok(Self {
            context,
            postgres,
            service,
            traces,
        })
    }

    /// Waits until Postgres answers, and looks whether its tables are those of this version. False: somebody asked to
    /// stop.
    async fn wait_for_schema(&self) -> anyhow::Result<bool> {
        let wait = postgres::wait_for_schema(&self.context.metadata, &self.postgres);
        let waited = self.context.stopping.run_until_cancelled(wait).await;
        Ok(waited.transpose()?.is_some())
    }

    /// The service to its end, and what must be done after it.
    async fn run(
        self,
        service: impl Future<Output = anyhow::Result<()>>,
        after: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let BaseContext {
            metadata,
            stopping,
            ended,
            drain_timeout,
            tasks,
            ..
        } = self.context;
        tokio::spawn(postgres::watch(metadata.clone(), self.postgres));
        let service = begun(service, self.service);
        let service = ending(service, &stopping, &ended);
        let result = drain(service, &tasks, &stopping, drain_timeout).await;
        after.await;
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, metadata.close()).await;
        if let Some(traces) = self.traces {
            traces.stop().await;
        }
        result
    }
}

/// Looks whether streams are those of this version; waits for whom to ask.
async fn topology(bus: &Bus) -> anyhow::Result<Topology> {
    loop {
        match setup::check(bus).await {
            Err(SetupError::Api { what, error }) => {
                tracing::warn!(what, %error, "JetStream does not answer; trying again");
                tokio::time::sleep(SETUP_RETRY_DELAY).await;
            }
            result => return Ok(result?),
        }
    }
}

/// The service, and the condition that it has begun: from then on it is ready by the conditions that it has asked for
/// itself, of which nobody knew before.
async fn begun<T>(service: impl Future<Output = T>, condition: Condition) -> T {
    let mut service = std::pin::pin!(service);
    let first = std::future::poll_fn(|context| Poll::Ready(service.as_mut().poll(context))).await;
    match first {
        Poll::Ready(result) => result,
        Poll::Pending => {
            condition.holds();
            service.await
        }
    }
}

/// The service, and the end of what works for it. One that returns by itself takes its tasks along.
async fn ending(
    service: impl Future<Output = anyhow::Result<()>>,
    stopping: &CancellationToken,
    ended: &CancellationToken,
) -> anyhow::Result<()> {
    let result = service.await;
    stopping.cancel();
    ended.cancel();
    result
}

/// Runs the service, then waits for its tasks, both no longer than `timeout` after the first request to stop.
async fn drain(
    service: impl Future<Output = anyhow::Result<()>>,
    tasks: &Tasks,
    stopping: &CancellationToken,
    timeout: Duration,
) -> anyhow::Result<()> {
    let work = async {
        let result = service.await;
        tasks.finished().await;
        result
    };
    let deadline = async {
        stopping.cancelled().await;
        tokio::time::sleep(timeout).await;
    };
    let result = tokio::select! {
        result = work => result,
        () = deadline => {
            let remaining = tasks.remaining();
            Err(anyhow::anyhow!("not drained after {} s, {remaining} tasks are left", timeout.as_secs_f64()))
        }
    };
    match (result, tasks.failure()) {
        (Err(error), _) => Err(error),
        (Ok(()), Some(failure)) => Err(anyhow::anyhow!(failure)),
        (Ok(()), None) => Ok(()),
    }
}

/// The first request begins the stop, the second one ends the process.
async fn obey(mut requests: StopRequests, stopping: CancellationToken, drain_timeout: Duration) {
    let cause = requests.next().await;
    tracing::info!(
        cause,
        drain.seconds = drain_timeout.as_secs_f64(),
        "asked to stop: draining"
    );
    stopping.cancel();
    let cause = requests.next().await;
    tracing::warn!(cause, "asked to stop again: stopping at once");
    std::process::exit(EXIT_CODE_AT_ONCE);
}

async fn upkeep(metrics: Metrics) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        metrics.upkeep();
    }
}

/// Keeps the condition `nats` at what the connection says.
async fn watch_connection(nats: NatsConnection, condition: Condition) {
    let mut state = nats.state();
    loop {
        let (connected, since) = {
            let state = state.borrow_and_update();
            (state.connected, state.since)
        };
        if connected {
            condition.holds();
        } else {
            tracing::debug!(
                seconds = (Instant::now() - since).as_secs_f64(),
                "NATS is not connected"
            );
            condition.fails("not connected");
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_is_ready_before_the_service_has_said_what_it_takes() {
        let conditions = Conditions::default();
        let condition = conditions.require("service");
        let ours = conditions.clone();
        let service = begun(
            async move {
                let listening = ours.require("listening");
                tokio::task::yield_now().await;
                assert!(!ours.hold(), "it does not listen yet");
                listening.holds();
                assert!(ours.hold());
            },
            condition,
        );
        assert!(!conditions.hold(), "it has not begun");
        service.await;
        assert!(conditions.hold());
    }
}
