//! A connection's place among the sessions. Whichever way its task ends, also by a panic, the place is given up:
//! otherwise the gateway would wait in vain for it to close, and workers tell of entries whom nobody delivers to.

use std::ops::Deref;
use std::sync::Arc;

use crate::sessions::{SessionHandle, Sessions};

/// See the module.
#[derive(Debug)]
pub(crate) struct Seat {
    handle: Arc<SessionHandle>,
    sessions: Arc<Sessions>,
    left: bool,
}

impl Seat {
    /// For a session that is, or is to be, among these, and whose key is written.
    pub(crate) fn new(sessions: Arc<Sessions>, handle: Arc<SessionHandle>) -> Self {
        Self {
            handle,
            sessions,
            left: false,
        }
    }

    /// The session has ended as sessions do: nothing is left of it.
    pub(crate) fn leave(mut self) {
        self.left = true;
    }
}

impl Deref for Seat {
    type Target = Arc<SessionHandle>;

    fn deref(&self) -> &Arc<SessionHandle> {
        &self.handle
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let client_id = self.handle.client_id;
        tracing::error!(client.id = %client_id, "a session ended without a goodbye; its key is deleted soon");
        self.sessions.abandon(&self.handle);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    use tidings_nats::Shard;
    use tidings_protocol::{ClientId, Timestamp, UserId};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::mailbox::Mailbox;
    use crate::sessions::Written;

    fn handle(connection: u64) -> Arc<SessionHandle> {
        let written = Written {
            revision: connection,
            began: Instant::now(),
            ended: Instant::now(),
            anew: false,
        };
        Arc::new(SessionHandle {
            client_id: ClientId(uuid::Uuid::from_u128(7)),
            user_id: UserId::new("alice").expect("a user id"),
            shard: Shard(0),
            heir: false,
            connection,
            since: Timestamp(0),
            written: parking_lot::Mutex::new(written),
            invalidations_sequence: AtomicU64::default(),
            mailbox: Mailbox::default(),
            closed: CancellationToken::new(),
        })
    }

    fn sit(sessions: &Arc<Sessions>, connection: u64) -> Seat {
        let handle = handle(connection);
        sessions.insert(&handle).expect("it is the newest");
        Seat::new(sessions.clone(), handle)
    }

    #[tokio::test]
    async fn a_session_that_panics_gives_its_place_up() {
        let sessions = Arc::new(Sessions::default());
        let seat = sit(&sessions, 1);
        let handle = seat.clone();
        let task = tokio::spawn(async move {
            let _seat = seat;
            tokio::task::yield_now().await;
            panic!("on purpose");
        });
        assert!(task.await.is_err_and(|error| error.is_panic()));
        assert_eq!(sessions.len(), 0);
        assert!(sessions.of_user(&handle.user_id).is_empty());
        assert!(handle.closed.is_cancelled(), "whoever takes over waits for this");
        let abandoned: Vec<u64> = sessions.take_abandoned().iter().map(|it| it.connection).collect();
        assert_eq!(abandoned, [1]);
        assert!(sessions.take_abandoned().is_empty());
    }

    #[tokio::test]
    async fn one_that_was_replaced_takes_nobody_with_it() {
        let sessions = Arc::new(Sessions::default());
        let older = sit(&sessions, 1);
        let newer = sit(&sessions, 2);
        drop(older);
        assert!(sessions.holds(&newer));
        newer.leave();
        assert_eq!(
            sessions.take_abandoned().len(),
            1,
            "only the first went without a goodbye"
        );
    }
}
