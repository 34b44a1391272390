//! The HTTP side: `GET /v1/ws` becomes a WebSocket, `GET /v1` says what is spoken here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use serde::Serialize;
use tidings_protocol::{Codec, Error, ErrorCode, Limits};
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::handshake::Handshake;
use crate::hello;
use crate::session;
use crate::socket::Peer;
use crate::unavailable::unavailable;
use crate::wire::Wire;

#[derive(Clone, Debug)]
struct Edge {
    gateway: Arc<Gateway>,
    stopping: CancellationToken,
    stall_timeout: Duration,
}

/// The routes.
pub(crate) fn router(gateway: Arc<Gateway>, stopping: CancellationToken, stall_timeout: Duration) -> Router {
    Router::new()
        .route("/v1", get(versions))
        // Whatever the method is, so that the handshake says itself which one it takes.
        .route("/v1/ws", any(upgrade))
        .with_state(Edge {
            gateway,
            stopping,
            stall_timeout,
        })
}

/// What `GET /v1` answers.
#[derive(Serialize)]
struct Spoken {
    versions: [&'static str; 1],
    subprotocols: [&'static str; 2],
    limits: Limits,
}

async fn versions(State(edge): State<Edge>) -> axum::Json<Spoken> {
    axum::Json(Spoken {
        versions: ["v1"],
        subprotocols: Codec::ALL.map(Codec::subprotocol),
        limits: edge.gateway.limits(),
    })
}

async fn upgrade(
    State(Edge {
        gateway,
        stopping,
        stall_timeout,
    }): State<Edge>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    handshake: Handshake,
) -> Response {
    if stopping.is_cancelled() {
        let error = Error::new(ErrorCode::Unavailable, "this gateway restarts");
        return refusal(&error.retry_after_ms(rand::random_range(0..hello::RETRY_AFTER_MS_MAX)));
    }
    if gateway.is_cut_off() {
        return refusal(&unavailable("this gateway is cut off; try another"));
    }
    let unauthenticated = match gateway.rate_limits.unauthenticated(peer.address.ip()) {
        Ok(unauthenticated) => unauthenticated,
        Err(error) => return refusal(&error),
    };
    let bearer = bearer(&headers);
    let codec = handshake.codec();
    let (response, socket) = handshake.accept();
    let tasks = gateway.tasks.clone();
    tasks.spawn(async move {
        // Boxed, so that what coming in needs is not kept for the life of the connection.
        let coming_in = Box::pin(async move {
            let wire = Wire::new(socket.await?, codec, stall_timeout);
            let address = peer.address.ip();
            let opened = hello::hello(&gateway, wire, bearer, address, unauthenticated).await?;
            Some(session::begin(gateway, opened).await)
        });
        if let Some(session) = coming_in.await {
            session::run(session).await;
        }
    });
    response
}

/// What a WebSocket would say, said in HTTP. `Retry-After` has whole seconds: `retryAfterMs` is rounded up, so that
/// whoever waits as told is not told again, and never to 0, which asks for no wait at all.
fn refusal(error: &Error) -> Response {
    let status = match error.code {
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = (status, format!("{}\n", error.message)).into_response();
    if let Some(milliseconds) = error.retry_after_ms {
        let seconds = milliseconds.div_ceil(1000).max(1);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(error: &Error) -> (u16, Option<String>) {
        let response = refusal(error);
        let after = response.headers().get(header::RETRY_AFTER);
        let after = after.map(|value| value.to_str().expect("digits").to_owned());
        (response.status().as_u16(), after)
    }

    #[test]
    fn http_says_when_to_come_back_as_a_websocket_would() {
        let after = |code, milliseconds| said(&Error::new(code, "no").retry_after_ms(milliseconds));
        let seconds = |seconds: &str| Some(seconds.to_owned());
        assert_eq!(after(ErrorCode::RateLimited, 4_000), (429, seconds("4")));
        assert_eq!(after(ErrorCode::RateLimited, 4_001), (429, seconds("5")));
        assert_eq!(after(ErrorCode::Unavailable, 0), (503, seconds("1")));
        assert_eq!(said(&unavailable("cut off")), (503, seconds("1")));
        assert_eq!(said(&Error::new(ErrorCode::Unavailable, "no")), (503, None));
    }
}
