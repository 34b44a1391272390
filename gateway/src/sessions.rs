//! The clients that are connected here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::Mutex;
use tidings_nats::Shard;
use tidings_protocol::{ClientId, Timestamp, UserId};
use tokio_util::sync::CancellationToken;

use crate::mailbox::Mailbox;

/// A key that was written to SESSIONS.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Its revision; of two keys in one bucket the higher one is newer.
    pub(crate) revision: u64,
    /// Before it was sent.
    pub(crate) began: Instant,
    /// After it was acked.
    pub(crate) ended: Instant,
    /// Some worker was further than this revision before it was written: it follows a bucket that is gone.
    pub(crate) anew: bool,
}

impl Written {
    /// Whether this key was written after the other, by the same gateway. A bucket that was made anew counts from 1
    /// again, so revisions tell only where the times overlap.
    fn is_newer_than(&self, other: &Self) -> bool {
        if self.began > other.ended {
            return true;
        }
        other.began <= self.ended && self.revision > other.revision
    }
}

/// A connected client, as the rest of the gateway sees it.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    /// Which.
    pub(crate) client_id: ClientId,
    /// Whose.
    pub(crate) user_id: UserId,
    /// Where its inbox is.
    pub(crate) shard: Shard,
    /// Whether it reads the user's `first` inbox too.
    pub(crate) heir: bool,
    /// 64 random bits that name this connection.
    pub(crate) connection: u64,
    /// Since when it is connected, as its key says.
    pub(crate) since: Timestamp,
    /// Its key in SESSIONS; the newest one of a client tells the newest connection.
    pub(crate) written: Mutex<Written>,
    /// Up to where INVALIDATIONS must be applied for every worker to know of this client.
    pub(crate) invalidations_sequence: AtomicU64,
    /// What it is told.
    pub(crate) mailbox: Mailbox,
    /// Cancelled when the socket is closed.
    pub(crate) closed: CancellationToken,
}

impl SessionHandle {
    /// The revision of its key in SESSIONS.
    pub(crate) fn revision(&self) -> u64 {
        self.written.lock().revision
    }
}

/// The connected clients. One lock: it is held for a look-up, never across a wait.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_client: HashMap<ClientId, Arc<SessionHandle>>,
    by_user: HashMap<UserId, Vec<ClientId>>,
    /// Ended without a goodbye, so that their keys are still there.
    abandoned: Vec<Arc<SessionHandle>>,
}

impl Sessions {
    /// Takes a session in, unless a newer one of the same client is here. Says which older one it replaces.
    pub(crate) fn insert(
        &self,
        handle: &Arc<SessionHandle>,
    ) -> Result<Option<Arc<SessionHandle>>, Superseded> {
        let mut state = self.state.lock();
        if let Some(other) = state.by_client.get(&handle.client_id)
            && other.written.lock().is_newer_than(&handle.written.lock())
        {
            return Err(Superseded);
        }
        let older = state.by_client.insert(handle.client_id, handle.clone());
        metrics::gauge!("tidings_sessions").set(state.by_client.len() as f64);
        if older.is_none() {
            state
                .by_user
                .entry(handle.user_id.clone())
                .or_default()
                .push(handle.client_id);
        }
        Ok(older)
    }

    /// Lets a session go; one that was replaced is gone already.
    pub(crate) fn remove(&self, handle: &SessionHandle) {
        let mut state = self.state.lock();
        let State {
            by_client, by_user, ..
        } = &mut *state;
        if by_client
            .get(&handle.client_id)
            .is_none_or(|other| other.connection != handle.connection)
        {
            return;
        }
        by_client.remove(&handle.client_id);
        metrics::gauge!("tidings_sessions").set(by_client.len() as f64);
        if let Some(clients) = by_user.get_mut(&handle.user_id) {
            clients.retain(|client_id| *client_id != handle.client_id);
            if clients.is_empty() {
                by_user.remove(&handle.user_id);
            }
        }
    }

    /// Lets a session go whose task has ended without deleting its key.
    pub(crate) fn abandon(&self, handle: &Arc<SessionHandle>) {
        self.remove(handle);
        handle.closed.cancel();
        self.state.lock().abandoned.push(handle.clone());
    }

    /// The sessions whose keys are to be deleted for them; each is told once.
    pub(crate) fn take_abandoned(&self) -> Vec<Arc<SessionHandle>> {
        std::mem::take(&mut self.state.lock().abandoned)
    }

    /// The session of a client.
    pub(crate) fn get(&self, client_id: ClientId) -> Option<Arc<SessionHandle>> {
        self.state.lock().by_client.get(&client_id).cloned()
    }

    /// The sessions of a user.
    pub(crate) fn of_user(&self, user_id: &UserId) -> Vec<Arc<SessionHandle>> {
        let state = self.state.lock();
        let clients = state.by_user.get(user_id).into_iter().flatten();
        clients
            .filter_map(|client_id| state.by_client.get(client_id).cloned())
            .collect()
    }

    /// The users who have a session here.
    pub(crate) fn users(&self) -> Vec<UserId> {
        self.state.lock().by_user.keys().cloned().collect()
    }

    /// The sessions whose inbox is in a shard.
    pub(crate) fn of_shard(&self, shard: Shard) -> Vec<Arc<SessionHandle>> {
        self.state
            .lock()
            .by_client
            .values()
            .filter(|handle| handle.shard == shard)
            .cloned()
            .collect()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.state.lock().by_client.values().cloned().collect()
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().by_client.len()
    }

    /// Casts doubt on every session; the doubts are numbered.
    pub(crate) fn suspect_all(&self, doubt: u64) {
        for handle in self.state.lock().by_client.values() {
            handle.mailbox.suspect(doubt);
        }
    }

    /// Whether it is this connection that its client has here.
    pub(crate) fn holds(&self, handle: &SessionHandle) -> bool {
        self.get(handle.client_id)
            .is_some_and(|other| other.connection == handle.connection)
    }
}

/// A newer connection of the same client is here.
#[derive(Debug)]
pub(crate) struct Superseded;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_key_is_told_by_time_and_where_times_overlap_by_revision() {
        let start = Instant::now();
        let written = |revision, began, ended| Written {
            revision,
            began: start + Duration::from_secs(began),
            ended: start + Duration::from_secs(ended),
            anew: false,
        };
        let old = written(5_000, 0, 1);
        let anew = written(3, 2, 4);
        assert!(anew.is_newer_than(&old) && !old.is_newer_than(&anew));
        let beside = written(4, 3, 5);
        assert!(beside.is_newer_than(&anew) && !anew.is_newer_than(&beside));
    }
}
