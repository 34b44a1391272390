//! What follows the end of a connection: come back, and when, or stop. Pure.

use std::time::Duration;

use tidings_protocol::{CloseCode, Closing, Error, ErrorCode};

use crate::backoff::Backoff;
use crate::connection::{Closed, ConnectError};

/// A connection that held for so long was a good one: the next backoff begins anew.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// Nobody is asked to stay away longer than this.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// How a connection, or the attempt to make one, came to its end.
#[derive(Debug, thiserror::Error)]
pub enum Ending {
    /// No connection was made.
    #[error(transparent)]
    NotConnected(#[from] ConnectError),
    /// No connection was made in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The token provider failed.
    #[error("no token: {0}")]
    NoToken(String),
    /// The server did not take the hello.
    #[error("the server refused the hello: {0}")]
    HelloRefused(Error),
    /// The connection was closed or broke.
    #[error("{closed}")]
    Closed {
        /// With which code.
        closed: Closed,
        /// What the server had said before.
        closing: Option<Closing>,
    },
    /// The server was silent for twice `pingSeconds`.
    #[error("the server has been silent for {} s", .0.as_secs())]
    Silent(Duration),
}

/// Why a client has stopped for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The application closed it, or let go of it.
    #[error("closed by the application")]
    ByApplication,
    /// This client connected elsewhere.
    #[error("this client has connected elsewhere")]
    Replaced,
    /// The client was removed, or the user suspended.
    #[error("{0}")]
    Forbidden(String),
    /// The token is refused, and the provider has no other.
    #[error("the token is refused: {0}")]
    Unauthorized(String),
    /// The server understands something else by this protocol, or this library is at fault.
    #[error("{0}")]
    Protocol(String),
    /// The settings cannot work.
    #[error("{0}")]
    Settings(String),
    /// The memory failed.
    #[error("the client's memory failed: {0}")]
    Store(String),
}

/// What to do after an end.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Connect again, with the token at hand or with a new one.
    Retry { after: Duration, new_token: bool },
    /// Wait for the application to say which client to replace.
    Choose,
    /// Never again.
    Stop(Stopped),
}

/// The failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Link {
    failures: u32,
}

impl Link {
    /// A connection ended that had been welcomed for `held` (zero if never). `jitter` is evenly spread over
    /// 0 to 1.
    pub(crate) fn ended(&mut self, ending: &Ending, held: Duration, jitter: f64) -> Next {
        if held >= GOOD_AFTER {
            self.failures = 0;
        }
        let next = match verdict(ending) {
            Verdict::Stop(reason) => return Next::Stop(reason),
            Verdict::Choose => return Next::Choose,
            Verdict::Retry { asked, new_token } => {
                let backoff = Backoff::CONNECT.delay(self.failures, jitter);
                let after = match asked {
                    // The server spreads its clients; a little jitter for those told the same.
                    Some(asked) => asked.min(RETRY_AFTER_MAX) + Backoff::CONNECT.base.mul_f64(jitter),
                    None => backoff,
                };
                Next::Retry { after, new_token }
            }
        };
        self.failures = self.failures.saturating_add(1);
        next
    }
}

enum Verdict {
    Retry {
        asked: Option<Duration>,
        new_token: bool,
    },
    Choose,
    Stop(Stopped),
}

const RETRY: Verdict = Verdict::Retry {
    asked: None,
    new_token: false,
};
const NEW_TOKEN: Verdict = Verdict::Retry {
    asked: None,
    new_token: true,
};

fn verdict(ending: &Ending) -> Verdict {
    match ending {
        Ending::NotConnected(error) => match error {
            ConnectError::Url { .. } | ConnectError::Token => {
                Verdict::Stop(Stopped::Settings(error.to_string()))
            }
            ConnectError::Refused { status: 401, .. } => NEW_TOKEN,
            ConnectError::Refused { status: 403, .. } => Verdict::Stop(Stopped::Forbidden(error.to_string())),
            ConnectError::Refused { retry_after, .. } => Verdict::Retry {
                asked: *retry_after,
                new_token: false,
            },
            ConnectError::Unreachable { .. } => RETRY,
        },
        Ending::TimedOut(_) | Ending::Silent(_) => RETRY,
        Ending::NoToken(_) => NEW_TOKEN,
        Ending::HelloRefused(error) => of_error(error),
        Ending::Closed { closed, closing } => of_close(closed, closing.as_ref()),
    }
}

fn of_error(error: &Error) -> Verdict {
    match error.code {
        ErrorCode::TooManyClients => Verdict::Choose,
        ErrorCode::Unauthorized | ErrorCode::TokenExpired => NEW_TOKEN,
        ErrorCode::ClientRemoved | ErrorCode::Suspended => {
            Verdict::Stop(Stopped::Forbidden(error.message.clone()))
        }
        _ if error.retryable => Verdict::Retry {
            asked: error.retry_after_ms.map(Duration::from_millis),
            new_token: false,
        },
        _ => Verdict::Stop(Stopped::Settings(error.to_string())),
    }
}

fn of_close(closed: &Closed, closing: Option<&Closing>) -> Verdict {
    let asked = closing.and_then(|closing| closing.retry_after_ms.map(Duration::from_millis));
    let words = || match closed.reason.as_str() {
        "" => closing.map_or_else(|| closed.to_string(), |closing| closing.code.to_string()),
        reason => reason.to_owned(),
    };
    match closed.close_code() {
        Some(CloseCode::Unauthorized) => NEW_TOKEN,
        Some(CloseCode::Forbidden) => Verdict::Stop(Stopped::Forbidden(words())),
        Some(CloseCode::Replaced) => Verdict::Stop(Stopped::Replaced),
        Some(CloseCode::NotTidings | CloseCode::FrameTooLarge) => Verdict::Stop(Stopped::Protocol(words())),
        Some(CloseCode::Restart | CloseCode::Overloaded | CloseCode::Timeout) => Verdict::Retry {
            asked,
            new_token: false,
        },
        // Many proxies drop the code; the frame before it says as much.
        None => match closing {
            Some(Closing {
                code: ErrorCode::Unauthorized | ErrorCode::TokenExpired,
                ..
            }) => NEW_TOKEN,
            Some(closing) if !closing.reconnect => match closing.code {
                ErrorCode::ClientRemoved | ErrorCode::Suspended => {
                    Verdict::Stop(Stopped::Forbidden(closing.code.to_string()))
                }
                _ => Verdict::Stop(Stopped::Protocol(words())),
            },
            _ => Verdict::Retry {
                asked,
                new_token: false,
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16, closing: Option<Closing>) -> Ending {
        let closed = Closed {
            code,
            reason: String::new(),
        };
        Ending::Closed { closed, closing }
    }

    fn closing(code: ErrorCode, reconnect: bool, retry_after_ms: Option<u64>) -> Closing {
        Closing {
            code,
            reconnect,
            retry_after_ms,
        }
    }

    fn retry(milliseconds: u64, new_token: bool) -> Next {
        Next::Retry {
            after: Duration::from_millis(milliseconds),
            new_token,
        }
    }

    #[test]
    fn every_close_code_is_obeyed() {
        let check = |code, expected: &Next| {
            let next = Link::default().ended(&closed(code, None), Duration::ZERO, 1.0);
            assert_eq!(&next, expected, "{code}");
        };
        for code in [1001, 1005, 1006, 1012, 1013, 4408] {
            check(code, &retry(500, false));
        }
        check(4401, &retry(500, true));
        check(4409, &Next::Stop(Stopped::Replaced));
        for code in [4400, 4413] {
            let words = format!("closed with {code}");
            check(code, &Next::Stop(Stopped::Protocol(words)));
        }
        check(
            4403,
            &Next::Stop(Stopped::Forbidden("closed with 4403".to_owned())),
        );
    }

    #[test]
    fn a_restarting_gateway_says_when_to_come_back() {
        let ending = closed(1012, Some(closing(ErrorCode::Unavailable, true, Some(1_200))));
        let mut link = Link::default();
        assert_eq!(link.ended(&ending, Duration::ZERO, 0.0), retry(1_200, false));
        assert_eq!(link.ended(&ending, Duration::ZERO, 1.0), retry(1_700, false));
    }

    #[test]
    fn a_lost_close_code_is_told_by_the_closing_frame() {
        let check = |frame, expected: &Next| {
            let next = Link::default().ended(&closed(1006, Some(frame)), Duration::ZERO, 0.0);
            assert_eq!(&next, expected);
        };
        check(
            closing(ErrorCode::Unavailable, true, Some(900)),
            &retry(900, false),
        );
        check(closing(ErrorCode::TokenExpired, true, None), &retry(0, true));
        let removed = Stopped::Forbidden("client_removed".to_owned());
        check(
            closing(ErrorCode::ClientRemoved, false, None),
            &Next::Stop(removed),
        );
    }

    #[test]
    fn the_backoff_grows_until_a_connection_holds() {
        let mut link = Link::default();
        let mut wait = |held| match link.ended(&closed(1006, None), held, 1.0) {
            Next::Retry { after, .. } => after.as_millis(),
            other => panic!("{other:?}"),
        };
        let short = Duration::from_secs(1);
        assert_eq!([wait(short), wait(short), wait(short)], [500, 1_000, 2_000]);
        assert_eq!([wait(GOOD_AFTER), wait(short)], [500, 1_000]);
    }

    #[test]
    fn a_refused_hello_is_understood() {
        let check = |error: Error, expected: &Next| {
            let next = Link::default().ended(&Ending::HelloRefused(error), Duration::ZERO, 0.0);
            assert_eq!(&next, expected);
        };
        check(Error::new(ErrorCode::TooManyClients, ""), &Next::Choose);
        check(Error::new(ErrorCode::TokenExpired, ""), &retry(0, true));
        check(Error::new(ErrorCode::Unavailable, ""), &retry(0, false));
        check(
            Error::new(ErrorCode::RateLimited, "").retry_after_ms(700),
            &retry(700, false),
        );
        let removed = Stopped::Forbidden("gone".to_owned());
        check(Error::new(ErrorCode::ClientRemoved, "gone"), &Next::Stop(removed));
        let name = Stopped::Settings("bad_request: too long (field name)".to_owned());
        check(Error::bad_request("name", "too long"), &Next::Stop(name));
    }
}
