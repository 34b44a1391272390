//! Where tokens come from.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

/// Why a token is asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenReason {
    /// For the first connection.
    First,
    /// The one at hand expires soon.
    Expiring,
    /// The one at hand was refused.
    Refused,
}

type Provider = dyn Fn(TokenReason) -> BoxFuture<'static, Result<String, String>> + Send + Sync;

/// A source of tokens. Its errors are tried again, with the connection's backoff.
#[derive(Clone)]
pub struct Tokens(Arc<Provider>);

impl Tokens {
    /// Always the same token; when it is refused the client stops.
    pub fn fixed(token: impl Into<String>) -> Self {
        let token = token.into();
        Self::new(move |_| std::future::ready(Ok(token.clone())))
    }

    /// Asks `provider`, which may take its time. A provider that answers a refused token by the same token
    /// has no other: the client stops.
    pub fn new<F, T>(provider: F) -> Self
    where
        F: Fn(TokenReason) -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, String>> + Send + 'static,
    {
        Self(Arc::new(move |reason| Box::pin(provider(reason))))
    }

    pub(crate) fn get(&self, reason: TokenReason) -> BoxFuture<'static, Result<String, String>> {
        (self.0)(reason)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}
