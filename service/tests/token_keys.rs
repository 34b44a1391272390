//! The keys of tokens come from a real HTTP server, which is not always there.

mod support;

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use support::System;
use tidings_protocol::Timestamp;
use tidings_service::{Context, TokenConfig, TokenError, TokenVerifier};
use tokio::net::TcpListener;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
/// The key of RFC 7517, appendix A.1.
const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","use":"sig",
    "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;
/// `{"alg":"ES256","kid":"1"}`, to be followed by a signature that this key did not make.
const FORGED: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ.e30.";

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_not_ready_before_it_has_the_keys() {
    let system = System::start().await;
    let context = Context::attach("gateway", &system.nats.url(), system.postgres.url()).await;
    let context = context.expect("the system is set up");
    assert!(context.is_ready());

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let jwks_refresh_interval = Duration::from_mins(1);
    let jwks = Some(format!("http://{address}/"));
    let config = TokenConfig {
        jwks,
        jwks_refresh_interval,
        ..TokenConfig::default()
    };
    let verifier = TokenVerifier::start(&config, &context)
        .await
        .expect("a URL may be away");
    assert!(!context.is_ready(), "nobody could come in");
    let forged = format!("{FORGED}{}", "A".repeat(86));
    assert_eq!(
        verifier.verify(&forged, Timestamp(0)).await,
        Err(TokenError::Unavailable)
    );

    let listener = TcpListener::bind(address).await.expect("the port is still free");
    let router = Router::new().route("/", get(|| async { JWKS }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let ready = async {
        while !context.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, ready)
        .await
        .expect("the keys are asked for again");
    let refused = TokenError::Refused("the token's signature is wrong".to_owned());
    assert_eq!(verifier.verify(&forged, Timestamp(0)).await, Err(refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_a_wrong_setting() {
    let system = System::start().await;
    let context = Context::attach("gateway", &system.nats.url(), system.postgres.url()).await;
    let config = TokenConfig {
        jwks: Some("/nowhere".to_owned()),
        ..TokenConfig::default()
    };
    let started = TokenVerifier::start(&config, &context.expect("the system is set up")).await;
    let error = format!("{:#}", started.expect_err("there is no such file"));
    assert!(error.contains("--jwks: cannot read /nowhere"), "{error}");
}
