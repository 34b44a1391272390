//! Who a token says its bearer is: JSON Web Tokens (RFC 7519) of somebody else's login service, checked.
//!
//! HS256 is checked with the configured secret and nothing else, ES256 and EdDSA with keys of the JWKS and nothing
//! else; other algorithms are refused. Nothing here prints a token or a part of one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::Value;
use tidings_protocol::{ClientId, Error, ErrorCode, Timestamp, UserId};
use tokio::time::Instant;

use crate::context::BaseContext;
use crate::jwks::{Jwks, Source};
use crate::secret::Secret;
use crate::start::install_crypto_provider;
use crate::token_config::TokenConfig;

/// Longer ones are refused unread: login services stay below 8 KiB, since HTTP servers refuse longer headers.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The end of the year 9999, in seconds: the last moment that RFC 3339 can write.
const EXPIRES_SECONDS_MAX: f64 = 253_402_300_799.0;
/// HS256 is as strong as its secret (RFC 7518 §3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Between tries to read the keys for the first time.
const FIRST_KEYS_RETRY: Duration = Duration::from_secs(2);

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The claim `sub`.
    pub user: UserId,
    /// The claim `client`.
    pub client: ClientId,
    /// The claim `exp`, exactly: the leeway is not added.
    pub expires_at: Timestamp,
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Another token is needed; the sentence says what is wrong with this one.
    #[error("{0}")]
    Refused(String),
    /// It was good before.
    #[error("the token has expired")]
    Expired,
    /// Nobody can say: its key is not known and the keys cannot be read.
    #[error("the token cannot be checked at the moment")]
    Unavailable,
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Refused(_) => ErrorCode::Unauthorized,
            TokenError::Expired => ErrorCode::TokenExpired,
            TokenError::Unavailable => ErrorCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct TokenVerifier {
    secret: Option<DecodingKey>,
    jwks: Option<Arc<Jwks>>,
    issuer: Option<String>,
    audience: Option<String>,
    leeway: Duration,
    refresh_interval: Duration,
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("jwks", &self.jwks)
            .finish_non_exhaustive()
    }
}

/// The claims that are looked at. Any type is taken, so that each mistake has its own sentence.
#[derive(Deserialize)]
struct RawClaims {
    exp: Option<Value>,
    nbf: Option<Value>,
    sub: Option<Value>,
    client: Option<Value>,
}

impl TokenVerifier {
    /// Checks the settings; no key is read yet. Without a secret and a JWKS nobody could connect, so that is an
    /// error.
    pub fn new(config: &TokenConfig) -> anyhow::Result<Self> {
        install_crypto_provider();
        let secret = Secret::given(
            "jwt-secret",
            config.jwt_secret.as_ref(),
            config.jwt_secret_file.as_deref(),
        )?;
        if secret
            .as_ref()
            .is_some_and(|secret| secret.expose().len() < SECRET_BYTES_MIN)
        {
            bail!("--jwt-secret: the secret must have at least {SECRET_BYTES_MIN} bytes");
        }
        if secret.is_none() && config.jwks.is_none() {
            bail!("set --jwt-secret, --jwt-secret-file or --jwks: without one no token can be checked");
        }
        let source = config.jwks.as_deref().map(Source::parse).transpose()?;
        Ok(Self {
            secret: secret.map(|secret| DecodingKey::from_secret(secret.expose().as_bytes())),
            jwks: source.map(|source| Arc::new(Jwks::new(source))),
            issuer: config.jwt_issuer.clone(),
            audience: config.jwt_audience.clone(),
            leeway: config.jwt_leeway,
            refresh_interval: config.jwks_refresh_interval,
        })
    }

    /// The same, with the keys read and kept fresh by a task of the service, which is not ready (condition
    /// `token-keys`) before they are there. Keys in a file that cannot be read are an error.
    pub async fn start(config: &TokenConfig, context: &BaseContext) -> anyhow::Result<Self> {
        let verifier = Self::new(config)?;
        let Some(jwks) = verifier.jwks.clone() else {
            return Ok(verifier);
        };
        let condition = context.require("token-keys");
        let first = jwks.refresh().await;
        condition.set(&first.as_ref().map_err(|error| format!("{error:#}")).copied());
        if jwks.is_file() {
            first.context("the keys of tokens")?;
        }
        let interval = verifier.refresh_interval;
        let ended = context.ended.clone();
        context.tasks.spawn(async move {
            let keep = async {
                let mut known = condition.is_held();
                loop {
                    tokio::time::sleep(if known { interval } else { FIRST_KEYS_RETRY }).await;
                    if jwks.refresh_after(Instant::now()).await {
                        known = true;
                        condition.holds();
                    }
                }
            };
            ended.run_until_cancelled(keep).await;
        });
        Ok(verifier)
    }

    /// What `token` says, if it is good at the time `now`. Takes some seconds at most where the token names a key
    /// that is not known yet.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let asked = Instant::now();
        let header = read_header(token)?;
        let claims = match header.alg {
            Algorithm::HS256 => self.verify_with_secret(token)?,
            Algorithm::ES256 | Algorithm::EdDSA => self.verify_with_jwks(token, &header, asked).await?,
            _ => return Err(refused("the token's algorithm must be HS256, ES256 or EdDSA")),
        };
        claims.check(now, self.leeway)
    }

    fn verify_with_secret(&self, token: &str) -> Result<RawClaims, TokenError> {
        let Some(secret) = &self.secret else {
            return Err(refused("tokens with the algorithm HS256 are not accepted here"));
        };
        self.decode(token, Algorithm::HS256, secret)
    }

    async fn verify_with_jwks(
        &self,
        token: &str,
        header: &Header,
        asked: Instant,
    ) -> Result<RawClaims, TokenError> {
        let Some(jwks) = &self.jwks else {
            return Err(refused(
                "the token's algorithm is not accepted here: HS256 is expected",
            ));
        };
        let id = header.kid.as_deref();
        let mut keys = jwks.keys();
        if keys.candidates(header.alg, id).is_empty() {
            let refreshed = jwks.refresh_after(asked).await;
            keys = jwks.keys();
            if !refreshed && keys.candidates(header.alg, id).is_empty() {
                return Err(TokenError::Unavailable);
            }
        }
        let mut result = Err(refused("the token is signed with a key that is not known here"));
        for key in keys.candidates(header.alg, id) {
            result = self.decode(token, header.alg, key);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Checks signature, issuer and audience; the times are checked by [`RawClaims::check`].
    fn decode(&self, token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<RawClaims, TokenError> {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = self.audience.is_some();
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        let data = jsonwebtoken::decode::<RawClaims>(token, key, &validation);
        data.map(|data| data.claims)
            .map_err(|error| sentence(error.kind()))
    }
}

/// Reads the header, which is not to be trusted yet.
fn read_header(token: &str) -> Result<Header, TokenError> {
    if token.is_empty() {
        return Err(refused("a token is missing"));
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(refused("the token is too long"));
    }
    let header = jsonwebtoken::decode_header(token)
        .map_err(|_| refused("the token is not a JSON Web Token signed with HS256, ES256 or EdDSA"))?;
    if header.crit.is_some() {
        return Err(refused("the token's header has `crit`, which is not supported"));
    }
    Ok(header)
}

impl RawClaims {
    fn check(self, now: Timestamp, leeway: Duration) -> Result<Claims, TokenError> {
        let expires_seconds = seconds(self.exp.as_ref())
            .ok_or_else(|| refused("the token's claim `exp` is missing or not a number of seconds"))?;
        let expires_at = Timestamp((expires_seconds * 1000.0) as i64);
        let leeway_ms = leeway.as_millis() as i64;
        if expires_at.0 + leeway_ms <= now.0 {
            return Err(TokenError::Expired);
        }
        if let Some(not_before) = &self.nbf {
            let not_before = seconds(Some(not_before))
                .ok_or_else(|| refused("the token's claim `nbf` is not a number of seconds"))?;
            if (not_before * 1000.0) as i64 - leeway_ms > now.0 {
                return Err(refused("the token is not valid yet"));
            }
        }
        let subject = text(self.sub.as_ref()).ok_or_else(|| refused("the token's claim `sub` is missing"))?;
        let user =
            UserId::new(subject).map_err(|error| refused(&format!("the token's claim `sub`: {error}")))?;
        let client = text(self.client.as_ref())
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| refused("the token's claim `client` is missing or not a UUID"))?;
        Ok(Claims {
            user,
            client,
            expires_at,
        })
    }
}

/// A `NumericDate`, which may have a fraction; the far future is the year 9999.
fn seconds(value: Option<&Value>) -> Option<f64> {
    let seconds = value?.as_f64()?;
    (seconds >= 0.0).then(|| seconds.min(EXPIRES_SECONDS_MAX))
}

fn text(value: Option<&Value>) -> Option<&str> {
    value?.as_str()
}

fn refused(sentence: &str) -> TokenError {
    TokenError::Refused(sentence.to_owned())
}

/// The library's own messages may quote the token.
fn sentence(kind: &ErrorKind) -> TokenError {
    refused(match kind {
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::InvalidIssuer => "the token's claim `iss` names another issuer",
        ErrorKind::InvalidAudience => "the token's claim `aud` does not name this service",
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => "the token's claim `iss` is missing",
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => "the token's claim `aud` is missing",
        ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_) => "the token's claims cannot be read",
        _ => "the token cannot be read",
    })
}

#[cfg(test)]
mod tests;
