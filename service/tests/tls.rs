//! TLS to NATS and to Postgres, with an authority of one's own and with certificates of clients.

use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Parser;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tidings_metadata::Metadata;
use tidings_nats::NatsUser;
use tidings_service::{BaseConfig, NatsConfig, NatsConnection, NatsSettings, Secret, start};
use tidings_stack::{
    Finder, NatsOptions, NatsPorts, NatsSecrets, NatsServer, Postgres, PostgresOptions, free_ports,
    let_postgres_through,
};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tells this test program that it is a service.
const IS_A_SERVICE: &str = "TEST_TLS_SERVICE";
/// Of Postgres; to be found in no log.
const PASSWORD: &str = "hunter2hunter2";

/// An authority, a certificate of it for 127.0.0.1, and one for a client named `tidings`.
struct Certificates(PathBuf);

impl Certificates {
    fn make(dir: &Path) -> Self {
        std::fs::create_dir(dir).expect("the folder is writable");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("a certificate");
        std::fs::write(dir.join("ca.crt"), ca.pem()).expect("the folder is writable");
        let issuer = Issuer::new(params, key);
        for (name, host) in [("server", "127.0.0.1"), ("client", "tidings")] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
            // A name like the authority's would make it one that signed itself.
            params.distinguished_name.push(DnType::CommonName, host);
            let certificate = params.signed_by(&key, &issuer).expect("a certificate");
            for (ending, text) in [("crt", certificate.pem()), ("key", key.serialize_pem())] {
                std::fs::write(dir.join(format!("{name}.{ending}")), text).expect("the folder is writable");
            }
        }
        Self(dir.to_owned())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name)
            .to_str()
            .expect("the folder's name is text")
            .to_owned()
    }
}

async fn nats(dir: &Path, certificates: &Certificates) -> NatsServer {
    let options = NatsOptions {
        dir: dir.to_owned(),
        logs: dir.to_owned(),
        ports: NatsPorts::free(1).expect("free ports"),
        secrets: NatsSecrets::random(),
        users: None,
    };
    let program = tokio::task::spawn_blocking(|| Finder::from_env(&|line| eprintln!("{line}"))?.nats());
    let program = program.await.expect("no panic").expect("nats-server is found");
    let mut server = NatsServer::prepare(&program, &options)
        .expect("it is prepared")
        .remove(0);
    let config = dir.join("nats-1/nats-server.conf");
    let mut text = std::fs::read_to_string(&config).expect("it was written");
    // As the guide has it.
    let [certificate, key, ca] = ["server.crt", "server.key", "ca.crt"].map(|name| certificates.path(name));
    write!(
        text,
        "\ntls {{\n  cert_file: \"{certificate}\"\n  key_file: \"{key}\"\n  ca_file: \"{ca}\"\n  verify: true\n}}\n"
    )
    .expect("a string takes everything");
    std::fs::write(config, text).expect("it is writable");
    server.start().await.expect("it takes the certificates");
    server
}

#[tokio::test]
async fn nats_is_believed_by_its_certificate_and_asks_for_ours() {
    start::install_crypto_provider();
    let dir = TempDir::new().expect("a folder for the test");
    let certificates = Certificates::make(&dir.path().join("certificates"));
    let others = Certificates::make(&dir.path().join("others"));
    let server = nats(dir.path(), &certificates).await;
    let config = |ca: Option<&Certificates>, own: Option<&Certificates>| NatsConfig {
        nats_url: Some(Secret::new(server.url())),
        nats_ca_file: ca.map(|ca| ca.file("ca.crt")),
        nats_certificate_file: own.map(|own| own.file("client.crt")),
        nats_certificate_key_file: own.map(|own| own.file("client.key")),
        ..NatsConfig::default()
    };
    let connect = async |config: NatsConfig| {
        let settings = NatsSettings::new(&config, NatsUser::Operator).expect("the files are there");
        NatsConnection::connect(&settings, "test").await
    };
    let connection = connect(config(Some(&certificates), Some(&certificates))).await;
    let connection = connection.expect("both believe each other");
    connection.client().flush().await.expect("it is up");
    for (config, setting) in [
        (config(None, Some(&certificates)), "--nats-ca-file is not given"),
        (
            config(Some(&others), Some(&certificates)),
            "--nats-ca-file is not of the authority that signed the server's certificate",
        ),
        (
            config(Some(&certificates), None),
            "--nats-certificate-file is not given, and the server wants a certificate",
        ),
        (
            config(Some(&certificates), Some(&others)),
            "--nats-certificate-file is not what the server wants",
        ),
        (
            NatsConfig {
                nats_url: Some(Secret::new(server.url().replace("127.0.0.1", "localhost"))),
                ..config(Some(&certificates), Some(&certificates))
            },
            "--nats-url names another host than the server's certificate is for",
        ),
    ] {
        refused(connect(config).await, setting);
    }
    // A server without TLS is told nothing.
    let plain = NatsServer::start_temp().await.expect("nats-server starts");
    let config = NatsConfig {
        nats_url: Some(Secret::new(plain.url())),
        ..config(Some(&certificates), None)
    };
    refused(connect(config).await, "the server has no TLS");
    let tls = plain.url().replace("nats://", "tls://");
    // One of the list with TLS is all with TLS: servers tell each other's addresses without it.
    for urls in [tls, format!("tls://127.0.0.1:1,{}", plain.url())] {
        let settings = NatsSettings::parse(&urls).expect("the URLs are valid");
        let connection = NatsConnection::connect(&settings, "test").await;
        let error = connection.err().unwrap_or_else(|| panic!("connected to {urls}"));
        let error = format!("{error:#}");
        assert!(error.starts_with("cannot connect to NATS at "), "{error}");
    }
}

/// Not connected, and the error says what to look at.
#[track_caller]
fn refused(connection: anyhow::Result<NatsConnection>, setting: &str) {
    let error = connection
        .err()
        .unwrap_or_else(|| panic!("connected, though {setting}"));
    let error = format!("{error:#}");
    assert!(
        error.starts_with("cannot connect to NATS at ") && error.contains(setting),
        "{setting:?} is not in {error:?}"
    );
}

/// A Postgres that takes connections by TLS alone, of who has a certificate and the password.
async fn postgres(dir: &Path, certificates: &Certificates) -> Postgres {
    let_postgres_through(dir).expect("it may pass");
    let options = PostgresOptions {
        data: dir.join("postgres"),
        log: dir.join("postgres.log"),
        port: free_ports(1).expect("a free port")[0],
        password: PASSWORD.to_owned(),
        sync: false,
    };
    let data = options.data.clone();
    let prepared = tokio::task::spawn_blocking(move || {
        let finder = Finder::from_env(&|line| eprintln!("{line}"))?;
        Postgres::prepare(&finder.postgres(None)?, &options)
    });
    let mut postgres = prepared.await.expect("no panic").expect("it is prepared");
    let owner = std::fs::metadata(&data).expect("it was made");
    for name in ["server.crt", "server.key", "ca.crt"] {
        let copy = data.join(name);
        std::fs::copy(certificates.file(name), &copy).expect("the folder is writable");
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o600)).expect("it is ours");
        chown(&copy, Some(owner.uid()), Some(owner.gid())).expect("it is ours");
    }
    let config = data.join("postgresql.conf");
    let mut text = std::fs::read_to_string(&config).expect("it was made");
    text += "\nssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\nssl_ca_file = 'ca.crt'\n";
    std::fs::write(config, text).expect("it is writable");
    let access = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n";
    std::fs::write(data.join("pg_hba.conf"), access).expect("it is writable");
    postgres.start().await.expect("it takes the certificates");
    postgres
}

/// A service that waits for Postgres: this test program, run for [`a_service`] alone.
struct WaitingService {
    _child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl WaitingService {
    fn start(postgres_url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a test program has a path"))
            .args(["--exact", "a_service", "--nocapture"])
            .env(IS_A_SERVICE, "1")
            .env("TIDINGS_POSTGRES_URL", postgres_url)
            .env("TIDINGS_LOG_FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the test program starts");
        let log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        Self { _child: child, log }
    }

    /// The first line of its log that contains `text`.
    async fn logs(&mut self, text: &str) -> String {
        let find = async {
            while let Some(line) = self.log.next_line().await.expect("the log is UTF-8") {
                if line.contains(text) {
                    return line;
                }
            }
            panic!("it has ended without {text:?} in its log");
        };
        let line = tokio::time::timeout(PATIENCE, find).await;
        line.unwrap_or_else(|_| panic!("no {text:?} in its log"))
    }
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    base: BaseConfig,
}

#[test]
fn a_service() {
    if std::env::var_os(IS_A_SERVICE).is_some() {
        let settings = Settings::parse_from(["service"]);
        start::run_without_bus("test", &settings.base, |_| std::future::ready(Ok(())));
    }
}

#[tokio::test]
async fn postgres_is_believed_by_its_certificate_and_asks_for_ours() {
    start::install_crypto_provider();
    let dir = TempDir::new().expect("a folder for the test");
    let certificates = Certificates::make(&dir.path().join("certificates"));
    let others = Certificates::make(&dir.path().join("others"));
    let postgres = postgres(dir.path(), &certificates).await;
    let asked = async |options: String| {
        let url = format!("{}?{options}", postgres.url());
        let metadata = Metadata::connect(&url, 1).expect("the URL is valid");
        metadata.clock().await
    };
    let own = format!(
        "&sslcert={}&sslkey={}",
        certificates.path("client.crt"),
        certificates.path("client.key")
    );
    let root = |of: &Certificates| format!("&sslrootcert={}", of.path("ca.crt"));
    for mode in ["verify-full", "verify-ca"] {
        let answer = asked(format!("sslmode={mode}{}{own}", root(&certificates))).await;
        assert!(answer.is_ok(), "{mode}: {answer:?}");
        let answer = asked(format!("sslmode={mode}{}{own}", root(&others))).await;
        assert!(answer.is_err(), "{mode}: believed another authority");
        let answer = asked(format!("sslmode={mode}{own}")).await;
        assert!(answer.is_err(), "{mode}: believed an authority that nobody knows");
    }
    // A service says which setting it is.
    let url = |options: String| format!("{}?{options}", postgres.url());
    for (url, setting) in [
        (
            url(format!("sslmode=verify-full{}{own}", root(&others))),
            "sslrootcert of --postgres-url is not of the authority that signed the server's certificate",
        ),
        (
            url(format!("sslmode=verify-full{}{own}", root(&certificates))).replace("127.0.0.1", "localhost"),
            "--postgres-url names another host than the server's certificate is for",
        ),
        (
            url("sslmode=require".to_owned()),
            "connection requires a valid client certificate",
        ),
    ] {
        let mut waits = WaitingService::start(&url);
        let line = waits.logs("condition does not hold").await;
        assert!(line.contains(setting), "{setting:?} is not in {line:?}");
        assert!(!line.contains(PASSWORD), "{line:?}");
    }
    // TLS, whoever is at the other end.
    let answer = asked(format!("sslmode=require{own}")).await;
    assert!(answer.is_ok(), "{answer:?}");
    for options in ["sslmode=disable", "sslmode=require"] {
        assert!(
            asked(options.to_owned()).await.is_err(),
            "{options}: came without a certificate"
        );
    }
}
