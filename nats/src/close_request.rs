//! What a gateway is asked by another one, or by an operator: to close a connection. Core NATS, on `close.<gateway>`,
//! answered when done.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_protocol::ClientId;

use crate::api::{ApiError, Bus};
use crate::subject::close_subject;
use crate::wire::{self, WireError};

/// Why a connection is to be closed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// The client has connected elsewhere.
    Replaced,
    /// The client was removed.
    Removed,
    /// The user was suspended.
    Suspended,
    /// An operator wants it to come back anew.
    Kicked,
}

/// Closes one connection of one client.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseRequest {
    /// Which client.
    pub client_id: ClientId,
    /// Which of its connections; none means whichever there is.
    pub connection: Option<u64>,
    /// Why.
    pub reason: CloseReason,
}

impl CloseRequest {
    /// For `close.<gateway>`.
    pub fn encode(&self) -> Bytes {
        wire::encode(self)
    }

    /// From `close.<gateway>`.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        wire::decode(payload)
    }
}

impl Bus {
    /// Asks a gateway to close a connection. Its answer says that it is closed, or was not there.
    pub async fn request_close(
        &self,
        gateway: &str,
        request: &CloseRequest,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        self.raw(close_subject(gateway), request.encode(), timeout)
            .await?;
        Ok(())
    }
}
