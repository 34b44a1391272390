//! Newest wins: a client's key in SESSIONS names its connection. Each writer replaces the key that it read, so
//! that everybody knows exactly whom they replace.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use tidings_nats::{ApiError, Bus, CloseReason, CloseRequest, PublishError, SESSIONS, SessionKey};
use tidings_protocol::ClientId;

use crate::sessions::Written;

/// Another connection of the same client wrote in between, so many times: somebody reconnects in a loop.
const TRIES: u32 = 8;
/// Before the second try; doubles with each. A cluster refuses whoever writes while another's write to the same key
/// is on its way, such as the deletion by the connection before: that takes a sync on two nodes.
const DELAY: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_secs(5);
/// For how long to wait for the old gateway's word that the old socket is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Writes the key. The revision orders the client's connections; the predecessor is whom it replaces. `followed`
/// is how far the workers were before.
pub(crate) async fn write_key(
    bus: &Bus,
    client_id: ClientId,
    key: &SessionKey,
    followed: u64,
) -> Result<(Written, Option<SessionKey>), PublishError> {
    let stream = format!("KV_{SESSIONS}");
    let subject = subject(client_id);
    let mut result = Err(PublishError::Unknown(ApiError::Timeout));
    for attempt in 0..TRIES {
        // The first look may go to a replica that is behind; the writing tells, and then the leader is asked.
        let last = if attempt == 0 {
            bus.last_by_subject(&stream, &subject, TIMEOUT).await
        } else {
            bus.leader_last(&stream, &subject, TIMEOUT).await
        };
        let last = last.map_err(PublishError::Unknown)?;
        let revision = last.as_ref().map_or(0, |message| message.sequence);
        result = replace_key(bus, client_id, key, revision, followed).await;
        match &result {
            Ok(written) => {
                let predecessor = last.and_then(|message| SessionKey::decode(&message.payload));
                return Ok((*written, predecessor));
            }
            Err(PublishError::Unknown(error)) if error.is_wrong_last_sequence() => {
                let delay = DELAY * 2_u32.pow(attempt);
                tokio::time::sleep(delay.mul_f64(rand::random_range(0.5..1.0))).await;
            }
            Err(_) => break,
        }
    }
    Err(result.expect_err("a success returns at once"))
}

/// Writes the key where the last revision, also that of a mark of a deletion, is this one; 0 is none.
pub(crate) async fn replace_key(
    bus: &Bus,
    client_id: ClientId,
    key: &SessionKey,
    revision: u64,
    followed: u64,
) -> Result<Written, PublishError> {
    let mut headers = HeaderMap::new();
    headers.insert(
        async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
        revision.to_string(),
    );
    let began = Instant::now();
    let accepted = bus
        .publish(subject(client_id), headers, key.encode(), TIMEOUT)
        .await?;
    Ok(Written {
        revision: accepted.sequence,
        began,
        ended: Instant::now(),
        anew: accepted.sequence <= followed,
    })
}

/// Deletes the key, if it is still the one that was written.
pub(crate) async fn delete_key(bus: &Bus, client_id: ClientId, revision: u64) {
    let mut headers = HeaderMap::new();
    headers.insert(
        async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
        revision.to_string(),
    );
    headers.insert("KV-Operation", "DEL");
    if let Err(error) = bus
        .publish(subject(client_id), headers, bytes::Bytes::new(), TIMEOUT)
        .await
    {
        tracing::debug!(client.id = %client_id, %error, "the session's key stays; a newer session has replaced it, or will");
    }
}

/// Where a client is connected, if anywhere.
pub(crate) async fn read_key(bus: &Bus, client_id: ClientId) -> Result<Option<SessionKey>, ApiError> {
    let last = bus
        .last_by_subject(&format!("KV_{SESSIONS}"), &subject(client_id), TIMEOUT)
        .await?;
    Ok(last.and_then(|message| SessionKey::decode(&message.payload)))
}

/// Asks a gateway to close a connection, and waits a second for its word. A gateway that is gone has closed it.
pub(crate) async fn close_elsewhere(bus: &Bus, client_id: ClientId, key: &SessionKey, reason: CloseReason) {
    let request = CloseRequest {
        client_id,
        connection: Some(key.connection),
        reason,
    };
    if let Err(error) = bus.request_close(&key.gateway, &request, CLOSE_TIMEOUT).await {
        tracing::debug!(client.id = %client_id, gateway = key.gateway, %error, "no word from the old gateway");
    }
}

/// The subject of a client's key.
pub(crate) fn subject(client_id: ClientId) -> String {
    format!("$KV.{SESSIONS}.{client_id}")
}
