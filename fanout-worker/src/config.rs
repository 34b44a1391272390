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

    /// From how many bytes on an entry that is stored in two inboxes or more is stored once, in BODIES, and inboxes refer to it;
    /// `off` stores it in each of them.
    ///
    /// 4096 is where it pays (adr/0026). Gateways of builds before large bodies cannot read references: `off` until all are new.
    #[arg(long, env = "TIDINGS_LARGE_BODY_BYTES", default_value = "4096", value_name = "BYTES", value_parser = LargeBodyBytes::parse)]
    pub large_body_bytes: LargeBodyBytes,

    /// Only for tests, and only there in debug builds: what befalls the handler of a message, as `panic:<text>` or
    /// `abort:<text>`; the message is one that holds the text.
    #[cfg(debug_assertions)]
    #[arg(long, env = "TIDINGS_FAULT", hide = true)]
    pub fault: Option<crate::faults::Faults>,
}

/// From which size on a body is large; None is never.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LargeBodyBytes(pub Option<u32>);

/// A reference with its headers has about 400 bytes: below twice that, nothing is gained.
const LARGE_BODY_BYTES_MIN: u32 = 1_024;

impl LargeBodyBytes {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" || text == "0" {
            return Ok(Self(None));
        }
        match text.parse() {
            Ok(bytes) if bytes >= LARGE_BODY_BYTES_MIN => Ok(Self(Some(bytes))),
            _ => Err(format!("it is `off`, or a number from {LARGE_BODY_BYTES_MIN} on")),
        }
    }

    /// Whether anything is large.
    pub(crate) const fn is_on(self) -> bool {
        self.0.is_some()
    }

    /// Whether an entry of so many bytes is large.
    pub(crate) const fn is_reached(self, bytes: usize) -> bool {
        match self.0 {
            Some(min) => bytes >= min as usize,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_or_off() {
        assert_eq!(LargeBodyBytes::parse("off"), Ok(LargeBodyBytes(None)));
        assert_eq!(LargeBodyBytes::parse("0"), Ok(LargeBodyBytes(None)));
        assert_eq!(LargeBodyBytes::parse("1024"), Ok(LargeBodyBytes(Some(1_024))));
        for text in ["1023", "-1", "4k", "", "5000000000"] {
            assert!(LargeBodyBytes::parse(text).is_err(), "{text}");
        }
        assert!(LargeBodyBytes(Some(1_024)).is_reached(1_024));
        assert!(!LargeBodyBytes(Some(1_024)).is_reached(1_023));
        assert!(!LargeBodyBytes(None).is_reached(usize::MAX));
    }
}
