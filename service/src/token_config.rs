//! The settings of services that accept tokens: gateway and media.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::seconds;
use crate::secret::Secret;

/// Which tokens are accepted, for `#[command(flatten)]`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Tokens")]
pub struct TokenConfig {
    /// The secret that tokens with the algorithm HS256 are signed with; at least 32 bytes.
    ///
    /// Whoever knows it can speak for everybody. It may stand beside --jwks, as while one changes from one to
    /// the other.
    #[arg(
        long,
        env = "TIDINGS_JWT_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub jwt_secret: Option<Secret>,

    /// A file that holds what --jwt-secret would, so that the secret stays out of the list of processes.
    #[arg(long, env = "TIDINGS_JWT_SECRET_FILE", value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,

    /// The public keys that tokens with the algorithms ES256 and EdDSA are signed with: a JWKS in a file or at
    /// an https:// or http:// URL.
    ///
    /// Keys may come and go while the service runs: the set is read again every --jwks-refresh-interval and when
    /// a token names a key (`kid`) that is not in it, a file at most once a second, a URL at most once in five.
    #[arg(long, env = "TIDINGS_JWKS", value_name = "FILE|URL")]
    pub jwks: Option<String>,

    /// How often the JWKS is read again, in seconds: how long a withdrawn key may still be accepted.
    #[arg(long, env = "TIDINGS_JWKS_REFRESH_INTERVAL", default_value = "300", value_name = "SECONDS",
          value_parser = seconds)]
    pub jwks_refresh_interval: Duration,

    /// The issuer (claim `iss`) that tokens must name. By default any, since the keys already say who signed.
    #[arg(long, env = "TIDINGS_JWT_ISSUER", value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,

    /// The audience (claim `aud`) that tokens must name, one of several maybe.
    ///
    /// By default any; set it where the login service signs tokens for other services with the same key, or
    /// those are accepted here too.
    #[arg(long, env = "TIDINGS_JWT_AUDIENCE", value_name = "AUDIENCE")]
    pub jwt_audience: Option<String>,

    /// How far the login service's clock may be off, in seconds: a token is accepted this long after its `exp`.
    #[arg(long, env = "TIDINGS_JWT_LEEWAY", default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    pub jwt_leeway: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::check_settings;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        tokens: TokenConfig,
    }

    #[test]
    fn every_setting_has_its_environment_variable_and_is_explained() {
        check_settings(&Command::command());
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let config = Command::parse_from(["service", "--jwt-secret=hunter2"]);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
