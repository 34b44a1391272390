//! Requests to the HTTP service: where it is, with which token, and what its answers mean.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::value::RawValue;
use tidings_protocol::Error;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::attachments::bearer::{Bearer, NoToken};
use crate::attachments::retry::{Verdict, verdict, wait};
use crate::client::State;
use crate::connection::use_ring;
use crate::link::Stopped;
use crate::tokens::Tokens;

/// For name resolution, TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Whoever takes or gives nothing for so long is lost.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The service makes a large file whole before it answers.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_mins(2);
/// An error's body; the rest is not ours.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// What the connection knows.
#[derive(Clone, Default)]
pub(crate) struct Session {
    /// There was a welcome.
    pub(crate) welcomed: bool,
    /// What the last one said.
    pub(crate) media_url: Option<String>,
    /// The token of the connection.
    pub(crate) token: Option<String>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("media_url", &self.media_url)
            .finish_non_exhaustive()
    }
}

/// What transfers need of a client. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Media {
    tokens: Tokens,
    session: watch::Receiver<Session>,
    state: watch::Receiver<State>,
    /// Made by the first transfer.
    http: Arc<OnceLock<reqwest::Client>>,
}

/// Why no request can be made, now or ever.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server has no place for attachments.
    NotServed,
    /// The token is refused, and the provider has no other.
    Unauthorized,
    /// The client has stopped.
    Stopped(Stopped),
}

/// What came of a request.
pub(super) enum Answer {
    /// Success, or a redirect that is to be followed.
    Good(Response),
    /// Something else, and the server's words.
    Bad(Verdict, Rejection),
    /// None came; the reason is not kept, since it may name the URL with a signature.
    Lost,
}

/// What the service said.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) status: u16,
    pub(super) error: Option<Error>,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.error {
            Some(error) => write!(f, "{error}"),
            None => write!(f, "HTTP status {}", self.status),
        }
    }
}

/// One transfer's way to the service.
pub(super) struct Way {
    media: Media,
    bearer: Bearer,
    /// Failures since something last went well.
    failures: u32,
}

impl Media {
    pub(crate) fn new(
        tokens: Tokens,
        session: watch::Receiver<Session>,
        state: watch::Receiver<State>,
    ) -> Self {
        let http = Arc::default();
        Self {
            tokens,
            session,
            state,
            http,
        }
    }

    pub(super) fn way(&self) -> Way {
        Way {
            media: self.clone(),
            bearer: Bearer::new(self.tokens.clone()),
            failures: 0,
        }
    }

    /// Like the WebSocket: ring, and the roots of Mozilla. No redirect is followed unseen.
    fn http(&self) -> &reqwest::Client {
        self.http.get_or_init(|| {
            use_ring();
            let roots = rustls::RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            };
            let tls = rustls::ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth();
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(Policy::none())
                .build()
                .expect("these settings are good on every machine")
        })
    }
}

impl Way {
    /// Asks, with a token, and waits for the head of the answer. `Err`: no use to try again.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        patience: Duration,
        more: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, Failure> {
        let url = self.url(path).await?;
        let (session, state) = (
            self.media.session.borrow().clone(),
            self.media.state.borrow().clone(),
        );
        let token = match self.bearer.get(&session, &state).await {
            Ok(token) => token,
            Err(NoToken::Refused) => return Err(Failure::Unauthorized),
            Err(NoToken::Failed) => return Ok(Answer::Lost),
        };
        let Ok(mut authorization) = HeaderValue::from_str(&format!("Bearer {token}")) else {
            return Err(Failure::Unauthorized);
        };
        authorization.set_sensitive(true);
        let request = self.media.http().request(method, url);
        let request = more(request.header(reqwest::header::AUTHORIZATION, authorization));
        let answer = take(timeout(patience, request.send()).await.ok().and_then(Result::ok)).await;
        match &answer {
            Answer::Bad(Verdict::NewToken, _) => self.bearer.refused(token),
            Answer::Good(_) => self.bearer.taken(),
            Answer::Bad(..) | Answer::Lost => {}
        }
        Ok(answer)
    }

    /// Follows a redirect, to whom our token is no business of. None: it is none.
    pub(super) async fn follow(
        &self,
        response: &Response,
        more: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Option<Answer> {
        if !matches!(
            response.status(),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::FOUND | StatusCode::SEE_OTHER
        ) {
            return None;
        }
        let location = response.headers().get(LOCATION)?.to_str().ok()?;
        let url = response.url().join(location).ok()?;
        let request = more(self.media.http().get(url));
        let sent = timeout(STALL_TIMEOUT, request.send()).await;
        Some(take(sent.ok().and_then(Result::ok)).await)
    }

    /// Something went well.
    pub(super) fn good(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next try.
    pub(super) async fn rest(&mut self, asked: Option<Duration>) {
        let delay = wait(asked, self.failures, rand::random());
        self.failures = self.failures.saturating_add(1);
        sleep(delay).await;
    }

    /// Waits for a welcome, if there was none yet.
    async fn url(&mut self, path: &str) -> Result<Url, Failure> {
        if let State::Stopped(reason) = &*self.media.state.borrow() {
            return Err(Failure::Stopped(reason.clone()));
        }
        let welcomed = self.media.session.wait_for(|session| session.welcomed).await;
        // The client's task ended before a welcome.
        let Ok(session) = welcomed else {
            return Err(Failure::Stopped(match &*self.media.state.borrow() {
                State::Stopped(reason) => reason.clone(),
                _ => Stopped::ByApplication,
            }));
        };
        let base = session.media_url.clone().ok_or(Failure::NotServed)?;
        Url::parse(&format!("{}{path}", base.trim_end_matches('/')))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or(Failure::NotServed)
    }
}

async fn take(response: Option<Response>) -> Answer {
    let Some(response) = response else {
        return Answer::Lost;
    };
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return Answer::Good(response);
    }
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let error = timeout(STALL_TIMEOUT, error_of(response)).await.ok().flatten();
    let verdict = verdict(status, error.as_ref(), retry_after);
    let status = status.as_u16();
    Answer::Bad(verdict, Rejection { status, error })
}

/// `{"error":{…}}`, if that is what it is.
async fn error_of(mut response: Response) -> Option<Error> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.ok()? {
        body.extend_from_slice(&piece);
        if body.len() > ERROR_BYTES_MAX {
            return None;
        }
    }
    let fields: std::collections::BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&body).ok()?;
    serde_json::from_str(fields.get("error")?.get()).ok()
}
