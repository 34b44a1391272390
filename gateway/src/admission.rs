//! Who may come in now. When a gateway dies, its clients come to the others all at once; a hello costs Postgres and
//! JetStream something, so a bounded number is worked on, some wait, and the rest is told at once when to come back,
//! each at a moment of its own, as far apart as they can be served. Whoever would wait for longer than a client's
//! patience is not let in to wait: what is done for somebody who has given up is done in vain, and then everybody gives up.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Hellos worked on at once. Each waits for Postgres, where a process has 8 connections, or for JetStream, which
/// answers in a few milliseconds: more at once would only be slower each.
pub(crate) const HELLOS_MAX: usize = 32;
/// The longest wait that is expected of anybody. Clients give up after 10 s, connecting and the work itself included, and
/// the expectation is a guess.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// Nobody waits longer than this, whatever was expected: Postgres or JetStream stands still.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sockets that wait; each holds some 20 KB. Reached only where a hello takes less than 48 ms.
const WAITING_MAX: usize = 2_000;
/// Nobody is sent away for longer than this: what is slow now may be fast soon.
const AWAY_MAX: Duration = Duration::from_secs(15);
/// How long a hello takes, as long as nobody knows.
const WORK_GUESS: Duration = Duration::from_millis(20);
/// Beyond this the time of one hello tells nothing more about the next ones: something stands still.
const WORK_MAX: Duration = Duration::from_secs(2);
/// Of how many hellos the average is taken, about.
const WORK_WEIGHT: u32 = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    queue: Mutex<Queue>,
}

/// The right to be worked on, until this is dropped.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    admission: &'a Admission,
    since: Instant,
    _place: OwnedSemaphorePermit,
}

/// Too many are here. The time after which there will be room.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) retry_after: Duration,
}

/// Counts somebody who waits.
struct Waiting<'a>(&'a Admission);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().waiting -= 1;
    }
}

impl Admission {
    pub(crate) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(HELLOS_MAX)),
            queue: Mutex::new(Queue::new(Instant::now())),
        }
    }

    /// Waits for a place, unless too many wait. Whoever drops this waits no more.
    pub(crate) async fn enter(&self) -> Result<Admitted<'_>, Full> {
        // A place that is free is nobody's who waits: those get theirs at once.
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(self.admitted(place));
        }
        self.queue.lock().join(Instant::now())?;
        let waiting = Waiting(self);
        let place = tokio::time::timeout(PATIENCE, self.places.clone().acquire_owned()).await;
        drop(waiting);
        match place {
            Ok(place) => Ok(self.admitted(place.expect("it is never closed"))),
            Err(_) => Err(self.queue.lock().book(Instant::now())),
        }
    }

    fn admitted(&self, place: OwnedSemaphorePermit) -> Admitted<'_> {
        Admitted {
            admission: self,
            since: Instant::now(),
            _place: place,
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().waiting
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.queue.lock().worked(self.since.elapsed());
    }
}

/// What is known of those who wait and of those who were sent away. Pure.
#[derive(Debug)]
struct Queue {
    waiting: usize,
    /// How long a hello takes, on average.
    work: Duration,
    /// Up to when those who were sent away have been told to come back.
    booked: Instant,
}

impl Queue {
    const fn new(now: Instant) -> Self {
        Self {
            waiting: 0,
            work: WORK_GUESS,
            booked: now,
        }
    }

    /// One more waits, or must come back later.
    fn join(&mut self, now: Instant) -> Result<(), Full> {
        if self.waiting >= WAITING_MAX || self.wait() > WAIT_MAX {
            return Err(self.book(now));
        }
        self.waiting += 1;
        Ok(())
    }

    /// The next free moment behind those who wait and those who have been sent away before.
    fn book(&mut self, now: Instant) -> Full {
        let latest = now + AWAY_MAX;
        let moment = self.booked.max(now + self.wait()) + self.pace();
        if moment <= latest {
            self.booked = moment;
            return Full {
                retry_after: moment - now,
            };
        }
        // There is no free moment soon enough: then at any, rather than all at the last.
        Full {
            retry_after: AWAY_MAX.mul_f64(rand::random_range(0.5..=1.0)),
        }
    }

    /// How long somebody who comes now would wait.
    fn wait(&self) -> Duration {
        self.pace().saturating_mul(self.waiting as u32)
    }

    /// The time between two hellos that are done.
    fn pace(&self) -> Duration {
        self.work / HELLOS_MAX as u32
    }

    /// A hello took so long.
    fn worked(&mut self, took: Duration) {
        self.work = (self.work * (WORK_WEIGHT - 1) + took.min(WORK_MAX)) / WORK_WEIGHT;
    }
}

#[cfg(test)]
mod tests {
    use futures::future::poll_immediate;
    use std::pin::pin;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn queue(waiting: usize, work: Duration) -> (Queue, Instant) {
        let now = Instant::now();
        let queue = Queue {
            waiting,
            work,
            booked: now,
        };
        (queue, now)
    }

    #[test]
    fn nobody_waits_whose_patience_would_not_suffice() {
        // 32 at once of 320 ms each are one in 10 ms: 300 take 3 s.
        let (mut queue, now) = queue(300, 320 * MILLISECOND);
        assert_eq!(queue.join(now), Ok(()));
        let retry_after = 3_020 * MILLISECOND;
        assert_eq!(queue.join(now), Err(Full { retry_after }));
        assert_eq!(queue.waiting, 301);
    }

    #[test]
    fn those_who_are_sent_away_come_back_one_after_the_other() {
        let (mut queue, now) = queue(301, 320 * MILLISECOND);
        let away: Vec<_> = (0..3).map(|_| queue.book(now).retry_after.as_millis()).collect();
        assert_eq!(away, [3_020, 3_030, 3_040]);
        // A second later those who wait are fewer, and what was booked stays booked.
        queue.waiting = 200;
        let later = now + 1_000 * MILLISECOND;
        assert_eq!(queue.book(later).retry_after, 2_050 * MILLISECOND);
        // When all that has gone by, it begins anew.
        let later = now + 60_000 * MILLISECOND;
        assert_eq!(queue.book(later).retry_after, 2_010 * MILLISECOND);
    }

    #[test]
    fn nobody_is_sent_away_for_ever() {
        let (mut queue, now) = queue(WAITING_MAX, WORK_MAX);
        for _ in 0..10_000 {
            let Full { retry_after } = queue.book(now);
            assert!(
                (AWAY_MAX / 2..=AWAY_MAX).contains(&retry_after),
                "{retry_after:?}"
            );
        }
    }

    #[test]
    fn what_stands_still_is_forgotten_soon() {
        let (mut queue, _) = queue(0, 10 * MILLISECOND);
        for _ in 0..100 {
            queue.worked(Duration::from_mins(1));
        }
        assert!((1_900 * MILLISECOND..=WORK_MAX).contains(&queue.work));
        for _ in 0..100 {
            queue.worked(10 * MILLISECOND);
        }
        assert!(queue.work < 20 * MILLISECOND);
    }

    #[tokio::test]
    async fn places_are_given_back_and_those_who_go_wait_no_more() {
        let admission = Admission::new();
        let mut places = Vec::new();
        for _ in 0..HELLOS_MAX {
            places.push(admission.enter().await.expect("there is room"));
        }
        {
            let mut gone = pin!(admission.enter());
            assert!(poll_immediate(gone.as_mut()).await.is_none());
            assert_eq!(admission.waiting(), 1);
        }
        assert_eq!(admission.waiting(), 0);
        let mut next = pin!(admission.enter());
        assert!(poll_immediate(next.as_mut()).await.is_none());
        places.pop();
        let _next = next.await.expect("a place is free");
        assert_eq!(admission.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_in_vain_is_sent_away() {
        let admission = Admission::new();
        let mut places = Vec::new();
        for _ in 0..HELLOS_MAX {
            places.push(admission.enter().await.expect("there is room"));
        }
        let full = admission.enter().await.expect_err("nobody is done");
        assert!(full.retry_after <= AWAY_MAX);
        assert_eq!(admission.waiting(), 0);
    }
}
