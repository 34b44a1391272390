//! Where a client stands between its start and its end, and what it waits for there.

use std::future::pending;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidings_protocol::{Closing, Codec, Timestamp};
use tokio::time::{Instant, timeout};

use crate::connection::{Closed, Connection, Incoming};
use crate::link::{Ending, Stopped};
use crate::tokens::{TokenReason, Tokens};

/// For name resolution, TCP, TLS and the upgrade.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the token provider, which may ask a person's login service.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
/// From hello to welcome; a new client waits for its registration.
pub(super) const GREETING_TIMEOUT: Duration = Duration::from_secs(15);

/// Where a client stands.
pub(super) enum Phase {
    /// Without a connection, until then; None: until the application chooses which client to replace.
    Resting { until: Option<Instant> },
    /// On the way to one.
    Connecting(BoxFuture<'static, Result<Fresh, Failure>>),
    /// Hello is said.
    Greeting {
        connection: Box<Connection>,
        hello_id: u64,
        deadline: Instant,
        closing: Option<Closing>,
    },
    /// There are too many clients; the application is asked.
    Choosing { connection: Box<Connection> },
    /// Welcome.
    Online(Box<Online>),
}

/// A connection that is welcome.
pub(super) struct Online {
    pub(super) connection: Connection,
    pub(super) since: Instant,
    /// What the server's clock said then.
    pub(super) server_time: Timestamp,
    pub(super) ping: Duration,
    /// When a ping went out that nothing has come after.
    pub(super) pinged: Option<Instant>,
    /// Silence before this is our own doing: we did not listen.
    pub(super) excused: Instant,
    pub(super) closing: Option<Closing>,
    /// A token is being asked for.
    pub(super) renewing: Option<BoxFuture<'static, Result<String, String>>>,
    /// The renewal under way, and its token.
    pub(super) renewal: Option<(u64, String)>,
}

/// A connection on which nothing was said, and the token it was made with.
pub(super) struct Fresh {
    pub(super) connection: Connection,
    pub(super) token: String,
}

/// No connection.
pub(super) enum Failure {
    Ending(Ending),
    /// The provider has no other token than the refused one.
    NoOtherToken,
}

/// What a phase waited for.
pub(super) enum Happened {
    Connected(Result<Box<Fresh>, Failure>),
    Incoming(Result<Incoming, Closed>),
    Token(Result<String, String>),
}

impl Phase {
    /// Connects to `url`, with the token at hand or, for the reason given, with one from the provider.
    pub(super) fn connecting(
        url: String,
        codec: Codec,
        tokens: Tokens,
        token: Result<String, TokenReason>,
        refused: Option<String>,
    ) -> Self {
        let attempt = async move {
            let token = match token {
                Ok(token) => token,
                Err(reason) => {
                    let got = timeout(TOKEN_TIMEOUT, tokens.get(reason)).await;
                    let got = got.unwrap_or_else(|_| Err("the provider does not answer".to_owned()));
                    got.map_err(|reason| Failure::Ending(Ending::NoToken(reason)))?
                }
            };
            if refused.as_ref() == Some(&token) {
                return Err(Failure::NoOtherToken);
            }
            let connected = timeout(CONNECT_TIMEOUT, Connection::connect(&url, codec, Some(&token))).await;
            match connected {
                Ok(Ok(connection)) => Ok(Fresh { connection, token }),
                Ok(Err(error)) => Err(Failure::Ending(error.into())),
                Err(_) => Err(Failure::Ending(Ending::TimedOut(CONNECT_TIMEOUT))),
            }
        };
        Self::Connecting(attempt.boxed())
    }

    /// What happens next. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Happened {
        match self {
            Self::Resting { .. } => pending().await,
            Self::Connecting(attempt) => Happened::Connected(attempt.await.map(Box::new)),
            Self::Greeting { connection, .. } | Self::Choosing { connection } => {
                Happened::Incoming(connection.next().await)
            }
            Self::Online(online) => {
                let renewing = async {
                    match &mut online.renewing {
                        Some(renewing) => renewing.await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    incoming = online.connection.next() => Happened::Incoming(incoming),
                    token = renewing => Happened::Token(token),
                }
            }
        }
    }

    /// When the clock alone makes something happen.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Resting { until } => *until,
            Self::Connecting(_) | Self::Choosing { .. } => None,
            Self::Greeting { deadline, .. } => Some(*deadline),
            Self::Online(online) => Some(online.silence_deadline()),
        }
    }

    pub(super) fn online(&mut self) -> Option<&mut Online> {
        match self {
            Self::Online(online) => Some(online),
            _ => None,
        }
    }

    pub(super) fn into_connection(self) -> Option<Connection> {
        match self {
            Self::Resting { .. } | Self::Connecting(_) => None,
            Self::Greeting { connection, .. } | Self::Choosing { connection } => Some(*connection),
            Self::Online(online) => Some(online.connection),
        }
    }
}

impl Online {
    /// The server's clock.
    pub(super) fn server_now(&self) -> Timestamp {
        Timestamp(self.server_time.0 + self.since.elapsed().as_millis() as i64)
    }

    /// Since when the server is silent.
    pub(super) fn silent_since(&self) -> Instant {
        self.connection.heard().max(self.excused)
    }

    /// When to ping or to give up.
    fn silence_deadline(&self) -> Instant {
        let since = self.silent_since();
        match self.pinged {
            Some(pinged) if pinged > since => since + self.ping * 2,
            _ => since + self.ping,
        }
    }
}

impl Failure {
    pub(super) fn no_other_token() -> Stopped {
        Stopped::Unauthorized("the provider has no other than the one that was refused".to_owned())
    }
}
