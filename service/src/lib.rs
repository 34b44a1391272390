//! What every service of Tidings does alike: settings, log, metrics, health, start and graceful stop.
//!
//! A service is a function from a [`Context`] to its end, run by [`start::run`]; what it serves is its own. One that does
//! not use the bus has a [`BaseContext`].

mod admin;
mod attachment_config;
mod boot_id;
pub mod clock;
mod conditions;
mod config;
mod context;
mod instances;
mod invalidations;
mod jwks;
mod living;
mod logging;
mod metric;
mod metrics;
mod nats_connection;
mod nats_settings;
pub mod outbox;
mod postgres;
mod process;
mod proxy_protocol;
mod runtime;
mod secret;
mod shard_permits;
mod sockets;
pub mod start;
mod stop;
mod switch;
mod tasks;
mod tls_failure;
mod token_config;
mod tokens;
mod trace;

pub use attachment_config::AttachmentConfig;
pub use boot_id::BootId;
pub use conditions::{Condition, ConditionState, Conditions};
pub use config::{BaseConfig, CommonConfig, NatsConfig, seconds};
pub use context::{BaseContext, Context};
pub use instances::{INSTANCE_AGE_MAX, Registration, instance_key};
pub use invalidations::{Applied, Forget, Invalidations};
pub use living::{Living, LivingWatch};
pub use logging::{LogFormat, install as install_log};
pub use metric::{Metric, MetricKind, describe as describe_metrics};
pub use nats_connection::{NatsConnection, NatsState};
pub use nats_settings::NatsSettings;
pub use proxy_protocol::{ProxyHeaderError, ProxyProtocol};
pub use runtime::RUNTIME_THREADS;
pub use secret::Secret;
pub use shard_permits::{ShardPermit, ShardPermits};
pub use sockets::{listen, raise_files_limit};
pub use stop::{EXIT_CODE_AT_ONCE, EXIT_WITH_STDIN, end_of_stdin};
pub use switch::Switch;
pub use tasks::Tasks;
pub use token_config::TokenConfig;
pub use tokens::{Claims, TokenError, TokenVerifier};
pub use trace::{Kind, Span, TraceContext};
