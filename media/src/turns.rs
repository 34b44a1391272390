//! One request at a time writes an upload: a newer one stops an older that has fallen silent, and waits until it has put
//! down what it had.
//!
//! A client that lost its connection comes back long before the server notices, so an older request from which nothing
//! comes any more is one that nobody waits for. One from which bytes come is somebody's, perhaps another device's with the
//! same file: if the newest always had the turn, two slow devices would stop each other until the slot has no tries left.
//! Among processes the same is done by fences in Postgres and the store's own locks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_protocol::AttachmentId;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// For an older request to end: it may be in the middle of making 64 MiB durable.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so long without a byte somebody else may have the turn. Longer than links stand still while they carry
/// something, shorter than people wait.
const SILENCE: Duration = Duration::from_secs(1);

/// The turns of one process.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<AttachmentId, Requests>>);

/// The requests for one upload.
#[derive(Debug)]
struct Requests {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// The one whose turn it is.
    holder: Option<Arc<Holder>>,
    /// Ends the waiting of the newest.
    waiting: CancellationToken,
    /// Requests that have or await the turn.
    count: usize,
}

/// A request whose turn it is.
#[derive(Debug)]
struct Holder {
    heard: Mutex<Instant>,
    superseded: CancellationToken,
}

/// The right to write an upload, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    holder: Arc<Holder>,
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
    /// Takes the turn once nobody has it, or from whoever has fallen silent. None where that takes too long, or a still
    /// newer request came.
    pub(crate) async fn take(self: &Arc<Self>, attachment_id: AttachmentId) -> Option<Turn> {
        let (ticket, lock, given_up) = self.draw(attachment_id);
        let deadline = Instant::now() + PATIENCE;
        let mut locking = std::pin::pin!(lock.lock_owned());
        let lock = loop {
            let silent = self.stop_silent(attachment_id);
            tokio::select! {
                biased;
                lock = &mut locking => break lock,
                () = given_up.cancelled() => return None,
                () = tokio::time::sleep_until(deadline) => return None,
                () = tokio::time::sleep_until(silent) => {}
            }
        };
        let holder = Arc::new(Holder {
            heard: Mutex::new(Instant::now()),
            superseded: CancellationToken::new(),
        });
        if let Some(requests) = self.0.lock().get_mut(&attachment_id) {
            requests.holder = Some(Arc::clone(&holder));
        }
        Some(Turn {
            holder,
            _lock: lock,
            _ticket: ticket,
        })
    }

    fn draw(
        self: &Arc<Self>,
        attachment_id: AttachmentId,
    ) -> (Ticket, Arc<tokio::sync::Mutex<()>>, CancellationToken) {
        let given_up = CancellationToken::new();
        let mut turns = self.0.lock();
        let requests = turns.entry(attachment_id).or_insert_with(|| Requests {
            lock: Arc::default(),
            holder: None,
            waiting: given_up.clone(),
            count: 0,
        });
        requests.count += 1;
        if requests.count > 1 {
            std::mem::replace(&mut requests.waiting, given_up.clone()).cancel();
        }
        let ticket = Ticket {
            turns: self.clone(),
            attachment_id,
        };
        (ticket, requests.lock.clone(), given_up)
    }

    /// Stops whoever has the turn if nothing comes from there any more. When to look again.
    fn stop_silent(&self, attachment_id: AttachmentId) -> Instant {
        let again = Instant::now() + SILENCE;
        let turns = self.0.lock();
        let Some(holder) = turns
            .get(&attachment_id)
            .and_then(|requests| requests.holder.as_ref())
        else {
            return again;
        };
        let silent = *holder.heard.lock() + SILENCE;
        if silent > Instant::now() {
            return silent;
        }
        holder.superseded.cancel();
        again
    }
}

impl Turn {
    /// Cancelled when it is another's turn.
    pub(crate) fn superseded(&self) -> CancellationToken {
        self.holder.superseded.clone()
    }

    /// Something came: there is somebody.
    pub(crate) fn heard(&self) {
        *self.holder.heard.lock() = Instant::now();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock();
        if let Some(requests) = turns.get_mut(&self.attachment_id) {
            requests.count -= 1;
            if requests.count == 0 {
                turns.remove(&self.attachment_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_newest_request_has_the_turn_of_a_silent_one() {
        let turns = Arc::new(Turns::default());
        let id = AttachmentId(uuid::Uuid::from_u128(1));
        let first = turns.take(id).await.expect("nobody has it");
        let wait = || {
            let turns = turns.clone();
            tokio::spawn(async move { turns.take(id).await })
        };
        let second = wait();
        first.superseded().cancelled().await;
        let third = wait();
        assert!(second.await.expect("no panic").is_none(), "a newer one came");
        drop(first);
        let third = third.await.expect("no panic").expect("the first has ended");
        assert!(!third.superseded().is_cancelled());
        assert!(turns.take(id).await.is_none(), "it does not end");
        assert!(third.superseded().is_cancelled());
        drop(third);
        assert!(turns.0.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_heard_keeps_the_turn() {
        let turns = Arc::new(Turns::default());
        let id = AttachmentId(uuid::Uuid::from_u128(1));
        let first = turns.take(id).await.expect("nobody has it");
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(id).await }
        });
        while !second.is_finished() {
            first.heard();
            tokio::time::sleep(SILENCE / 2).await;
        }
        assert!(second.await.expect("no panic").is_none(), "it has not ended");
        assert!(!first.superseded().is_cancelled());
    }
}
