//! Reads INVALIDATIONS in order and tells caches what to forget, never missing something silently.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use futures::{Stream, StreamExt as _};
use serde::Deserialize;
use tidings_nats::{Bus, INVALIDATIONS, Invalidation};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::context::Context;
use crate::nats_connection::NatsConnection;

/// How often the stream is asked how far it is: a consumer that fell silent is noticed after two of these.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A question that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Between tries to read on.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// What a cache must forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    /// Everything: something was missed.
    Everything,
    /// What this is about.
    One(Invalidation),
}

/// How far the caches are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Everything up to this stream sequence has been told to the caches.
    pub sequence: u64,
    /// When that was last known to be all there is.
    pub complete_at: Instant,
}

/// The reader of a process; its task ends with the service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Invalidations {
    applied: watch::Receiver<Applied>,
}

impl Invalidations {
    /// Reads on from what the stream holds now, since caches are empty at the start: load nothing into them
    /// before this has returned. Fails when the stream cannot be asked.
    ///
    /// `forget` is called in the order of the stream and must be quick; when [`Invalidations::applied`] has a
    /// sequence, `forget` has returned for everything up to it.
    pub async fn start(
        context: &Context,
        forget: impl FnMut(Forget) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let bounds = bounds(&context.bus).await?;
        let mut applier = Applier::new(bounds, forget);
        let reader = Self {
            applied: applier.applied.subscribe(),
        };
        let (bus, nats, ended) = (context.bus.clone(), context.nats.clone(), context.ended.clone());
        // Without this task caches would grow stale unnoticed: its panic stops the service.
        context.tasks.spawn_essential("invalidations", async move {
            ended.run_until_cancelled(read(&bus, &nats, &mut applier)).await;
            Ok(())
        });
        Ok(reader)
    }

    /// How far the caches are, now and later.
    pub fn subscribe(&self) -> watch::Receiver<Applied> {
        self.applied.clone()
    }

    /// How far the caches are.
    pub fn applied(&self) -> Applied {
        *self.applied.borrow()
    }
}

/// Where the stream begins and ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize)]
struct Bounds {
    #[serde(rename = "first_seq")]
    first: u64,
    #[serde(rename = "last_seq")]
    last: u64,
}

/// Asks the stream's leader.
async fn bounds(bus: &Bus) -> anyhow::Result<Bounds> {
    #[derive(Deserialize)]
    struct Info {
        state: Bounds,
    }
    let info: Info = bus
        .api(
            &format!("STREAM.INFO.{INVALIDATIONS}"),
            &serde_json::json!({}),
            TIMEOUT,
        )
        .await
        .with_context(|| format!("cannot ask the stream {INVALIDATIONS}"))?;
    Ok(info.state)
}

/// What the stream holds at each check, and when it was asked.
fn checks(bus: &Bus) -> impl Stream<Item = (Instant, anyhow::Result<Bounds>)> {
    futures::stream::unfold(bus.clone(), |bus| async move {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let asked = Instant::now();
        let bounds = bounds(&bus).await;
        Some(((asked, bounds), bus))
    })
}

async fn read<F: FnMut(Forget)>(bus: &Bus, nats: &NatsConnection, applier: &mut Applier<F>) {
    loop {
        match follow(bus, nats, applier).await {
            Ok(reason) => tracing::debug!(reason, "reading invalidations anew"),
            Err(error) => {
                tracing::warn!("invalidations cannot be read: {error:#}; trying again");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

/// Reads until it is better to begin again, and says why.
async fn follow<F: FnMut(Forget)>(
    bus: &Bus,
    nats: &NatsConnection,
    applier: &mut Applier<F>,
) -> anyhow::Result<&'static str> {
    let mut connection = nats.state();
    let connects = connection.borrow_and_update().connects;
    applier.resume(bounds(bus).await?);
    let mut messages = std::pin::pin!(messages(bus, applier.sequence() + 1).await?);
    let mut checks = std::pin::pin!(checks(bus));
    // What the stream had at the last check and we had not.
    let mut expected = 0;
    loop {
        tokio::select! {
            message = messages.next() => {
                let message = message.context("the consumer ended")??;
                let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
                applier.message(info.stream_sequence, &message.payload);
            }
            Some((asked, bounds)) = checks.next() => {
                if applier.sequence() < expected {
                    return Ok("the consumer is silent");
                }
                let last = bounds?.last;
                applier.check(last, asked);
                expected = last;
            }
            changed = connection.changed() => {
                changed.context("the connection is gone")?;
                if connection.borrow_and_update().connects != connects {
                    return Ok("NATS was reconnected");
                }
            }
        }
    }
}

async fn messages(bus: &Bus, start_sequence: u64) -> anyhow::Result<push::Ordered> {
    let stream = bus.jetstream().get_stream_no_info(INVALIDATIONS).await?;
    let config = push::OrderedConfig {
        deliver_subject: bus.client().new_inbox(),
        description: Some("a reader's place in the invalidations".to_owned()),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
        ..push::OrderedConfig::default()
    };
    let consumer = tokio::time::timeout(TIMEOUT, stream.create_consumer(config))
        .await
        .context("no answer to the creation of a consumer")??;
    Ok(consumer.messages().await?)
}

/// What is to be forgotten, given what comes from the stream. Pure but for the call.
struct Applier<F> {
    forget: F,
    applied: watch::Sender<Applied>,
}

impl<F: FnMut(Forget)> Applier<F> {
    fn new(bounds: Bounds, forget: F) -> Self {
        let (applied, _) = watch::channel(Applied {
            sequence: bounds.last,
            complete_at: Instant::now(),
        });
        Self { forget, applied }
    }

    fn sequence(&self) -> u64 {
        self.applied.borrow().sequence
    }

    /// Before reading on: what was removed unread was missed, and so was everything if the stream is another one.
    fn resume(&mut self, bounds: Bounds) {
        let next = self.sequence() + 1;
        if bounds.first > next || bounds.last + 1 < next {
            self.missed(bounds.last);
        }
    }

    fn message(&mut self, sequence: u64, payload: &[u8]) {
        let next = self.sequence() + 1;
        if sequence < next {
            return;
        }
        if sequence > next {
            // Nothing is ever deleted from the middle of this stream.
            return self.missed(sequence);
        }
        match Invalidation::decode(payload) {
            Ok(invalidation) => {
                (self.forget)(Forget::One(invalidation));
                self.apply(sequence);
            }
            Err(error) => {
                // A newer version may say what this one cannot read; whatever it is, it is forgotten.
                tracing::warn!(%error, stream.sequence = sequence, "an invalidation cannot be read");
                self.missed(sequence);
            }
        }
    }

    /// At the moment `asked` the stream ended at `last`.
    fn check(&mut self, last: u64, asked: Instant) {
        self.applied.send_if_modified(|applied| {
            if applied.sequence >= last {
                applied.complete_at = asked;
            }
            false
        });
    }

    fn missed(&mut self, sequence: u64) {
        metrics::counter!("tidings_invalidations_missed_total").increment(1);
        tracing::info!(
            stream.sequence = sequence,
            "invalidations were missed: caches are emptied"
        );
        (self.forget)(Forget::Everything);
        self.apply(sequence);
    }

    fn apply(&mut self, sequence: u64) {
        self.applied.send_modify(|applied| applied.sequence = sequence);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tidings_protocol::ChatId;
    use uuid::Uuid;

    use super::*;

    enum Step {
        Resume(u64, u64),
        Message(u64),
        Unreadable(u64),
    }
    use Step::{Message, Resume, Unreadable};

    fn invalidation(sequence: u64) -> Invalidation {
        Invalidation::Chat {
            chat_id: ChatId(Uuid::from_u128(u128::from(sequence))),
            version: sequence,
        }
    }

    /// What is forgotten by a reader that began at sequence 5, and how far it is then. 0 is everything.
    fn check(script: &[Step], expected: (&[u64], u64)) {
        let forgotten: Arc<Mutex<Vec<u64>>> = Arc::default();
        let log = forgotten.clone();
        let mut applier = Applier::new(Bounds { first: 1, last: 5 }, move |forget| {
            log.lock().push(match forget {
                Forget::Everything => 0,
                Forget::One(Invalidation::Chat { version, .. }) => version,
                Forget::One(Invalidation::User { .. }) => unreachable!("the script has chats only"),
            });
        });
        for step in script {
            match *step {
                Resume(first, last) => applier.resume(Bounds { first, last }),
                Message(sequence) => applier.message(sequence, &invalidation(sequence).encode()),
                Unreadable(sequence) => applier.message(sequence, &[255, 1, 2]),
            }
        }
        assert_eq!((forgotten.lock().as_slice(), applier.sequence()), expected);
    }

    #[test]
    fn everything_is_told_once_in_order() {
        check(&[], (&[], 5));
        check(
            &[Message(4), Message(5), Message(6), Message(6), Message(7)],
            (&[6, 7], 7),
        );
    }

    #[test]
    fn a_reconnect_in_time_misses_nothing() {
        check(&[Resume(1, 5), Message(6)], (&[6], 6));
        check(&[Resume(6, 9), Message(6), Message(7)], (&[6, 7], 7));
        // An empty stream begins after its end.
        check(&[Resume(6, 5), Message(6)], (&[6], 6));
    }

    #[test]
    fn what_was_removed_unread_was_missed() {
        check(&[Resume(7, 9), Message(10)], (&[0, 10], 10));
        check(&[Resume(8, 7), Message(8)], (&[0, 8], 8));
        check(&[Message(8), Message(9)], (&[0, 9], 9));
    }

    #[test]
    fn another_stream_is_another_story() {
        check(&[Resume(1, 2), Message(3)], (&[0, 3], 3));
        check(&[Resume(1, 0), Message(1)], (&[0, 1], 1));
    }

    #[test]
    fn what_cannot_be_read_makes_everything_forgotten() {
        check(&[Unreadable(6), Message(7)], (&[0, 7], 7));
    }
}
