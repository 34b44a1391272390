//! The inbox worker's settings.

use tidings_service::CommonConfig;

/// Settings of `tidings inbox-worker`.
#[derive(Clone, Debug, clap::Args)]
pub struct InboxWorkerConfig {
    /// Every service's settings.
    #[command(flatten)]
    pub common: CommonConfig,
}
