//! Who asks: the same tokens as at the gateway, and what Postgres says of their bearers.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use tidings_metadata::ClientState;
use tidings_protocol::{ErrorCode, UserId};
use tidings_service::clock;

use crate::media::SharedMedia;
use crate::refusal::Refusal;
use crate::weather::in_time;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(pub(crate) UserId);

impl FromRequestParts<SharedMedia> for Bearer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, media: &SharedMedia) -> Result<Self, Refusal> {
        media.check_ready()?;
        let token = token(&parts.headers).unwrap_or_default();
        let claims = media.tokens.verify(token, clock::now()).await;
        let claims = claims.map_err(|error| Refusal::from(tidings_protocol::Error::from(error)))?;
        // Bytes cost more than a question, so it is put each time: who was removed has no minute left. A client that
        // nobody registered may go on: a token is enough for a page that only shows pictures.
        let questions = futures::future::try_join(
            media.metadata.client(claims.client),
            media.metadata.is_suspended(&claims.user),
        );
        let (client, suspended) = in_time(questions).await??;
        match client {
            Some(client) if client.user != claims.user => {
                return Err(Refusal::new(
                    ErrorCode::Unauthorized,
                    "this client is another user's",
                ));
            }
            Some(client) if client.state == ClientState::Removed => {
                return Err(Refusal::new(ErrorCode::ClientRemoved, "this client was removed"));
            }
            _ if suspended => return Err(Refusal::new(ErrorCode::Suspended, "the user is suspended")),
            _ => {}
        }
        Ok(Self(claims.user))
    }
}

/// The token of `Authorization: Bearer`.
fn token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
