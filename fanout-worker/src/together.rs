//! What several tasks want at the same moment is done by one of them.
//!
//! A request that a task sends wakes the connection's task, which runs next and writes it. So requests of twenty tasks leave in
//! twenty writes, and wake the server as often; twenty of one task leave in one.

use std::mem::take;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What is wanted, and who waits for what comes of it.
pub(crate) type Wanted<T, R> = Vec<(T, oneshot::Sender<R>)>;

/// Gathers what is wanted until everything has run that was to run at this moment.
#[derive(Debug)]
pub(crate) struct Together<T, R> {
    /// As many as wait in [`Self::run`].
    wanted: Mutex<Wanted<T, R>>,
}

impl<T, R> Together<T, R> {
    pub(crate) fn new() -> Self {
        Self {
            wanted: Mutex::new(Vec::new()),
        }
    }

    /// What comes of this, when it is done with that of the others, by the `work` of whoever came first, in a task of its own. None
    /// if he was ended before, or it says nothing of it. Must be polled until it ends: as long as who came first is not, the others
    /// wait for him.
    pub(crate) async fn run<W>(&self, wanted: T, work: impl FnOnce(Wanted<T, R>) -> W) -> Option<R>
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let first = {
            let mut gathered = self.wanted.lock();
            gathered.push((wanted, done));
            gathered.len() == 1
        };
        if first {
            let gathering = Gathering(Some(&self.wanted));
            tokio::task::yield_now().await;
            // It may last longer than this, which waits for its own result alone.
            tokio::spawn(work(gathering.end()));
        }
        result.await.ok()
    }
}

/// Somebody who will do what is gathered. If he is ended before, nobody waits for him any longer.
struct Gathering<'a, T, R>(Option<&'a Mutex<Wanted<T, R>>>);

impl<T, R> Gathering<'_, T, R> {
    fn end(mut self) -> Wanted<T, R> {
        self.0
            .take()
            .map(|wanted| take(&mut *wanted.lock()))
            .unwrap_or_default()
    }
}

impl<T, R> Drop for Gathering<'_, T, R> {
    fn drop(&mut self) {
        if let Some(wanted) = self.0 {
            wanted.lock().clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;
    use tokio::task::{JoinSet, yield_now};

    use super::*;

    type Batches = Arc<Mutex<Vec<usize>>>;

    async fn squares(together: &Together<u64, u64>, number: u64, batches: &Batches) -> Option<u64> {
        let batches = batches.clone();
        let work = async move |wanted: Wanted<u64, u64>| {
            batches.lock().push(wanted.len());
            for (number, done) in wanted {
                let _ = done.send(number * number);
            }
        };
        together.run(number, work).await
    }

    #[tokio::test]
    async fn whoever_is_woken_at_once_is_one_batch() {
        let (together, batches) = (Arc::new(Together::new()), Batches::default());
        let round = Arc::new(Notify::new());
        for expected in [vec![20], vec![20, 20]] {
            let mut tasks = JoinSet::new();
            for number in 0..20 {
                let (together, batches, round) = (together.clone(), batches.clone(), round.clone());
                tasks.spawn(async move {
                    round.notified().await;
                    assert_eq!(squares(&together, number, &batches).await, Some(number * number));
                });
            }
            yield_now().await;
            round.notify_waiters();
            while let Some(done) = tasks.join_next().await {
                done.expect("each hears of its own");
            }
            assert_eq!(*batches.lock(), expected);
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_who_was_ended() {
        let (together, batches) = (Arc::new(Together::new()), Batches::default());
        let spawn = |number| {
            let (together, batches) = (together.clone(), batches.clone());
            tokio::spawn(async move { squares(&together, number, &batches).await })
        };
        let (first, second) = (spawn(1), spawn(2));
        yield_now().await;
        first.abort();
        assert_eq!(second.await.expect("it was not ended"), None);
        assert_eq!(spawn(3).await.expect("it was not ended"), Some(9), "others go on");
        assert_eq!(*batches.lock(), [1]);
    }
}
