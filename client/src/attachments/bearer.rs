//! The token that goes with a request: that of the connection, or one that the provider gives.

use std::time::Duration;

use tokio::time::timeout;

use crate::attachments::media::Session;
use crate::client::State;
use crate::tokens::{TokenReason, Tokens};

/// As for a connection.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Fresh tokens that are refused one after the other: the server will take none.
const REFUSED_MAX: usize = 3;

/// Why there is no token.
#[derive(Debug)]
pub(super) enum NoToken {
    /// The provider has no other than the refused one.
    Refused,
    /// It failed, and may succeed later.
    Failed,
}

/// Where one transfer's tokens come from.
pub(super) struct Bearer {
    tokens: Tokens,
    /// What the provider gave to this transfer.
    own: Option<String>,
    /// Since the last one that was taken, and the one before that.
    refused: Vec<String>,
}

impl Bearer {
    pub(super) fn new(tokens: Tokens) -> Self {
        let (own, refused) = (None, Vec::new());
        Self { tokens, own, refused }
    }

    /// A token that was not refused.
    pub(super) async fn get(&mut self, session: &Session, state: &State) -> Result<String, NoToken> {
        // While the client is connected its token is kept fresh.
        let connected = *state == State::Connected;
        if let Some(token) = session.token.as_ref().filter(|_| connected)
            && !self.refused.contains(token)
        {
            return Ok(token.clone());
        }
        if let Some(token) = &self.own {
            return Ok(token.clone());
        }
        let reason = match self.refused.len() {
            0 => TokenReason::Expiring,
            REFUSED_MAX.. => return Err(NoToken::Refused),
            _ => TokenReason::Refused,
        };
        let got = timeout(TOKEN_TIMEOUT, self.tokens.get(reason)).await;
        match got {
            Ok(Ok(token)) if self.refused.contains(&token) => Err(NoToken::Refused),
            Ok(Ok(token)) => Ok(self.own.insert(token).clone()),
            Ok(Err(_)) | Err(_) => Err(NoToken::Failed),
        }
    }

    /// The server did not take it.
    pub(super) fn refused(&mut self, token: String) {
        self.own = None;
        self.refused.push(token);
    }

    /// The server took one; of the others only the last may be offered again, by the connection.
    pub(super) fn taken(&mut self) {
        let old = self.refused.len().saturating_sub(1);
        self.refused.drain(..old);
    }
}
