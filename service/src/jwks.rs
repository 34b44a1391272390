//! The public keys that tokens are signed with, from a JWKS (RFC 7517) in a file or at a URL, read again while the
//! service runs: every so often, and when a token names a key that is not there yet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::time::Instant;

/// A key set is a few kilobytes; more is not one.
const SET_BYTES_MAX: usize = 1 << 20;
/// More keys than a login service has at once, few enough to try each on a token that names none.
const SET_KEYS_MAX: usize = 64;
/// Below the 10 s that a client has for its hello.
const FETCH_TIMEOUT: Duration = Duration::from_secs(4);
/// Unknown key ids, which anybody can send, make this many fetches of a URL at most.
const URL_REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// The same for a file.
const FILE_REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Where a key set is.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(PathBuf),
    Url(reqwest::Client, reqwest::Url),
}

/// A key set that is kept fresh.
#[derive(Debug)]
pub(crate) struct Jwks {
    source: Source,
    interval_min: Duration,
    keys: RwLock<Arc<KeySet>>,
    last: tokio::sync::Mutex<Option<Refresh>>,
}

/// One reading of the source.
#[derive(Copy, Clone, Debug)]
struct Refresh {
    started: Instant,
    successful: bool,
}

/// The usable keys of one reading.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

/// A key and the one algorithm that it is good for, whatever a token's header says.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    public: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// `https://…` and `http://…` are URLs, everything else is a file.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        if !text.starts_with("https://") && !text.starts_with("http://") {
            return Ok(Self::File(text.into()));
        }
        let url = text.parse().context("--jwks: the URL cannot be read")?;
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::limited(3))
            .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("--jwks: cannot prepare HTTP")?;
        Ok(Self::Url(client, url))
    }

    fn interval_min(&self) -> Duration {
        match self {
            Self::File(_) => FILE_REFRESH_INTERVAL_MIN,
            Self::Url(..) => URL_REFRESH_INTERVAL_MIN,
        }
    }

    async fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(path) => {
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
            }
            Self::Url(client, url) => {
                let mut response = client.get(url.clone()).send().await?.error_for_status()?;
                let mut body = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    if body.len() + chunk.len() > SET_BYTES_MAX {
                        bail!("{url} answered more than {SET_BYTES_MAX} bytes");
                    }
                    body.extend_from_slice(&chunk);
                }
                Ok(body)
            }
        }
    }
}

impl Jwks {
    /// An empty set; [`Jwks::refresh`] fills it.
    pub(crate) fn new(source: Source) -> Self {
        let interval_min = source.interval_min();
        Self {
            source,
            interval_min,
            keys: RwLock::default(),
            last: tokio::sync::Mutex::default(),
        }
    }

    /// The same with another least time between two readings.
    #[cfg(test)]
    pub(crate) fn with_interval_min(source: Source, interval_min: Duration) -> Self {
        Self {
            interval_min,
            ..Self::new(source)
        }
    }

    /// Whether the keys are in a file of this machine, where a failure to read them is a wrong setting.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// The keys as they were read last.
    pub(crate) fn keys(&self) -> Arc<KeySet> {
        self.keys.read().clone()
    }

    /// Sees to a reading that began after `asked`, one at a time for all who ask, and no more often than the
    /// least interval, which the caller waits for. False where the source could not be read; the keys stay what
    /// they were then.
    pub(crate) async fn refresh_after(&self, asked: Instant) -> bool {
        let mut last = self.last.lock().await;
        if let Some(refresh) = *last {
            if refresh.started >= asked {
                return refresh.successful;
            }
            tokio::time::sleep_until(refresh.started + self.interval_min).await;
        }
        let started = Instant::now();
        let result = self.refresh().await;
        if let Err(error) = &result {
            tracing::warn!("cannot read the keys of tokens again: {error:#}; the known ones stay");
        }
        *last = Some(Refresh {
            started,
            successful: result.is_ok(),
        });
        result.is_ok()
    }

    /// Reads the source now.
    pub(crate) async fn refresh(&self) -> anyhow::Result<()> {
        let result = self.source.read().await.and_then(|text| KeySet::parse(&text));
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        metrics::counter!("tidings_jwks_refreshes_total", "outcome" => outcome).increment(1);
        let keys = result.context("--jwks")?;
        metrics::gauge!("tidings_jwks_keys").set(keys.keys.len() as f64);
        *self.keys.write() = Arc::new(keys);
        Ok(())
    }
}

impl KeySet {
    /// The keys for ES256 and EdDSA; others are left out, since a set may serve other uses too. A set without
    /// any is an error.
    pub(crate) fn parse(text: &[u8]) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        // The parser's own message might quote what is not ours to print.
        let set: Set = serde_json::from_slice(text).map_err(|_| {
            anyhow::anyhow!("this is not a JWKS: a JSON object with an array `keys` is expected")
        })?;
        let keys: Vec<Key> = set
            .keys
            .into_iter()
            .filter_map(Key::usable)
            .take(SET_KEYS_MAX)
            .collect();
        if keys.is_empty() {
            bail!("the JWKS has no key for signatures with ES256 (P-256) or EdDSA (Ed25519)");
        }
        Ok(Self { keys })
    }

    /// The keys that a token with this header may be signed with. A token that names no key may be signed with
    /// any key of its algorithm.
    pub(crate) fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<&DecodingKey> {
        let named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
        self.keys
            .iter()
            .filter(|key| key.algorithm == algorithm)
            .filter(named)
            .map(|key| &key.public)
            .collect()
    }
}

impl Key {
    fn usable(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk
            .common
            .public_key_use
            .as_ref()
            .is_some_and(|purpose| *purpose != PublicKeyUse::Signature)
        {
            return None;
        }
        // The key's type alone decides: a public key never becomes an HMAC secret.
        let (algorithm, coordinates) = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, vec![&key.x, &key.y])
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, vec![&key.x])
            }
            _ => return None,
        };
        // `jsonwebtoken` panics at an Ed25519 key that is too short: 32 bytes are 43 characters of base64url.
        if coordinates.iter().any(|coordinate| coordinate.len() != 43) {
            return None;
        }
        if jwk
            .common
            .key_algorithm
            .is_some_and(|name| name.to_string() != format!("{algorithm:?}"))
        {
            return None;
        }
        let public = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self {
            id: jwk.common.key_id,
            algorithm,
            public,
        })
    }
}
