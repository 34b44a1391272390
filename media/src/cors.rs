//! Which web pages may use this service (CORS). By hand, since the common layer answers every OPTIONS itself, and tus
//! asks by OPTIONS what a server can.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;

/// What a page may ask. Tokens are in a header that pages set themselves: there are no cookies to abuse.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// What a page may say.
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Range, If-Range, If-Match, If-None-Match, Tus-Resumable, Upload-Length, \
     Upload-Metadata, Upload-Offset, Upload-Checksum, X-Request-ID, X-Requested-With",
);
/// What a page may read of an answer, besides what every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Accept-Ranges, Content-Disposition, Content-Range, ETag, Location, Retry-After, Tus-Checksum-Algorithm, \
     Tus-Extension, Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Expires, Upload-Length, Upload-Metadata, \
     Upload-Offset",
);
/// How long a browser may remember the above; browsers cap it at two hours or less.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The origins that may.
#[derive(Clone, Debug)]
pub(crate) struct Origins(Arc<[HeaderValue]>);

impl Origins {
    pub(crate) fn new(origins: &[HeaderValue]) -> Self {
        Self(origins.into())
    }

    /// Adds to an answer what the browser of the page that asked wants to see.
    fn answer(&self, method: &Method, request: &HeaderMap, answer: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        // Also where nothing else is said: a cache must not give this answer to a page of another origin.
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = request.get(header::ORIGIN) else {
            return;
        };
        let allowed = if self.0.iter().any(|allowed| allowed == "*") {
            HeaderValue::from_static("*")
        } else if self.0.contains(origin) {
            origin.clone()
        } else {
            return;
        };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if *method == Method::OPTIONS && request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        } else {
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// Around everything.
pub(crate) async fn layer(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let mut response = next.run(request).await;
    origins.answer(&method, &headers, response.headers_mut());
    response
}
