//! How events are tried that may have killed a worker: with a mark outside of the process, that outlives it.
//!
//! An event that kills its process takes the whole process with it, so nobody is left to count. Therefore whoever takes a
//! partition over tries what was delivered before, and only that, under a mark in the bucket TRIALS. A mark whose worker
//! is gone counts as a death of that event; five in a row condemn it. Whatever lives through its trial is innocent,
//! and its count begins anew.
//!
//! Workers are also killed from outside, again and again, and that must condemn nobody. A trial is therefore short,
//! whatever the weather: who has lived for [`TRIAL`] has passed, and works on without a mark. And the more deaths an event is
//! charged with, the less can be there by chance: first it is tried beside others, then as the only one, then while the
//! whole worker does nothing else; and ever later after the take-over, so that deaths that come with take-overs
//! themselves hit nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidings_nats::{ApiError, Bus, Partition};
use tidings_service::{Context, LivingWatch, Tasks};
use tokio::sync::{RwLock, RwLockWriteGuard, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fan_out::Outcome;
use crate::partition_trials::Suspects;

/// So many workers in a row must die of an event before it is given up.
const DEATHS_MAX: u32 = 5;
/// Who is tried for so long has passed. Decoding and preparing an event takes a millisecond; what kills
/// by eating all memory takes longer.
const TRIAL: Duration = Duration::from_secs(1);
/// Events that nobody has died of yet are tried side by side. In bad weather each takes the whole time of a trial: 500 of them
/// 16 s, during which their chats alone wait.
const SIDE_BY_SIDE_MAX: u32 = 32;
/// From so many deaths on, nothing else is done meanwhile.
const QUIET_FROM: u32 = 2;
/// For what runs when everything else is to be quiet. What has not killed within this has passed.
const QUIET_WAIT: Duration = Duration::from_secs(1);
/// Before the second trial; doubles each time.
const DELAY: Duration = Duration::from_secs(1);
/// The key of a worker that lives comes back within this after NATS was away.
const ALIVE_AGAIN: Duration = Duration::from_secs(3);
/// The key of a worker that is dead is gone after this; the server drops it after 10 s.
const GONE: Duration = Duration::from_secs(13);
/// Between looks whether a worker is gone, and between tries to write.
const INTERVAL: Duration = Duration::from_millis(250);

/// See the module. One for the whole worker.
#[derive(Debug)]
pub(crate) struct Trials {
    bus: Bus,
    tasks: Tasks,
    /// Cancelled when the worker has drained.
    ended: CancellationToken,
    worker: String,
    workers: LivingWatch,
    turns: Semaphore,
    /// Read by whoever begins a try, held for writing by whoever must be alone.
    quiet: RwLock<()>,
    /// Tries that are under way, outside of trials.
    running: AtomicUsize,
}

/// An event of which so many workers have died that no other shall.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Condemned {
    pub(crate) deaths: u32,
}

/// A try of an event that is not on trial.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Trials {
    /// `workers` are the fan-out workers that live.
    pub(crate) fn new(context: &Context, workers: LivingWatch, ended: CancellationToken) -> Self {
        Self {
            bus: context.bus.clone(),
            tasks: context.tasks.clone(),
            ended,
            worker: context.boot_id.to_string(),
            workers,
            turns: Semaphore::new(SIDE_BY_SIDE_MAX as usize),
            quiet: RwLock::default(),
            running: AtomicUsize::default(),
        }
    }

    /// Looks up which events of a partition are suspect, after this worker was pinned and before it resets the consumer.
    pub(crate) async fn survey(&self, partition: Partition) -> Result<Suspects, ApiError> {
        Suspects::survey(self.bus.clone(), partition, self.worker.clone()).await
    }

    /// To be held during each try of an event that is not on trial. Waits while one must be alone.
    pub(crate) async fn running(&self) -> Running<'_> {
        drop(self.quiet.read().await);
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(&self.running)
    }

    /// Does the work on a suspect, the beginning of it under a mark. None of it is done if too many have died of it.
    pub(crate) async fn run(
        &self,
        suspects: &Arc<Suspects>,
        sequence: u64,
        cancelled: &CancellationToken,
        work: impl Future<Output = Outcome>,
    ) -> Result<Outcome, Condemned> {
        let prepared = cancelled.run_until_cancelled(async {
            self.settle(suspects, sequence).await;
            let deaths = suspects.deaths(sequence);
            if deaths < DEATHS_MAX {
                tokio::time::sleep(delay(deaths)).await;
            }
            let turns = if deaths == 0 { 1 } else { SIDE_BY_SIDE_MAX };
            let turn = self.turns.acquire_many(turns).await;
            (deaths, turn.expect("the semaphore is never closed"))
        });
        let Some((deaths, turn)) = prepared.await else {
            return Ok(Outcome::Abandoned);
        };
        if deaths >= DEATHS_MAX {
            return Err(Condemned { deaths });
        }
        let quiet = if deaths >= QUIET_FROM {
            Some(self.silence().await)
        } else {
            None
        };
        suspects.mark(sequence);
        let marked = cancelled.run_until_cancelled(saved(suspects));
        if marked.await.is_none() {
            suspects.unmark(sequence);
            self.save_later(suspects);
            return Ok(Outcome::Abandoned);
        }
        metrics::counter!("tidings_fanout_trials_total").increment(1);
        if deaths > 0 {
            tracing::warn!(
                stream.sequence = sequence,
                deaths,
                "an event is tried alone: workers have died while they worked on it"
            );
        }
        let mut work = std::pin::pin!(work);
        let early = tokio::time::timeout(TRIAL, &mut work).await;
        drop((turn, quiet));
        if early == Ok(Outcome::Abandoned) {
            suspects.unmark(sequence);
        } else {
            suspects.acquit(sequence);
        }
        self.save_later(suspects);
        match early {
            Ok(outcome) => Ok(outcome),
            Err(_) => Ok(work.await),
        }
    }

    /// The event is gone for good.
    pub(crate) fn close(&self, suspects: &Arc<Suspects>, sequence: u64) {
        suspects.acquit(sequence);
        self.save_later(suspects);
    }

    /// Waits until it is known whether the worker that tried an event last has died. One that lives, and was only
    /// interrupted, has not died of it.
    async fn settle(&self, suspects: &Suspects, sequence: u64) {
        while let Some(worker) = suspects.left_by(sequence) {
            let living = self.workers.now();
            let alive = living
                .instances
                .keys()
                .any(|boot_id| boot_id.to_string() == worker);
            let since = living.as_of.saturating_duration_since(suspects.surveyed);
            if (alive && since >= GONE) || (!alive && since >= ALIVE_AGAIN) {
                if !alive {
                    metrics::counter!("tidings_fanout_deaths_total").increment(1);
                }
                suspects.settle(sequence, !alive);
                return;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Has everything else wait that has not begun, and waits for what has.
    async fn silence(&self) -> RwLockWriteGuard<'_, ()> {
        let quiet = self.quiet.write().await;
        let began = Instant::now();
        while self.running.load(Ordering::Relaxed) > 0 && began.elapsed() < QUIET_WAIT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        quiet
    }

    /// Nobody waits for it: until it is written, a death of this worker from outside is one too many.
    fn save_later(&self, suspects: &Arc<Suspects>) {
        let (suspects, ended) = (suspects.clone(), self.ended.clone());
        self.tasks.spawn(async move {
            if ended.run_until_cancelled(saved(&suspects)).await.is_none()
                && let Err(error) = suspects.save().await
            {
                tracing::debug!(%error, "trials were not written down before the end");
            }
        });
    }
}

/// Writes until it is written.
async fn saved(suspects: &Suspects) {
    while let Err(error) = suspects.save().await {
        tracing::debug!(%error, "trials were not written down; trying again");
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Before a trial, since the take-over.
fn delay(deaths: u32) -> Duration {
    match deaths {
        0 => Duration::ZERO,
        deaths => (DELAY * 2_u32.pow((deaths - 1).min(4))).mul_f64(0.5 + rand::random::<f64>() / 2.0),
    }
}
