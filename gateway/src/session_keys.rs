//! Whether each session's key still stands in SESSIONS. A key that is gone, because somebody deleted it or the bucket
//! was lost, purged, made anew or restored from an older backup, is put again: without it no worker would tell
//! this gateway of what it stores.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use tidings_nats::{ApiError, CloseReason, SESSIONS, SessionKey, StoredMessage};

use crate::gateway::Gateway;
use crate::mailbox::Ending;
use crate::sessions::SessionHandle;
use crate::take_over;

/// Keys of one request; the server answers 1,024.
const KEYS_MAX: usize = 1000;
/// Keys that are put again at once. All may be gone at the same moment.
const WRITES_MAX: usize = 32;
/// A key changes while it is looked at: somebody reconnects in a loop, and the next check sees how that ended.
const TRIES: u32 = 3;
/// For one request.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Deletes the keys of sessions that have ended without doing so.
pub(crate) async fn delete_abandoned(gateway: &Gateway) {
    for session in gateway.sessions.take_abandoned() {
        take_over::delete_key(&gateway.bus, session.client_id, session.revision()).await;
    }
}

/// What stands in a session's place.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Its own key.
    Own,
    /// Nothing, but perhaps the mark of a deletion, with this revision.
    Gone { revision: u64 },
    /// A newer connection's key.
    Newer,
    /// A key with a lower revision: it is older and came back with a backup, or it was written to a bucket that was
    /// made anew.
    Other { revision: u64, key: SessionKey },
}

/// What to make of the key that was found, for this connection whose own key has this revision.
fn place(connection: u64, revision: u64, found: Option<&StoredMessage>) -> Place {
    let Some(found) = found else {
        return Place::Gone { revision: 0 };
    };
    match SessionKey::decode(&found.payload) {
        None => Place::Gone {
            revision: found.sequence,
        },
        Some(key) if key.connection == connection => Place::Own,
        Some(_) if found.sequence > revision => Place::Newer,
        Some(key) => Place::Other {
            revision: found.sequence,
            key,
        },
    }
}

/// Looks at the keys of these sessions and puts right what is wrong. What cannot be read now is looked at next time.
pub(crate) async fn check(gateway: &Gateway, sessions: &[Arc<SessionHandle>]) {
    for sessions in sessions.chunks(KEYS_MAX) {
        if let Err(error) = check_chunk(gateway, sessions).await {
            tracing::debug!(%error, "the keys of sessions could not be checked; in half a minute again");
        }
    }
}

async fn check_chunk(gateway: &Gateway, sessions: &[Arc<SessionHandle>]) -> Result<(), ApiError> {
    let subjects: Vec<String> = sessions
        .iter()
        .map(|session| take_over::subject(session.client_id))
        .collect();
    // A replica that is behind shows wrong what is right, never the other way round for long; the leader decides.
    let found = gateway
        .bus
        .last_by_subjects(&format!("KV_{SESSIONS}"), &subjects, TIMEOUT)
        .await?;
    let found: HashMap<&str, &StoredMessage> = found
        .iter()
        .map(|message| (message.subject.as_str(), message))
        .collect();
    let wrong = sessions.iter().zip(&subjects).filter(|(session, subject)| {
        let found = found.get(subject.as_str()).copied();
        place(session.connection, session.revision(), found) != Place::Own
    });
    futures::stream::iter(wrong)
        .for_each_concurrent(WRITES_MAX, async |(session, _)| settle(gateway, session).await)
        .await;
    Ok(())
}

/// Puts the key in its place, or ends the session whose place is another's.
async fn settle(gateway: &Gateway, session: &Arc<SessionHandle>) {
    let stream = format!("KV_{SESSIONS}");
    let subject = take_over::subject(session.client_id);
    for _ in 0..TRIES {
        if session.closed.is_cancelled() || !gateway.sessions.holds(session) {
            return;
        }
        let found = match gateway.bus.last_by_subject_now(&stream, &subject, TIMEOUT).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(client.id = %session.client_id, %error, "a session's key is not known");
                return;
            }
        };
        match place(session.connection, session.revision(), found.as_ref()) {
            Place::Own => return own(gateway, session, found.map_or(0, |found| found.sequence)).await,
            Place::Newer => return session.mailbox.close(Ending::Asked(CloseReason::Replaced)),
            Place::Gone { revision } => {
                if put_again(gateway, session, revision).await {
                    return;
                }
            }
            Place::Other { revision, key } => {
                if is_alive(gateway, &key) {
                    // Which one is newer cannot be told: this one begins anew, and then it can.
                    return session.mailbox.close(Ending::Restart);
                }
                if put_again(gateway, session, revision).await {
                    return;
                }
            }
        }
    }
}

/// The key is there. With another revision than is known, it was put again and the ack got lost.
async fn own(gateway: &Gateway, session: &Arc<SessionHandle>, revision: u64) {
    let changed = {
        let mut written = session.written.lock();
        let changed = written.revision != revision;
        written.revision = revision;
        changed
    };
    if changed {
        gateway.live.fence_again(session).await;
    }
}

/// Whether the connection that a key names may be there. This gateway knows of its own; others are asked by whether
/// they live.
fn is_alive(gateway: &Gateway, key: &SessionKey) -> bool {
    let own = key.gateway == gateway.boot_id.to_string();
    let living = gateway.gateways.now();
    let named = |boot_id: &tidings_service::BootId| boot_id.to_string() == key.gateway;
    !own && living.instances.keys().any(named)
}

/// Puts the key where this revision is. Entries may have been stored without a notice, so the session is fenced
/// again. Says whether there is nothing more to do.
async fn put_again(gateway: &Gateway, session: &Arc<SessionHandle>, revision: u64) -> bool {
    let key = SessionKey {
        gateway: gateway.boot_id.to_string(),
        connection: session.connection,
        user_id: session.user_id.clone(),
        since: session.since,
    };
    gateway.live.unfence(session);
    let followed = gateway.live.sessions_revision();
    let bus = &gateway.bus;
    match take_over::replace_key(bus, session.client_id, &key, revision, followed).await {
        Ok(written) => {
            tracing::info!(client.id = %session.client_id, "a session's key was gone and is put again");
            metrics::counter!("tidings_session_keys_put_again_total").increment(1);
            *session.written.lock() = written;
            if gateway.sessions.holds(session) {
                gateway.live.fence_again(session).await;
            } else {
                // It has ended meanwhile, and may have deleted the key of before.
                take_over::delete_key(bus, session.client_id, written.revision).await;
            }
            true
        }
        Err(error) => {
            tracing::debug!(client.id = %session.client_id, %error, "a session's key was not put again");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_protocol::{Timestamp, UserId};

    use super::*;

    fn key(connection: u64) -> SessionKey {
        SessionKey {
            gateway: "g".to_owned(),
            connection,
            user_id: UserId::new("alice").expect("printable"),
            since: Timestamp(0),
        }
    }

    fn found(sequence: u64, payload: bytes::Bytes) -> StoredMessage {
        StoredMessage {
            subject: "s".to_owned(),
            sequence,
            stored_at: Timestamp(0),
            payload,
            trace: None,
        }
    }

    #[test]
    fn what_stands_in_a_place_is_told() {
        assert_eq!(place(1, 10, None), Place::Gone { revision: 0 });
        let mark = found(11, bytes::Bytes::new());
        assert_eq!(place(1, 10, Some(&mark)), Place::Gone { revision: 11 });
        let own = found(10, key(1).encode());
        assert_eq!(place(1, 10, Some(&own)), Place::Own);
        let newer = found(12, key(2).encode());
        assert_eq!(place(1, 10, Some(&newer)), Place::Newer);
        let other = found(9, key(2).encode());
        assert_eq!(
            place(1, 10, Some(&other)),
            Place::Other {
                revision: 9,
                key: key(2)
            }
        );
    }
}
