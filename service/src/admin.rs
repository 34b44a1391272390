//! The HTTP port for probes and Prometheus: `/healthz`, `/readyz`, `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::boot_id::BootId;
use crate::conditions::{ConditionState, Conditions};
use crate::metrics::Metrics;

/// What the port shows.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) service: &'static str,
    pub(crate) boot_id: BootId,
    pub(crate) conditions: Conditions,
    pub(crate) stopping: CancellationToken,
    pub(crate) metrics: Metrics,
}

/// What `/readyz` answers.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    draining: bool,
    service: &'static str,
    version: &'static str,
    boot: String,
    conditions: BTreeMap<&'static str, ConditionState>,
}

impl Admin {
    /// Takes the port and serves until the process ends: while draining, too, operators look at it.
    pub(crate) async fn serve(self, address: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("--admin-listen: cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self);
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the admin port is gone");
            }
        });
        Ok(address)
    }
}

/// Alive: the runtime turns. Says nothing about others, so that a failure elsewhere restarts nobody.
async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let draining = admin.stopping.is_cancelled();
    let ready = !draining && admin.conditions.hold();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let readiness = Readiness {
        ready,
        draining,
        service: admin.service,
        version: env!("CARGO_PKG_VERSION"),
        boot: admin.boot_id.to_string(),
        conditions: admin.conditions.states(),
    };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let ready = !admin.stopping.is_cancelled() && admin.conditions.hold();
    ::metrics::gauge!("tidings_ready").set(f64::from(ready));
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        admin.metrics.render(),
    )
        .into_response()
}
