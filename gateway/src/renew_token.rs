//! `renewToken`.

use tidings_protocol::{Error, ErrorCode};
use tidings_service::{Claims, clock};

use crate::gateway::Gateway;
use crate::sessions::SessionHandle;

impl Gateway {
    /// A newer token of the same user and client.
    pub(crate) async fn renew_token(&self, session: &SessionHandle, token: &str) -> Result<Claims, Error> {
        let claims = self
            .tokens
            .verify(token, clock::now())
            .await
            .map_err(|error| Error::from(error).at("token"))?;
        if claims.user != session.user_id || claims.client != session.client_id {
            let message = "the token is another user's or another client's";
            return Err(Error::new(ErrorCode::Unauthorized, message).at("token"));
        }
        Ok(claims)
    }
}
