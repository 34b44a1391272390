//! The life of a token on a connection, and keys that come and go.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tidings_client::connection::{Connection, RequestFailed};
use tidings_protocol::{CloseCode, Codec, Error, ErrorCode, Hello, RenewToken, ServerFrame, Welcome};
use tidings_tests::{Device, Identity, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_in_time_or_the_connection_ends() {
    let system = System::shared().await;
    let secret = system.secret();
    let identity = Identity::fresh("alice");
    let mut alice =
        Device::with_token(system, &identity, &identity.token_for(&secret, 62), Codec::Json).await;
    let expiring = |heard: &ServerFrame| match heard {
        ServerFrame::TokenExpiring(expiring) => Some(expiring.expires_at),
        _ => None,
    };
    let expires_at = alice.expect("tokenExpiring", expiring).await;
    assert_eq!(expires_at.0 % 1000, 0, "exp counts seconds");

    for (token, code) in [
        (Identity::fresh("mallory").token(&secret), ErrorCode::Unauthorized),
        (
            Identity::new(&identity.user_id).token(&secret),
            ErrorCode::Unauthorized,
        ),
        (identity.token_for(&secret, -60), ErrorCode::TokenExpired),
    ] {
        let id = alice.id();
        let error = alice
            .request(RenewToken { id, token })
            .await
            .expect_err("refused");
        assert_eq!((error.code, error.field.as_deref()), (code, Some("token")));
    }
    // One that lives for seconds only: it is announced at once, and then it is over.
    let id = alice.id();
    let reply = alice
        .request(RenewToken {
            id,
            token: identity.token_for(&secret, 3),
        })
        .await
        .expect("renewed");
    let expires_at = reply.token_expires_at.expect("when it expires");
    assert_eq!(alice.expect("tokenExpiring", expiring).await, expires_at);
    let (closed, heard) = alice.until_closed().await;
    assert_eq!(closed.close_code(), Some(CloseCode::Unauthorized));
    assert!(
        matches!(heard.last(), Some(ServerFrame::Closing(closing))
            if closing.code == ErrorCode::TokenExpired && closing.reconnect),
        "{heard:?}"
    );
}

/// A key of a login service.
struct Key {
    id: &'static str,
    private: Vec<u8>,
    public: String,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let random = ring::rand::SystemRandom::new();
        let private = Ed25519KeyPair::generate_pkcs8(&random).expect("the system has randomness");
        let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).expect("it was just made");
        Self {
            id,
            private: private.as_ref().to_vec(),
            public: BASE64.encode(pair.public_key()),
        }
    }

    fn jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.id, "x": self.public })
    }

    fn token(&self, identity: &Identity) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id.to_owned());
        let claims = json!({ "sub": identity.user_id, "client": identity.client_id, "exp": i64::MAX >> 12 });
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&self.private))
            .expect("Ed25519 signs")
    }
}

async fn hello(ws: &str, token: String) -> Result<Welcome, Error> {
    let mut connection = Connection::connect(ws, Codec::Json, None)
        .await
        .expect("the gateway accepts sockets");
    match connection
        .hello(Hello {
            id: 1,
            token: Some(token),
            name: None,
            replace: None,
        })
        .await
    {
        Ok(welcome) => Ok(welcome),
        Err(RequestFailed::Refused(error)) => Err(error),
        Err(RequestFailed::Closed(closed)) => panic!("closed instead of an answer: {closed}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_and_go_while_the_gateway_runs() {
    let system = System::shared().await;
    let [old, new] = [Key::new("2026-10"), Key::new("2026-11")];
    let file = tempfile::NamedTempFile::new().expect("a file for the keys");
    let publish = |keys: &[&Key]| {
        let set = json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() });
        std::fs::write(file.path(), set.to_string()).expect("the file can be written");
    };
    publish(&[&old]);
    let path = file.path().to_str().expect("a path of ASCII").to_owned();
    let gateway = system
        .extra_gateway(&[("TIDINGS_JWKS", &path), ("TIDINGS_JWT_SECRET", "")])
        .await;

    let alice = Identity::fresh("alice");
    let welcome = hello(&gateway.ws, old.token(&alice))
        .await
        .expect("the old key is known");
    assert_eq!(
        (welcome.user_id, welcome.client_id),
        (alice.user_id.clone(), alice.client_id)
    );
    let error = hello(&gateway.ws, new.token(&alice))
        .await
        .expect_err("the new key is not known");
    assert_eq!(error.code, ErrorCode::Unauthorized);
    // Without a secret, HS256 is not accepted: not even with the public key as the secret.
    for secret in [system.secret(), old.public.clone()] {
        let error = hello(&gateway.ws, alice.token(&secret))
            .await
            .expect_err("no secret is configured");
        assert_eq!(error.code, ErrorCode::Unauthorized);
    }
    // The login service changes its key; nobody restarts anything.
    publish(&[&old, &new]);
    tidings_tests::eventually("the new key is known", async || {
        hello(&gateway.ws, new.token(&alice)).await
    })
    .await;
    hello(&gateway.ws, old.token(&alice))
        .await
        .expect("the old key is still good");
    publish(&[&new]);
    // A token with a third key makes the gateway look at the file, in which the old one is no more.
    let third = Key::new("2026-12");
    tidings_tests::eventually("the old key is no longer good", async || {
        hello(&gateway.ws, third.token(&alice))
            .await
            .expect_err("nobody knows the third key");
        match hello(&gateway.ws, old.token(&alice)).await {
            Err(error) if error.code == ErrorCode::Unauthorized => Ok(()),
            other => Err(other),
        }
    })
    .await;
}
