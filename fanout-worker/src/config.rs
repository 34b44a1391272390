//! The settings of a fan-out worker.

use tidings_service::{CommonConfig, Switch};

/// Settings of `tidings fanout-worker`.
#[derive(Clone, Debug, clap::Args)]
pub struct FanoutWorkerConfig {
    /// What every service has.
    #[command(flatten)]
    pub common: CommonConfig,

    /// How many inbox entries may be on their way to NATS at once, over all chats.
    ///
    /// More keeps several NATS nodes busy; each costs the bytes of its entry while it waits. The client library
    /// takes no more than a few thousand commands before it makes everybody wait.
    #[arg(long, env = "TIDINGS_PUBLISHES_MAX", default_value_t = 1024, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub publishes_max: u32,

    /// Whether connected clients are told of events before these are stored for them, and only what they do not confirm
    /// within a second is stored.
    ///
    /// Without it every entry is stored before anybody is told, and deleted when it is confirmed: several times the work.
    #[arg(long, env = "TIDINGS_DIRECT_DELIVERY", value_enum, default_value_t = Switch::On, value_name = "SWITCH")]
    pub direct_delivery: Switch,

    /// Only for tests, and only there in debug builds: what befalls the handler of a message, as `panic:<text>` or
    /// `abort:<text>`; the message is one that holds the text.
    #[cfg(debug_assertions)]
    #[arg(long, env = "TIDINGS_FAULT", hide = true)]
    pub fault: Option<crate::faults::Faults>,
}
