//! One request at a time writes an upload: a newer one stops the older, and waits until it has put down what it had.
//!
//! A client that lost its connection comes back long before the server notices, so the older request is the one
//! that nobody waits for. Among processes the same is done by fences in Postgres and the store's own locks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_protocol::AttachmentId;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

/// For an older request to end: it may be in the middle of making 64 MiB durable.
const PATIENCE: Duration = Duration::from_secs(10);

/// The turns of one process.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<AttachmentId, Latest>>);

#[derive(Debug)]
struct Latest {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// Of the newest request.
    superseded: CancellationToken,
    /// Requests that have or await the turn.
    requests: usize,
}

/// The right to write an upload, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Cancelled when a newer request wants it.
    pub(crate) superseded: CancellationToken,
    // Given back before the place in the map, so that nobody makes another lock meanwhile.
    _lock: OwnedMutexGuard<()>,
    _ticket: Ticket,
}

#[derive(Debug)]
struct Ticket {
    turns: Arc<Turns>,
    attachment_id: AttachmentId,
}

impl Turns {
    /// Takes the turn from whoever has it. None where that takes too long, or a still newer request came.
    pub(crate) async fn take(self: &Arc<Self>, attachment_id: AttachmentId) -> Option<Turn> {
        let superseded = CancellationToken::new();
        let (ticket, lock) = self.draw(attachment_id, &superseded);
        let lock = tokio::select! {
            lock = lock.lock_owned() => lock,
            () = superseded.cancelled() => return None,
            () = tokio::time::sleep(PATIENCE) => return None,
        };
        Some(Turn {
            superseded,
            _lock: lock,
            _ticket: ticket,
        })
    }

    fn draw(
        self: &Arc<Self>,
        attachment_id: AttachmentId,
        superseded: &CancellationToken,
    ) -> (Ticket, Arc<tokio::sync::Mutex<()>>) {
        let mut turns = self.0.lock();
        let latest = turns.entry(attachment_id).or_insert_with(|| Latest {
            lock: Arc::default(),
            superseded: superseded.clone(),
            requests: 0,
        });
        latest.requests += 1;
        if latest.requests > 1 {
            std::mem::replace(&mut latest.superseded, superseded.clone()).cancel();
        }
        let ticket = Ticket {
            turns: self.clone(),
            attachment_id,
        };
        (ticket, latest.lock.clone())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock();
        if let Some(latest) = turns.get_mut(&self.attachment_id) {
            latest.requests -= 1;
            if latest.requests == 0 {
                turns.remove(&self.attachment_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_newest_request_has_the_turn() {
        let turns = Arc::new(Turns::default());
        let id = AttachmentId(uuid::Uuid::from_u128(1));
        let first = turns.take(id).await.expect("nobody has it");
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(id).await }
        });
        first.superseded.cancelled().await;
        let third = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(id).await }
        });
        assert!(second.await.expect("no panic").is_none(), "a newer one came");
        drop(first);
        let third = third.await.expect("no panic").expect("the first has ended");
        assert!(!third.superseded.is_cancelled());
        assert!(turns.take(id).await.is_none(), "it does not end");
        assert!(third.superseded.is_cancelled());
        drop(third);
        assert!(turns.0.lock().is_empty());
    }
}
