//! Rounds: what may wait for a moment is done together.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Lets everybody go on who has come within some time, or as soon as they are many.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// Who comes first waits so long.
    length: Duration,
    /// So many do not wait any longer.
    most: usize,
    /// The round that one can still come to.
    open: Mutex<Option<Round>>,
}

#[derive(Clone, Debug)]
struct Round {
    ends: Instant,
    waiting: usize,
    full: CancellationToken,
}

impl Rounds {
    pub(crate) const fn new(length: Duration, most: usize) -> Self {
        Self {
            length,
            most,
            open: Mutex::new(None),
        }
    }

    /// Waits for the end of the round: the length at most.
    pub(crate) async fn next(&self) {
        let Round { ends, full, .. } = self.come();
        // Whether it was full or its time was over is all the same.
        let _ = timeout_at(ends, full.cancelled()).await;
    }

    fn come(&self) -> Round {
        let now = Instant::now();
        let mut open = self.open.lock().expect("nobody panics with it");
        let round = open.take().filter(|round| round.ends > now);
        let mut round = round.unwrap_or_else(|| Round {
            ends: now + self.length,
            waiting: 0,
            full: CancellationToken::new(),
        });
        round.waiting += 1;
        if round.waiting >= self.most {
            round.full.cancel();
        } else {
            *open = Some(round.clone());
        }
        round
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    const LENGTH: Duration = Duration::from_millis(100);

    /// How long each waits who comes so long after the first, in milliseconds.
    async fn waits(rounds: &Rounds, after: &[u64]) -> Vec<u128> {
        join_all(after.iter().map(|after| async {
            tokio::time::sleep(Duration::from_millis(*after)).await;
            let came = Instant::now();
            rounds.next().await;
            came.elapsed().as_millis()
        }))
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_ends_for_all_when_it_is_over_for_the_first() {
        let rounds = Rounds::new(LENGTH, 10);
        assert_eq!(
            waits(&rounds, &[0, 30, 99, 100, 150]).await,
            [100, 70, 1, 100, 50]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_that_is_full_ends_at_once() {
        let rounds = Rounds::new(LENGTH, 3);
        assert_eq!(waits(&rounds, &[0, 10, 20, 30, 40]).await, [20, 10, 0, 100, 90]);
    }
}
