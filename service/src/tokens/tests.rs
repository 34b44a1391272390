//! Tokens signed with keys made on the spot, good ones and all kinds of bad ones.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, encode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;
use crate::jwks::KeySet;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const CLIENT: &str = "0190c5f2-7b1a-7c3e-9d4f-000000000001";
/// 2026-11-25T00:00:00Z.
const NOW_SECONDS: i64 = 1_795_564_800;
const NOW: Timestamp = Timestamp(NOW_SECONDS * 1000);

/// A key of the login service.
struct SigningKey {
    header: Header,
    private: EncodingKey,
    public: Jwk,
    /// The public key as bytes, as an attacker knows it.
    public_bytes: Vec<u8>,
}

impl SigningKey {
    fn es256(id: &str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("ring makes keys");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("the key is new");
        let public = pair.public_key().as_ref().to_vec();
        let private = EncodingKey::from_ec_der(document.as_ref());
        Self::new(
            Algorithm::ES256,
            id,
            private,
            &DecodingKey::from_ec_der(&public),
            public.clone(),
        )
    }

    fn eddsa(id: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("ring makes keys");
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("the key is new");
        let public = pair.public_key().as_ref().to_vec();
        let private = EncodingKey::from_ed_der(document.as_ref());
        Self::new(
            Algorithm::EdDSA,
            id,
            private,
            &DecodingKey::from_ed_der(&public),
            public.clone(),
        )
    }

    fn new(
        algorithm: Algorithm,
        id: &str,
        private: EncodingKey,
        public: &DecodingKey,
        public_bytes: Vec<u8>,
    ) -> Self {
        let mut jwk = Jwk::from_decoding_key(public, Some(algorithm)).expect("the key is a public one");
        jwk.common.key_id = Some(id.to_owned());
        let mut header = Header::new(algorithm);
        header.kid = Some(id.to_owned());
        Self {
            header,
            private,
            public: jwk,
            public_bytes,
        }
    }

    fn sign(&self, claims: &Value) -> String {
        encode(&self.header, claims, &self.private).expect("the key suits the algorithm")
    }
}

fn set(keys: &[&SigningKey]) -> String {
    json!({ "keys": keys.iter().map(|key| &key.public).collect::<Vec<_>>() }).to_string()
}

fn claims() -> Value {
    json!({ "sub": "alice", "client": CLIENT, "exp": NOW_SECONDS + 60 })
}

/// The usual claims with one replaced, or removed by null.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().expect("claims are an object");
    if value.is_null() {
        map.remove(name)
    } else {
        map.insert(name.to_owned(), value)
    };
    claims
}

fn sign_with_secret(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).expect("a secret signs")
}

fn config() -> TokenConfig {
    let jwt_leeway = Duration::from_secs(5);
    TokenConfig {
        jwt_secret: Some(Secret::new(SECRET)),
        jwt_leeway,
        ..TokenConfig::default()
    }
}

fn verifier() -> TokenVerifier {
    TokenVerifier::new(&config()).expect("the settings are valid")
}

/// A verifier with a JWKS only, in a file that the test can rewrite.
async fn verifier_with_file(path: &std::path::Path, keys: &[&SigningKey]) -> TokenVerifier {
    std::fs::write(path, set(keys)).expect("the folder is writable");
    let jwks = path.to_str().map(ToOwned::to_owned);
    let mut verifier = TokenVerifier::new(&TokenConfig {
        jwt_secret: None,
        jwks,
        ..config()
    })
    .expect("the settings are valid");
    let interval_min = Duration::from_millis(10);
    let jwks = Jwks::with_interval_min(Source::File(path.to_owned()), interval_min);
    jwks.refresh().await.expect("the set is valid");
    verifier.jwks = Some(Arc::new(jwks));
    verifier
}

async fn refusal(verifier: &TokenVerifier, token: &str) -> String {
    let error = verifier.verify(token, NOW).await.expect_err("the token is bad");
    let sentence = error.to_string();
    // A part of a token is of no use to whoever reads a log, but the signature and the claims are not ours to tell.
    for part in token.split('.').filter(|part| part.len() > 3) {
        assert!(
            !sentence.contains(part),
            "{sentence:?} contains a part of the token"
        );
    }
    match Error::from(error).code {
        ErrorCode::TokenExpired => "expired".to_owned(),
        ErrorCode::Unauthorized => sentence,
        code => panic!("{code}: {sentence}"),
    }
}

#[tokio::test]
async fn a_good_token_says_who_it_is() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let expected = Claims {
        user: "alice".parse().expect("a valid id"),
        client: CLIENT.parse().expect("a UUID"),
        expires_at: Timestamp((NOW_SECONDS + 60) * 1000),
    };
    assert_eq!(
        verifier().verify(&sign_with_secret(&claims()), NOW).await,
        Ok(expected.clone())
    );
    for key in [SigningKey::es256("a"), SigningKey::eddsa("b")] {
        let verifier = verifier_with_file(&folder.path().join("jwks.json"), &[&key]).await;
        assert_eq!(
            verifier.verify(&key.sign(&claims()), NOW).await,
            Ok(expected.clone())
        );
    }
}

#[tokio::test]
async fn every_claim_is_checked() {
    let uuid = "the token's claim `client` is missing or not a UUID";
    let user = "the token's claim `sub`: a user id is 1 to 128 printable ASCII characters";
    let expires = "the token's claim `exp` is missing or not a number of seconds";
    for (name, value, expected) in [
        ("exp", json!(NOW_SECONDS - 6), "expired"),
        ("exp", json!(NOW_SECONDS - 5), "expired"),
        ("exp", json!(0), "expired"),
        ("exp", json!(null), expires),
        ("exp", json!("2099-01-01"), expires),
        ("exp", json!(-1), expires),
        ("sub", json!(null), "the token's claim `sub` is missing"),
        ("sub", json!(7), "the token's claim `sub` is missing"),
        ("sub", json!(""), user),
        ("sub", json!("zoë"), user),
        ("sub", json!("x".repeat(129)), user),
        ("client", json!(null), uuid),
        ("client", json!("phone"), uuid),
        ("client", json!([CLIENT]), uuid),
        ("nbf", json!(NOW_SECONDS + 10), "the token is not valid yet"),
        (
            "nbf",
            json!("soon"),
            "the token's claim `nbf` is not a number of seconds",
        ),
    ] {
        let token = sign_with_secret(&claims_with(name, value.clone()));
        assert_eq!(refusal(&verifier(), &token).await, expected, "{name} {value}");
    }
    for (name, value) in [
        ("exp", json!(NOW_SECONDS - 4)),
        ("exp", json!(NOW_SECONDS as f64 + 0.5)),
        ("exp", json!(1e300)),
        ("nbf", json!(NOW_SECONDS + 4)),
        ("aud", json!("somebody else")),
        ("sub", json!("auth0|5f7c8ec7")),
    ] {
        let token = sign_with_secret(&claims_with(name, value.clone()));
        assert!(verifier().verify(&token, NOW).await.is_ok(), "{name} {value}");
    }
}

#[tokio::test]
async fn issuer_and_audience_are_checked_where_they_are_set() {
    let config = TokenConfig {
        jwt_issuer: Some("https://login.example".to_owned()),
        jwt_audience: Some("tidings".to_owned()),
        ..config()
    };
    let verifier = TokenVerifier::new(&config).expect("the settings are valid");
    let with = |issuer: Value, audience: Value| {
        let mut claims = claims_with("iss", issuer);
        claims["aud"] = audience;
        sign_with_secret(&claims)
    };
    let good = json!("https://login.example");
    for audience in [json!("tidings"), json!(["media", "tidings"])] {
        assert!(verifier.verify(&with(good.clone(), audience), NOW).await.is_ok());
    }
    let issuer = "the token's claim `iss` names another issuer";
    assert_eq!(
        refusal(&verifier, &with(json!("https://evil.example"), json!("tidings"))).await,
        issuer
    );
    let audience = "the token's claim `aud` does not name this service";
    assert_eq!(refusal(&verifier, &with(good, json!("media"))).await, audience);
    assert!(
        refusal(&verifier, &sign_with_secret(&claims()))
            .await
            .ends_with("is missing")
    );
}

#[tokio::test]
async fn garbage_is_refused_in_a_sentence() {
    let good = sign_with_secret(&claims());
    let (message, signature) = good.rsplit_once('.').expect("a token has three parts");
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.";
    let shape = "the token is not a JSON Web Token signed with HS256, ES256 or EdDSA";
    for (token, expected) in [
        (String::new(), "a token is missing"),
        ("x".to_owned(), shape),
        ("a.b.c".to_owned(), shape),
        ("..".to_owned(), shape),
        ("é.é.é".to_owned(), shape),
        (unsigned.to_owned(), shape),
        (good.repeat(100), "the token is too long"),
        (format!("{message}."), "the token's signature is wrong"),
        (
            format!("{message}.{}", signature.replace(['A', 'B', 'C', 'D', 'E'], "_")),
            "the token's signature is wrong",
        ),
        (format!("{message}.{signature}%"), "the token cannot be read"),
    ] {
        assert_eq!(refusal(&verifier(), &token).await, expected, "{token:?}");
    }
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let critical = encode(&header, &claims(), &key).expect("a secret signs");
    assert!(refusal(&verifier(), &critical).await.contains("crit"));
    let not_an_object = encode(&Header::default(), &json!([1, 2]), &key).expect("a secret signs");
    assert_eq!(
        refusal(&verifier(), &not_an_object).await,
        "the token's claims cannot be read"
    );
}

#[tokio::test]
async fn algorithms_are_not_confused() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    for key in [SigningKey::es256("a"), SigningKey::eddsa("a")] {
        let both = TokenVerifier {
            secret: verifier().secret,
            ..verifier_with_file(&folder.path().join("jwks.json"), &[&key]).await
        };
        // The classic: the public key as HMAC secret, in each form an attacker could think of.
        let jwk = serde_json::to_value(&key.public).expect("a key serializes");
        let coordinate = jwk["x"].as_str().expect("a key has x").as_bytes();
        let pem_like = serde_json::to_vec(&jwk).expect("a key serializes");
        for secret in [
            key.public_bytes.as_slice(),
            &key.public_bytes[1..],
            coordinate,
            &pem_like,
        ] {
            let mut header = key.header.clone();
            header.alg = Algorithm::HS256;
            let forged = encode(&header, &claims(), &EncodingKey::from_secret(secret)).expect("bytes sign");
            assert_eq!(refusal(&both, &forged).await, "the token's signature is wrong");
        }
        // A key of one type named in a token of the other.
        let other = if key.header.alg == Algorithm::ES256 {
            SigningKey::eddsa("a")
        } else {
            SigningKey::es256("a")
        };
        let unknown = "the token is signed with a key that is not known here";
        assert_eq!(refusal(&both, &other.sign(&claims())).await, unknown);
        // Another key under the same name.
        let impostor = if key.header.alg == Algorithm::ES256 {
            SigningKey::es256("a")
        } else {
            SigningKey::eddsa("a")
        };
        assert_eq!(
            refusal(&both, &impostor.sign(&claims())).await,
            "the token's signature is wrong"
        );
        // Each kind of token only where it is configured.
        let secret_only = "the token's algorithm is not accepted here: HS256 is expected";
        assert_eq!(refusal(&verifier(), &key.sign(&claims())).await, secret_only);
        let keys_only = TokenVerifier { secret: None, ..both };
        let expected = "tokens with the algorithm HS256 are not accepted here";
        assert_eq!(refusal(&keys_only, &sign_with_secret(&claims())).await, expected);
    }
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let longer = encode(&Header::new(Algorithm::HS512), &claims(), &key).expect("a secret signs");
    let expected = "the token's algorithm must be HS256, ES256 or EdDSA";
    assert_eq!(refusal(&verifier(), &longer).await, expected);
}

#[tokio::test]
async fn keys_come_and_go_without_a_restart() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let path = folder.path().join("jwks.json");
    let (old, new) = (SigningKey::es256("2025"), SigningKey::eddsa("2026"));
    let verifier = verifier_with_file(&path, &[&old]).await;
    let unknown = "the token is signed with a key that is not known here";
    assert_eq!(refusal(&verifier, &new.sign(&claims())).await, unknown);

    std::fs::write(&path, set(&[&old, &new])).expect("the folder is writable");
    assert!(
        verifier.verify(&new.sign(&claims()), NOW).await.is_ok(),
        "the new key is read when it is named"
    );
    assert!(verifier.verify(&old.sign(&claims()), NOW).await.is_ok());

    std::fs::write(&path, set(&[&new])).expect("the folder is writable");
    verifier
        .jwks
        .as_ref()
        .expect("there is a JWKS")
        .refresh()
        .await
        .expect("the set is valid");
    assert_eq!(refusal(&verifier, &old.sign(&claims())).await, unknown);

    // What cannot be read takes no key away, but a key that is not known then may exist.
    std::fs::write(&path, "half a fi").expect("the folder is writable");
    assert!(verifier.verify(&new.sign(&claims()), NOW).await.is_ok());
    assert_eq!(
        verifier.verify(&old.sign(&claims()), NOW).await,
        Err(TokenError::Unavailable)
    );
}

#[tokio::test]
async fn a_token_that_names_no_key_may_be_signed_with_any() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let (first, mut second) = (SigningKey::es256("1"), SigningKey::es256("2"));
    let verifier = verifier_with_file(&folder.path().join("jwks.json"), &[&first, &second]).await;
    second.header.kid = None;
    assert!(verifier.verify(&second.sign(&claims()), NOW).await.is_ok());
    let mut stranger = SigningKey::es256("3");
    stranger.header.kid = None;
    assert_eq!(
        refusal(&verifier, &stranger.sign(&claims())).await,
        "the token's signature is wrong"
    );
}

#[tokio::test]
async fn unknown_keys_do_not_flood_the_login_service() {
    install_crypto_provider();
    let key = SigningKey::es256("1");
    let fetches = Arc::new(AtomicUsize::new(0));
    let (counter, body) = (fetches.clone(), set(&[&key]));
    let answer = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        std::future::ready(body.clone())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let url = format!("http://{}/jwks", listener.local_addr().expect("it is bound"));
    let router = Router::new().route("/jwks", get(answer));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let source = Source::parse(&url).expect("the URL is valid");
    let jwks = Jwks::with_interval_min(source, Duration::from_millis(50));
    let verifier = TokenVerifier {
        secret: None,
        jwks: Some(Arc::new(jwks)),
        ..verifier()
    };
    assert!(verifier.verify(&key.sign(&claims()), NOW).await.is_ok());
    let stranger = SigningKey::es256("2");
    let token = stranger.sign(&claims());
    let attempts = (0..50).map(|_| verifier.verify(&token, NOW));
    let refused = futures::future::join_all(attempts).await;
    assert!(
        refused
            .iter()
            .all(|result| matches!(result, Err(TokenError::Refused(_))))
    );
    let fetches = fetches.load(Ordering::Relaxed);
    assert!(
        (2..=3).contains(&fetches),
        "one reading serves all who asked before it: {fetches}"
    );

    server.abort();
    let _ = server.await;
    assert_eq!(verifier.verify(&token, NOW).await, Err(TokenError::Unavailable));
    assert!(
        verifier.verify(&key.sign(&claims()), NOW).await.is_ok(),
        "the known keys stay"
    );
}

#[test]
fn a_set_is_taken_with_what_is_useful_in_it() {
    let (es256, eddsa) = (SigningKey::es256("1"), SigningKey::eddsa("2"));
    let mut keys: Vec<Value> = [&es256, &eddsa]
        .into_iter()
        .map(|key| serde_json::to_value(&key.public).expect("a key serializes"))
        .collect();
    let with = |base: &Value, name: &str, value: Value| {
        let mut key = base.clone();
        key[name] = value;
        key
    };
    let useless = [
        json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "1" }),
        json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "1", "alg": "HS256" }),
        json!({ "kty": "new", "kid": "1" }),
        json!("not a key"),
        with(&keys[0], "use", json!("enc")),
        with(&keys[0], "alg", json!("ES384")),
        with(&keys[0], "crv", json!("P-384")),
        with(&keys[1], "x", json!("AAAA")),
        with(&keys[1], "alg", json!("ES256")),
    ];
    let parse = |keys: &[Value]| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
    for key in &useless {
        assert!(parse(std::slice::from_ref(key)).is_err(), "{key}");
    }
    keys.extend(useless);
    let set = parse(&keys).expect("two keys are useful");
    assert_eq!(set.candidates(Algorithm::ES256, None).len(), 1);
    assert_eq!(set.candidates(Algorithm::EdDSA, None).len(), 1);
    assert_eq!(set.candidates(Algorithm::HS256, None).len(), 0);
    for text in ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":{}}"#] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn settings_that_let_nobody_in_or_everybody_are_refused() {
    for (config, expected) in [
        (
            TokenConfig::default(),
            "set --jwt-secret, --jwt-secret-file or --jwks",
        ),
        (
            TokenConfig {
                jwt_secret: Some(Secret::new("short")),
                ..TokenConfig::default()
            },
            "at least 32 bytes",
        ),
        (
            TokenConfig {
                jwks: Some("https://".to_owned()),
                ..TokenConfig::default()
            },
            "--jwks: the URL",
        ),
    ] {
        let error = TokenVerifier::new(&config)
            .expect_err("the settings are wrong")
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}
