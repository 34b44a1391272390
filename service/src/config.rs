//! The settings that every service has. Only this file and a service's own `config.rs` read the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::logging::LogFormat;
use crate::secret::Secret;

/// Where NATS listens when nobody says otherwise.
const NATS_URL_DEFAULT: &str = "nats://127.0.0.1:4222";
/// Where Postgres listens when nobody says otherwise.
const POSTGRES_URL_DEFAULT: &str = "postgres://tidings@127.0.0.1:5432/tidings";

/// Settings of every service that uses the bus, for `#[command(flatten)]`. Each flag is also an environment variable:
/// `--nats-url` is `TIDINGS_NATS_URL`; the flag wins.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonConfig {
    /// Where NATS is.
    #[command(flatten)]
    pub nats: NatsConfig,

    /// Everything else.
    #[command(flatten)]
    pub base: BaseConfig,
}

/// Where NATS is, and who this process is there.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Settings of every service")]
pub struct NatsConfig {
    /// The NATS servers, separated by commas: `nats://host:port`, or `tls://…` for TLS. By default
    /// `nats://127.0.0.1:4222`.
    ///
    /// Give all servers of a cluster, so that the service starts while one of them is down. Where servers know a
    /// password instead of keys: `nats://user:password@host:port`. That of the first URL that has any is used for all; a
    /// user without a password is a token.
    #[arg(long, env = "TIDINGS_NATS_URL", hide_env_values = true, value_name = "URLS")]
    pub nats_url: Option<Secret>,

    /// A file that holds what --nats-url would, so that the password stays out of the list of processes.
    #[arg(long, env = "TIDINGS_NATS_URL_FILE", value_name = "FILE")]
    pub nats_url_file: Option<PathBuf>,

    /// The NKey seed of this service's own NATS user: `SU…`, as `tidings nats-users` makes it.
    ///
    /// The servers know its public key only, and what that user may do.
    #[arg(long, env = "TIDINGS_NATS_SEED", hide_env_values = true, value_name = "SEED")]
    pub nats_seed: Option<Secret>,

    /// A file that holds what --nats-seed would, so that the seed stays out of the list of processes.
    #[arg(long, env = "TIDINGS_NATS_SEED_FILE", value_name = "FILE")]
    pub nats_seed_file: Option<PathBuf>,

    /// A NATS credentials file (JWT and NKey seed), where users come from a NATS operator's accounts.
    #[arg(long, env = "TIDINGS_NATS_CREDENTIALS_FILE", value_name = "FILE")]
    pub nats_credentials_file: Option<PathBuf>,

    /// Certificates (PEM) of who signs those of the NATS servers; by default whom the system trusts. With it, TLS is
    /// required, whatever the URLs begin with.
    #[arg(long, env = "TIDINGS_NATS_CA_FILE", value_name = "FILE")]
    pub nats_ca_file: Option<PathBuf>,

    /// The certificate (PEM) of this service, where the NATS servers ask for one. TLS is required then.
    #[arg(long, env = "TIDINGS_NATS_CERTIFICATE_FILE", value_name = "FILE")]
    pub nats_certificate_file: Option<PathBuf>,

    /// The private key (PEM) of --nats-certificate-file.
    #[arg(long, env = "TIDINGS_NATS_CERTIFICATE_KEY_FILE", value_name = "FILE")]
    pub nats_certificate_key_file: Option<PathBuf>,
}

/// Settings of every service, whether it uses the bus or not, for `#[command(flatten)]`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Settings of every service")]
pub struct BaseConfig {
    /// The Postgres database: `postgres://user:password@host:port/database?sslmode=…`. By default
    /// `postgres://tidings@127.0.0.1:5432/tidings`.
    #[arg(
        long,
        env = "TIDINGS_POSTGRES_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub postgres_url: Option<Secret>,

    /// A file that holds what --postgres-url would, so that the password stays out of the list of processes.
    #[arg(long, env = "TIDINGS_POSTGRES_URL_FILE", value_name = "FILE")]
    pub postgres_url_file: Option<PathBuf>,

    /// The most connections to Postgres that this process opens.
    ///
    /// Most of what a service asks for is cached, so a few suffice; all processes together must fit below the
    /// server's `max_connections` (100 by default).
    #[arg(long, env = "TIDINGS_POSTGRES_CONNECTIONS_MAX", default_value_t = 8, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub postgres_connections_max: u32,

    /// Where /healthz, /readyz and /metrics are served, over plain HTTP and without a login.
    ///
    /// The default takes a free port that only this machine reaches and says it in the log, so that several
    /// services run side by side; in a deployment give an address that the probes reach and the Internet
    /// does not, such as 0.0.0.0:9100.
    #[arg(
        long,
        env = "TIDINGS_ADMIN_LISTEN",
        default_value = "127.0.0.1:0",
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,

    /// How log lines look, on standard error: by default human on a terminal, else json.
    #[arg(long, env = "TIDINGS_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// What is logged: a level, or levels by target, as in `info,tidings_gateway=debug`.
    ///
    /// Libraries are quieter by default because they report what the services report better.
    #[arg(
        long,
        env = "TIDINGS_LOG",
        default_value = "info,async_nats=warn,sqlx=warn",
        value_name = "FILTER"
    )]
    pub log: String,

    /// The OpenTelemetry collector that gets the spans of traced messages, by OTLP over HTTP: `http://collector:4318`.
    ///
    /// /v1/traces is put behind an address without a path. Without this nothing is traced. Which messages are traced,
    /// the gateways choose: see their --trace-ratio.
    #[arg(long, env = "TIDINGS_OTLP_ENDPOINT", value_name = "URL", value_parser = otlp_endpoint)]
    pub otlp_endpoint: Option<url::Url>,

    /// How long a stop may take after SIGTERM, in seconds: work in hand is finished, clients are sent elsewhere.
    ///
    /// What is not done by then is dropped and done again by another process. Keep it below the time after
    /// which whoever stops the service kills it (Kubernetes: terminationGracePeriodSeconds, 30 by default).
    #[arg(long, env = "TIDINGS_DRAIN_TIMEOUT", default_value = "20", value_name = "SECONDS", value_parser = seconds)]
    pub drain_timeout: Duration,
}

impl NatsConfig {
    /// The NATS URLs, wherever they were given.
    pub fn url(&self) -> anyhow::Result<Secret> {
        let given = Secret::given("nats-url", self.nats_url.as_ref(), self.nats_url_file.as_deref())?;
        Ok(given.unwrap_or_else(|| Secret::new(NATS_URL_DEFAULT)))
    }

    /// The seed, wherever it was given, if it was.
    pub fn seed(&self) -> anyhow::Result<Option<Secret>> {
        Secret::given(
            "nats-seed",
            self.nats_seed.as_ref(),
            self.nats_seed_file.as_deref(),
        )
    }
}

impl BaseConfig {
    /// The Postgres URL, wherever it was given.
    pub fn postgres_url(&self) -> anyhow::Result<Secret> {
        let given = Secret::given(
            "postgres-url",
            self.postgres_url.as_ref(),
            self.postgres_url_file.as_deref(),
        )?;
        Ok(given.unwrap_or_else(|| Secret::new(POSTGRES_URL_DEFAULT)))
    }
}

/// Reads a setting in seconds, such as `20` or `0.5`, for `#[arg(value_parser = …)]`. At most a day.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "a number of seconds is expected, such as 20".to_owned())?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err("between 0 and 86400 seconds are expected".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A URL that spans can be posted to.
fn otlp_endpoint(text: &str) -> Result<url::Url, String> {
    let url = text.parse::<url::Url>().ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| "a URL is expected, such as http://collector:4318".to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        common: CommonConfig,
    }

    #[test]
    fn defaults_fit_one_machine() {
        let config = Command::parse_from(["service"]).common;
        assert_eq!(
            config.nats.url().expect("the default is valid").expose(),
            NATS_URL_DEFAULT
        );
        assert_eq!(
            config.base.postgres_url().expect("the default is valid").expose(),
            POSTGRES_URL_DEFAULT
        );
        assert!(config.base.admin_listen.ip().is_loopback());
        assert_eq!(config.base.drain_timeout, Duration::from_secs(20));
    }

    /// That every flag is `TIDINGS_` and its name, and says more than its name.
    pub(crate) fn check_settings(command: &clap::Command) {
        for argument in command
            .get_arguments()
            .filter(|argument| argument.get_id() != "help")
        {
            let flag = argument.get_long().expect("settings are flags");
            let variable = format!("TIDINGS_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(
                argument.get_env().and_then(|name| name.to_str()),
                Some(variable.as_str())
            );
            assert!(
                argument
                    .get_help()
                    .is_some_and(|help| help.to_string().len() > 40),
                "--{flag}"
            );
        }
    }

    #[test]
    fn every_setting_has_its_environment_variable_and_is_explained() {
        check_settings(&Command::command());
    }

    #[test]
    fn passwords_stay_out_of_debug_and_help() {
        let config = Command::parse_from([
            "service",
            "--nats-url=nats://gateway:hunter2@nats:4222",
            "--nats-seed=hunter2",
            "--postgres-url=postgres://tidings:hunter2@db/tidings",
        ]);
        assert!(!format!("{config:?}").contains("hunter2"));
        for secret in ["nats_url", "nats_seed", "postgres_url"] {
            let command = Command::command();
            let argument = command
                .get_arguments()
                .find(|argument| argument.get_id() == secret);
            assert!(argument.expect("the setting exists").is_hide_env_values_set());
        }
    }

    #[test]
    fn spans_go_to_a_url() {
        assert!(otlp_endpoint("http://[::1]:4318").is_ok());
        for wrong in ["", "collector:4318", "grpc://collector:4317", "http://"] {
            assert!(otlp_endpoint(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "-1", "NaN", "inf", "1e9", "20s"] {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
    }
}
