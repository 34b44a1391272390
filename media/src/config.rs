//! The media service's settings.

use std::net::SocketAddr;

use axum::http::HeaderValue;
use tidings_blobs::BlobStoreConfig;
use tidings_service::{AttachmentConfig, BaseConfig, ProxyProtocol, Switch, TokenConfig};
use url::Url;

/// Settings of `tidings media`.
#[derive(Clone, Debug, clap::Args)]
pub struct MediaConfig {
    /// Every service's settings.
    #[command(flatten)]
    pub common: BaseConfig,

    /// Which tokens are accepted.
    #[command(flatten)]
    pub tokens: TokenConfig,

    /// Where the bytes lie.
    #[command(flatten)]
    pub store: BlobStoreConfig,

    /// How large and how many attachments may be.
    #[command(flatten)]
    pub attachments: AttachmentConfig,

    /// Where clients upload and download: /v1/attachments, and /v1/uploads for tus.
    ///
    /// Plain HTTP: TLS ends at the load balancer in front, which must pass bodies on as they come.
    #[arg(
        long,
        env = "TIDINGS_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Whether a load balancer says by PROXY protocol v2 whose each connection is.
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

    /// The most connections from one address, of the 8192 that a process takes; more are closed.
    ///
    /// Behind a load balancer all clients come from its address, unless it says theirs: see --proxy-protocol.
    #[arg(
        long,
        env = "TIDINGS_CONNECTIONS_PER_ADDRESS_MAX",
        default_value_t = 2048,
        value_name = "N"
    )]
    pub connections_per_address_max: usize,

    /// Under which URL clients reach this service, for the `Location` of tus uploads; the gateways' --media-url. By
    /// default such a URL is a path, which clients complete.
    #[arg(long, env = "TIDINGS_MEDIA_URL", value_name = "URL")]
    pub media_url: Option<Url>,

    /// Web pages of these origins, such as `https://chat.example.org`, may upload and download; `*` is every page.
    /// Several are separated by commas. By default none.
    #[arg(long, env = "TIDINGS_CORS_ORIGIN", value_name = "ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_origin: Vec<HeaderValue>,

    /// The most uploads of one user at once in this process; more are refused with 429.
    #[arg(long, env = "TIDINGS_USER_UPLOADS_MAX", default_value_t = 8, value_name = "N")]
    pub user_uploads_max: usize,

    /// The most uploads at once in this process; more are refused with 503. An upload takes a connection, up to 4 MB
    /// of memory, and one or two open files.
    #[arg(long, env = "TIDINGS_UPLOADS_MAX", default_value_t = 512, value_name = "N")]
    pub uploads_max: usize,

    /// What a user may upload in an hour, at once, and in all. `off` is for load tests: then one user can fill the
    /// store.
    #[arg(
        long,
        env = "TIDINGS_RATE_LIMITS",
        value_enum,
        default_value = "on",
        value_name = "on|off"
    )]
    pub rate_limits: Switch,

    /// Whether downloads are sent to the store by a URL that is good for minutes, where the store is S3: the bytes do
    /// not pass through this service then.
    ///
    /// Clients must reach the store under its endpoint. Whoever learns such a URL can download until it ends.
    #[arg(
        long,
        env = "TIDINGS_REDIRECT_DOWNLOADS",
        value_enum,
        default_value = "off",
        value_name = "on|off"
    )]
    pub redirect_downloads: Switch,
}

/// Reads `*`, or an origin as browsers send it: a scheme, a host, maybe a port, and nothing behind.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let text = text.trim();
    let expected = || format!("an origin such as https://chat.example.org is expected, or *, not {text:?}");
    if text != "*" {
        let url = Url::parse(text).map_err(|_| expected())?;
        if url.origin().ascii_serialization() != text {
            return Err(expected());
        }
    }
    HeaderValue::from_str(text).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_of_browsers() {
        for text in ["*", "https://chat.example.org", "http://localhost:3000"] {
            assert_eq!(origin(text), Ok(HeaderValue::from_static(text)), "{text}");
        }
        for text in [
            "",
            "chat.example.org",
            "https://chat.example.org/",
            "https://a/b",
            "https://A.example",
            "null",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
