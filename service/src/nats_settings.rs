//! Where NATS is, how to log in there, and whom to believe.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidings_nats::NatsUser;

use crate::config::NatsConfig;
use crate::secret::Secret;
use crate::tls_failure::TlsFailure;

/// See the module.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    servers: Vec<Server>,
    login: Option<Login>,
    /// Where answers to requests come.
    inbox_prefix: &'static str,
    ca_file: Option<PathBuf>,
    /// A certificate and its key.
    certificate_files: Option<(PathBuf, PathBuf)>,
}

/// One server, without credentials, so that it may be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server(ServerAddr);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Login {
    Password { user: String, password: Secret },
    Token(Secret),
    Seed(Secret),
    Credentials(PathBuf),
}

impl NatsSettings {
    /// Reads the settings of a process that is this user, and looks whether the files are there. Errors never contain a
    /// password or seed.
    pub fn new(config: &NatsConfig, user: NatsUser) -> anyhow::Result<Self> {
        let mut settings = Self::parse(config.url()?.expose())?.of_user(user);
        if let Some(seed) = config.seed()? {
            settings = settings.with_seed(seed)?;
        }
        if let Some(path) = &config.nats_credentials_file {
            check_file("nats-credentials-file", path)?;
            settings = settings.with_login("--nats-credentials-file", Login::Credentials(path.clone()))?;
        }
        if let Some(path) = &config.nats_ca_file {
            check_certificates("nats-ca-file", path)?;
            settings.ca_file = Some(path.clone());
        }
        let files = (&config.nats_certificate_file, &config.nats_certificate_key_file);
        settings.certificate_files = match files {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                check_certificates("nats-certificate-file", certificate)?;
                check_key("nats-certificate-key-file", key)?;
                Some((certificate.clone(), key.clone()))
            }
            _ => bail!("--nats-certificate-file and --nats-certificate-key-file belong together: give both"),
        };
        Ok(settings)
    }

    /// With answers where this user may hear them.
    #[must_use]
    pub fn of_user(mut self, user: NatsUser) -> Self {
        self.inbox_prefix = user.inbox_prefix();
        self
    }

    /// With an NKey seed to log in by.
    pub fn with_seed(self, seed: Secret) -> anyhow::Result<Self> {
        let kind = nkeys::KeyPair::from_seed(seed.expose()).map(|key| key.key_pair_type());
        if !matches!(kind, Ok(nkeys::KeyPairType::User)) {
            bail!("--nats-seed: it is not the seed of a user's NKey, which begins with SU");
        }
        self.with_login("--nats-seed", Login::Seed(seed))
    }

    fn with_login(mut self, flag: &str, login: Login) -> anyhow::Result<Self> {
        match self.login {
            None => self.login = Some(login),
            Some(Login::Seed(_)) => bail!("--nats-seed and {flag} are both set: give one of them"),
            Some(_) => bail!("--nats-url has a user, and {flag} is set: give one of them"),
        }
        Ok(self)
    }

    /// Settings from URLs separated by commas.
    pub fn parse(urls: &str) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        let mut login = None;
        for (number, text) in urls.split(',').enumerate() {
            let text = text.trim();
            let address: ServerAddr = text
                .parse()
                .with_context(|| format!("--nats-url: URL number {} cannot be read", number + 1))?;
            let mut url = address.into_inner();
            // Others would be spoken in clear, whatever else is set: WebSocket is not built in.
            if !matches!(url.scheme(), "nats" | "tls") {
                bail!(
                    "--nats-url: URL number {} begins with {}://, where nats:// or tls:// is expected",
                    number + 1,
                    url.scheme()
                );
            }
            if url.host_str().is_none_or(str::is_empty) {
                bail!("--nats-url: URL number {} has no host", number + 1);
            }
            login = login.or_else(|| Login::of(&url));
            // Only `cannot-be-a-base` URLs refuse this, and those have no host.
            url.set_username("")
                .and_then(|()| url.set_password(None))
                .expect("a URL with a host has a user");
            servers.push(Server(ServerAddr::from_url(url)?));
        }
        Ok(Self {
            servers,
            login,
            inbox_prefix: NatsUser::Operator.inbox_prefix(),
            ca_file: None,
            certificate_files: None,
        })
    }

    /// Of every server, those included that servers tell of, whose addresses have no `tls://`.
    fn wants_tls(&self) -> bool {
        let mut servers = self.servers.iter();
        self.ca_file.is_some()
            || self.certificate_files.is_some()
            || servers.any(|server| server.0.tls_required())
    }

    /// Login, TLS, and where answers come.
    pub(crate) async fn options(&self) -> anyhow::Result<ConnectOptions> {
        let options = match &self.login {
            Some(Login::Password { user, password }) => {
                ConnectOptions::with_user_and_password(user.clone(), password.expose().to_owned())
            }
            Some(Login::Token(token)) => ConnectOptions::with_token(token.expose().to_owned()),
            Some(Login::Seed(seed)) => ConnectOptions::with_nkey(seed.expose().to_owned()),
            Some(Login::Credentials(path)) => ConnectOptions::with_credentials_file(path)
                .await
                .with_context(|| format!("--nats-credentials-file: cannot read {}", path.display()))?,
            None => ConnectOptions::new(),
        };
        let options = match &self.ca_file {
            Some(path) => options.add_root_certificates(path.clone()),
            None => options,
        };
        let options = match self.certificate_files.clone() {
            Some((certificate, key)) => options.add_client_certificate(certificate, key),
            None => options,
        };
        Ok(options
            // Else a server that lost its TLS, or somebody in between, would be told everything all the same.
            .require_tls(self.wants_tls())
            .custom_inbox_prefix(self.inbox_prefix))
    }

    /// The servers, without credentials.
    pub(crate) fn addresses(&self) -> Vec<ServerAddr> {
        self.servers.iter().map(|server| server.0.clone()).collect()
    }

    /// Which setting to look at, where the error is about one.
    pub(crate) fn explain(&self, error: ConnectError) -> anyhow::Error {
        let advice = match TlsFailure::of(&error) {
            Some(TlsFailure::Authority) if self.ca_file.is_none() => Some(
                "--nats-ca-file is not given, and the system does not trust who signed the server's certificate",
            ),
            Some(TlsFailure::Authority) => {
                Some("--nats-ca-file is not of the authority that signed the server's certificate")
            }
            Some(TlsFailure::Host) => {
                Some("--nats-url names another host than the server's certificate is for")
            }
            Some(TlsFailure::Ours) if self.certificate_files.is_none() => {
                Some("--nats-certificate-file is not given, and the server wants a certificate")
            }
            Some(TlsFailure::Ours) => Some("--nats-certificate-file is not what the server wants"),
            Some(TlsFailure::None) => Some(
                "the server has no TLS, which tls:// in --nats-url, --nats-ca-file and --nats-certificate-file ask for",
            ),
            None => match (error.kind(), &self.login) {
                (ConnectErrorKind::AuthorizationViolation, Some(Login::Seed(_))) => {
                    Some("--nats-seed is of no user that the server knows")
                }
                (ConnectErrorKind::AuthorizationViolation, None) => {
                    Some("--nats-seed is not given, and the server wants a login")
                }
                _ => None,
            },
        };
        let error = anyhow::Error::new(error);
        let error = match advice {
            Some(advice) => error.context(advice),
            None => error,
        };
        error.context(format!("cannot connect to NATS at {}", self.describe()))
    }

    /// The servers, without credentials.
    pub fn describe(&self) -> String {
        let addresses: Vec<String> = self
            .servers
            .iter()
            .map(|server| server.0.clone().into_inner().to_string())
            .collect();
        addresses.join(",")
    }
}

impl Login {
    fn of(url: &url::Url) -> Option<Self> {
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        match (url.username(), url.password()) {
            ("", _) => None,
            (user, Some(password)) => Some(Self::Password {
                user: decode(user),
                password: Secret::new(decode(password)),
            }),
            (token, None) => Some(Self::Token(Secret::new(decode(token)))),
        }
    }
}

fn check_file(flag: &str, path: &Path) -> anyhow::Result<()> {
    std::fs::File::open(path).with_context(|| format!("--{flag}: cannot read {}", path.display()))?;
    Ok(())
}

/// Whoever trusts nobody, since there is nothing in a file, would say so at each connect only.
fn check_certificates(flag: &str, path: &Path) -> anyhow::Result<()> {
    check_file(flag, path)?;
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(std::iter::Iterator::collect);
    match certificates.as_deref() {
        Ok([_, ..]) => Ok(()),
        Ok([]) => bail!("--{flag}: there is no certificate (PEM) in {}", path.display()),
        Err(error) => bail!("--{flag}: {} is no certificate (PEM): {error}", path.display()),
    }
}

fn check_key(flag: &str, path: &Path) -> anyhow::Result<()> {
    check_file(flag, path)?;
    // An error could say what stands in the file.
    PrivateKeyDer::from_pem_file(path)
        .map_err(|_| anyhow!("--{flag}: there is no private key (PEM) in {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(urls: &str) -> (String, Option<Login>) {
        let settings = NatsSettings::parse(urls).expect("the URLs are valid");
        (settings.describe(), settings.login)
    }

    #[test]
    fn urls_and_logins_are_read() {
        assert_eq!(parse("nats://127.0.0.1:4222").1, None);
        let (servers, login) = parse("nats://us%40er:p%2Fw@a:1, tls://b:2,c");
        assert_eq!(servers, "nats://a:1,tls://b:2,nats://c");
        let password = Secret::new("p/w");
        assert_eq!(
            login,
            Some(Login::Password {
                user: "us@er".to_owned(),
                password
            })
        );
        assert_eq!(
            parse("nats://s3cret@a").1,
            Some(Login::Token(Secret::new("s3cret")))
        );
    }

    #[test]
    fn what_cannot_be_read_is_said_without_the_password() {
        for wrong in [
            "",
            "a,,b",
            "http://user:hunter2@a",
            "ws://user:hunter2@a",
            "wss://user:hunter2@a",
            "nats://user:hunter2@:4222",
            "nats://user:hunter2@a:99999",
        ] {
            let error = format!("{:#}", NatsSettings::parse(wrong).expect_err(wrong));
            assert!(
                error.contains("--nats-url") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn one_server_with_tls_is_all_with_tls() {
        for (urls, wanted) in [
            ("nats://a,b", false),
            ("tls://a", true),
            ("nats://a,tls://b", true),
        ] {
            let settings = NatsSettings::parse(urls).expect("the URLs are valid");
            assert_eq!(settings.wants_tls(), wanted, "{urls}");
        }
    }

    #[test]
    fn one_way_to_log_in_is_enough() {
        let seed = || Secret::new(nkeys::KeyPair::new_user().seed().expect("a new key has a seed"));
        let parse = |url: &str| NatsSettings::parse(url).expect("the URL is valid");
        assert!(matches!(
            parse("nats://a").with_seed(seed()).expect("a seed").login,
            Some(Login::Seed(_))
        ));
        let both = parse("nats://u:hunter2@a").with_seed(seed());
        assert_eq!(
            both.expect_err("two logins").to_string(),
            "--nats-url has a user, and --nats-seed is set: give one of them"
        );
        let account = nkeys::KeyPair::new_account()
            .seed()
            .expect("a new key has a seed");
        for wrong in ["hunter2", &account] {
            let error = parse("nats://a").with_seed(Secret::new(wrong));
            let error = format!("{:#}", error.expect_err("no user's seed"));
            assert!(
                error.contains("begins with SU") && !error.contains(wrong),
                "{error}"
            );
        }
    }

    #[test]
    fn files_are_looked_for_and_a_certificate_has_a_key() {
        let new = |config: NatsConfig| {
            let error = NatsSettings::new(&config, NatsUser::Gateway).expect_err("it is wrong");
            format!("{error:#}")
        };
        let nowhere = Some(PathBuf::from("/nowhere"));
        let error = new(NatsConfig {
            nats_ca_file: nowhere.clone(),
            ..NatsConfig::default()
        });
        assert!(
            error.starts_with("--nats-ca-file: cannot read /nowhere"),
            "{error}"
        );
        let empty = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
        let error = new(NatsConfig {
            nats_ca_file: Some(empty.path().to_owned()),
            ..NatsConfig::default()
        });
        assert!(
            error.starts_with("--nats-ca-file: there is no certificate"),
            "{error}"
        );
        let error = new(NatsConfig {
            nats_certificate_file: nowhere,
            ..NatsConfig::default()
        });
        assert!(error.ends_with("belong together: give both"), "{error}");
    }
}
