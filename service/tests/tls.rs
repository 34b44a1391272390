//! TLS to NATS and to Postgres, with an authority of one's own and with certificates of clients.

use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tidings_metadata::Metadata;
use tidings_nats::NatsUser;
use tidings_service::{NatsConfig, NatsConnection, NatsSettings, Secret, start};
use tidings_stack::{
    Finder, NatsOptions, NatsPorts, NatsSecrets, NatsServer, Postgres, PostgresOptions, free_ports,
    let_postgres_through, new_secret,
};

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
            let params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
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
    for (config, what) in [
        (
            config(None, Some(&certificates)),
            "an authority that nobody knows",
        ),
        (config(Some(&others), Some(&certificates)), "another authority"),
        (config(Some(&certificates), None), "no certificate"),
        (
            config(Some(&certificates), Some(&others)),
            "a certificate of another authority",
        ),
    ] {
        let error = connect(config).await.err();
        assert!(error.is_some(), "connected with {what}");
    }
    // A server without TLS is told nothing.
    let plain = NatsServer::start_temp().await.expect("nats-server starts");
    let config = NatsConfig {
        nats_url: Some(Secret::new(plain.url())),
        ..config(Some(&certificates), None)
    };
    assert!(connect(config).await.is_err(), "connected without TLS");
    let tls = plain.url().replace("nats://", "tls://");
    let settings = NatsSettings::parse(&tls).expect("the URL is valid");
    assert!(
        NatsConnection::connect(&settings, "test").await.is_err(),
        "connected without TLS"
    );
}

/// A Postgres that takes connections by TLS alone, of who has a certificate and the password.
async fn postgres(dir: &Path, certificates: &Certificates) -> Postgres {
    let_postgres_through(dir).expect("it may pass");
    let options = PostgresOptions {
        data: dir.join("postgres"),
        log: dir.join("postgres.log"),
        port: free_ports(1).expect("a free port")[0],
        password: new_secret(),
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
