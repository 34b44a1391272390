//! The gateway's settings.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_service::{AttachmentConfig, CommonConfig, ProxyProtocol, Switch, TokenConfig};

/// Settings of `tidings gateway`.
#[derive(Clone, Debug, clap::Args)]
pub struct GatewayConfig {
    /// Every service's settings.
    #[command(flatten)]
    pub common: CommonConfig,

    /// Which tokens are accepted.
    #[command(flatten)]
    pub tokens: TokenConfig,

    /// Where clients connect: WebSocket at /v1/ws, versions and limits at /v1.
    ///
    /// Plain HTTP: TLS ends at the load balancer in front, since in the process it would cost 20 KB a connection.
    #[arg(
        long,
        env = "TIDINGS_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Whether a load balancer says by PROXY protocol v2 whose each connection is, so that limits and logs see the clients'
    /// addresses.
    ///
    /// `required` closes what does not begin with such a header. Nobody but the balancer may reach the port then, since
    /// whoever does can say any address.
    #[arg(
        long,
        env = "TIDINGS_PROXY_PROTOCOL",
        value_enum,
        default_value = "off",
        value_name = "off|required"
    )]
    pub proxy_protocol: ProxyProtocol,

    /// The rates of PROTOCOL §6. `off` is for load tests: then one client can keep everybody waiting.
    #[arg(
        long,
        env = "TIDINGS_RATE_LIMITS",
        value_enum,
        default_value = "on",
        value_name = "on|off"
    )]
    pub rate_limits: Switch,

    /// Whether each client has a durable consumer, which shows in `nats consumer info` what it has yet to confirm.
    ///
    /// `off` is for large fleets: nats-server holds 70 to 80 KB for each, and carries up to twice as much without.
    /// Inboxes are read by Direct Get alone then.
    #[arg(
        long,
        env = "TIDINGS_INBOX_DURABLES",
        value_enum,
        default_value = "on",
        value_name = "on|off"
    )]
    pub inbox_durables: Switch,

    /// Under which URL clients reach the media services, told in `welcome`. By default there are none, and
    /// `createAttachment` is refused.
    #[arg(long, env = "TIDINGS_MEDIA_URL", value_name = "URL", value_parser = media_url)]
    pub media_url: Option<String>,

    /// How large and how many attachments may be.
    #[command(flatten)]
    pub attachments: AttachmentConfig,

    /// Connections that have not said hello yet, from one address; more are refused with 429.
    ///
    /// Behind a load balancer all clients come from its address, unless it says theirs: see --proxy-protocol.
    #[arg(
        long,
        env = "TIDINGS_UNAUTHENTICATED_MAX",
        default_value_t = 1000,
        value_name = "N"
    )]
    pub unauthenticated_max: u32,

    /// How many of the messages that come in here are traced, from 0 for none to 1 for all.
    ///
    /// Their spans go where --otlp-endpoint says; without that nothing is traced.
    #[arg(
        long,
        env = "TIDINGS_TRACE_RATIO",
        default_value = "0.01",
        value_name = "RATIO",
        value_parser = ratio
    )]
    pub trace_ratio: f64,

    /// How long a client may take nothing of what waits for it, in seconds, before it is closed with 4408.
    ///
    /// Counted from the last bytes that left: however slow a link is, a client that reads is not closed.
    #[arg(
        long,
        env = "TIDINGS_STALL_TIMEOUT",
        default_value = "30",
        value_name = "SECONDS",
        value_parser = stall_timeout
    )]
    pub stall_timeout: Duration,
}

/// A second at least: healthy clients stand still for a moment.
fn stall_timeout(text: &str) -> Result<Duration, String> {
    let timeout = tidings_service::seconds(text)?;
    if timeout < Duration::from_secs(1) {
        return Err("at least 1 second is expected".to_owned());
    }
    Ok(timeout)
}

/// A part of all.
fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "a number from 0 to 1 is expected, such as 0.01".to_owned())
}

/// A URL that paths are put behind.
fn media_url(text: &str) -> Result<String, String> {
    let authority = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let authority = authority.and_then(|rest| rest.split('/').next());
    if authority.is_none_or(str::is_empty) || text.contains(['?', '#', ' ']) {
        return Err("a URL is expected, such as https://media.example.org".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_part() {
        assert_eq!(
            (ratio("0"), ratio("1"), ratio("0.25")),
            (Ok(0.0), Ok(1.0), Ok(0.25))
        );
        for wrong in ["", "-0.1", "1.1", "NaN", "1%"] {
            assert!(ratio(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_media_url_ends_where_paths_begin() {
        let read = |text| media_url(text).ok();
        assert_eq!(read("https://m.example/"), Some("https://m.example".to_owned()));
        assert_eq!(read("http://[::1]:8081"), Some("http://[::1]:8081".to_owned()));
        assert_eq!(
            read("https://m.example/a//"),
            Some("https://m.example/a".to_owned())
        );
        for wrong in [
            "",
            "m.example",
            "https://",
            "ftp://m.example",
            "https:///x",
            "https://m.example/?a=b",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
