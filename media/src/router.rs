//! The routes, and what is around all of them.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tidings_protocol::ErrorCode;

use crate::cors::{self, Origins};
use crate::media::SharedMedia;
use crate::metrics::METHODS;
use crate::refusal::Refusal;
use crate::{attachments, tus};

/// The routes.
pub(crate) fn router(media: SharedMedia, origins: Origins) -> Router {
    let uploads = Router::new()
        .route("/v1/uploads", post(tus::create).options(tus::options))
        .route(
            "/v1/uploads/{id}",
            axum::routing::head(tus::standing)
                .patch(tus::patch)
                .delete(tus::terminate)
                .options(tus::options),
        )
        .layer(middleware::from_fn(tus::layer));
    Router::new()
        .route("/v1/attachments", post(attachments::post).options(nothing))
        .route(
            "/v1/attachments/{id}",
            get(attachments::get)
                .head(attachments::head)
                .put(attachments::put)
                .options(nothing),
        )
        .merge(uploads)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn(around))
        .layer(middleware::from_fn_with_state(origins, cors::layer))
        .with_state(media)
}

/// What browsers ask before; the answer is in the headers.
async fn nothing() -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn no_route() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "there is nothing at this path")
}

async fn no_method() -> Refusal {
    Refusal::bad_request("method", "this method means nothing at this path")
        .status(StatusCode::METHOD_NOT_ALLOWED)
}

/// Nobody looks into the bytes of an answer for its type, and every answer is counted.
async fn around(request: Request, next: Next) -> Response {
    let method = METHODS
        .into_iter()
        .find(|method| *method == request.method().as_str());
    let method = method.unwrap_or("other");
    let mut response = next.run(request).await.into_response();
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let class = match response.status().as_u16() {
        ..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    metrics::counter!("tidings_media_answers_total", "method" => method, "status" => class).increment(1);
    response
}
