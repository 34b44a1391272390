//! Tasks that somebody awaits: a service ends when its tasks have, and hears of those that panic.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of a service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    failure: Arc<Mutex<Option<String>>>,
}

impl Tasks {
    pub(crate) fn new(stopping: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stopping,
            failure: Arc::default(),
        }
    }

    /// Runs a task that the service can do without, such as that of one client. Its panic is logged by the
    /// process's hook and is nobody else's concern.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// Runs a task that the service cannot do without: when it fails or panics, the service stops and its process
    /// exits with an error, so that whoever supervises it starts it again. It should end soon after
    /// `context.stopping`; an `Ok` is never a failure.
    pub fn spawn_essential<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let tasks = self.clone();
        let task = tokio::spawn(self.tracker.track_future(task));
        self.tracker.spawn(async move {
            match task.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tasks.fail(format!("{name}: {error:#}")),
                Err(_) => tasks.fail(format!("{name}: panicked")),
            }
        });
    }

    /// Stops the service for a reason that makes its exit code one of failure. The first reason counts.
    pub fn fail(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(reason, "the service cannot go on and stops");
        self.failure.lock().get_or_insert(reason);
        self.stopping.cancel();
    }

    /// Why the service failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Ends when every task has.
    pub(crate) async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// How many tasks have not ended.
    pub(crate) fn remaining(&self) -> usize {
        self.tracker.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_essential_task_that_ends_badly_stops_the_service() {
        let tasks: [fn() -> anyhow::Result<()>; 2] = [|| panic!("on purpose"), || anyhow::bail!("broken")];
        for (task, reason) in tasks.into_iter().zip(["reader: panicked", "reader: broken"]) {
            let stopping = CancellationToken::new();
            let tasks = Tasks::new(stopping.clone());
            tasks.spawn_essential("reader", async move { task() });
            stopping.cancelled().await;
            tasks.finished().await;
            assert_eq!(tasks.failure().as_deref(), Some(reason));
        }
    }

    #[tokio::test]
    async fn other_tasks_end_as_they_like() {
        let stopping = CancellationToken::new();
        let tasks = Tasks::new(stopping.clone());
        tasks.spawn(async { panic!("on purpose") });
        tasks.spawn_essential("done", async { Ok(()) });
        tasks.finished().await;
        assert!(!stopping.is_cancelled() && tasks.failure().is_none());
    }
}
