//! Turns one event of a chat into one entry per client: stores them, then tells the gateways. Whoever takes events
//! directly is told before, and mostly it need not be stored for them at all.

mod attempt;
mod bodies;
mod direct;
mod entries;
mod giving_up;
mod incoming;
mod late_grant;
mod recipients;
#[cfg(test)]
mod sizes;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tidings_metadata::Metadata;
use tidings_nats::{Bus, Topology};
use tidings_service::{Kind, Span, TraceContext};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::attempt::Progress;
pub(crate) use self::attempt::Target;
use self::giving_up::forget_chat;
pub(crate) use self::incoming::Incoming;
pub(crate) use self::recipients::LOOK_UPS_MAX;
use crate::body_lists::BodyLists;
use crate::body_room::BodyRoom;
use crate::clients::Clients;
use crate::config::LargeBodyBytes;
use crate::deletions::Deletions;
use crate::horizon::Horizon;
use crate::live_lane::LiveLane;
use crate::overflow_marks::OverflowMarks;
use crate::participants::ParticipantsCache;
use crate::partition_trials::Suspects;
use crate::publish_permits::PublishPermits;
use crate::standing::Standing;
use crate::trials::{Condemned, Trials};
use crate::tries::{Failure, Tries};
use crate::waits::Waits;

/// Between looks at an event that this worker cannot read. It looks again only so that it can be cancelled in one way.
const NEWER_DELAY: Duration = Duration::from_mins(1);

/// How the work on an event ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that follows from it is stored or confirmed: it may be deleted from CHATS.
    Finished,
    /// It was cancelled, and must be worked on again.
    Abandoned,
}

/// What the work needs; shared by all partitions.
#[derive(Debug)]
pub(crate) struct FanOut {
    pub(crate) bus: Bus,
    pub(crate) topology: Topology,
    pub(crate) metadata: Metadata,
    pub(crate) clients: Clients,
    pub(crate) horizon: Arc<Horizon>,
    pub(crate) live: LiveLane,
    pub(crate) overflow: OverflowMarks,
    pub(crate) standing: Standing,
    pub(crate) deletions: Deletions,
    pub(crate) publishes: PublishPermits,
    /// For looking up who is in a chat.
    pub(crate) look_ups: Semaphore,
    pub(crate) trials: Trials,
    /// From which size on what several inboxes get is stored once.
    pub(crate) large_body_bytes: LargeBodyBytes,
    pub(crate) room: Arc<BodyRoom>,
    pub(crate) lists: BodyLists,
    /// Whether anybody is told of an event before it is stored.
    pub(crate) direct_delivery: bool,
    #[cfg(debug_assertions)]
    pub(crate) faults: crate::faults::Faults,
}

impl FanOut {
    /// Works on an event until it is done, however long that takes, or until it is cancelled. A suspect is tried
    /// first, and given up if too many have died of it. `told` is called where the next event of the chat need not wait
    /// for the end.
    pub(crate) async fn process(
        &self,
        incoming: &Incoming,
        participants: &ParticipantsCache,
        suspects: Option<&Arc<Suspects>>,
        cancelled: &CancellationToken,
        told: impl FnOnce(),
    ) -> Outcome {
        let sequence = incoming.sequence;
        let Some(suspects) = suspects.filter(|suspects| suspects.contains(sequence)) else {
            return self.work(incoming, participants, Some(told), cancelled).await;
        };
        // Boxed, since few events are tried and every one has room for this.
        let work = Box::pin(self.work(incoming, participants, None::<fn()>, cancelled));
        match Box::pin(self.trials.run(suspects, sequence, cancelled, work)).await {
            Ok(outcome) => outcome,
            Err(Condemned { deaths }) => {
                let reason = format!("{deaths} workers in a row died while they worked on it");
                let outcome = self.give_up(incoming, &reason, deaths, cancelled).await;
                if outcome == Outcome::Finished {
                    self.trials.close(suspects, sequence);
                    forget_chat(participants, incoming);
                }
                outcome
            }
        }
    }

    /// Without `told` the event is on trial: nobody is told of it before it is stored.
    async fn work(
        &self,
        incoming: &Incoming,
        participants: &ParticipantsCache,
        told: Option<impl FnOnce()>,
        cancelled: &CancellationToken,
    ) -> Outcome {
        let (held, is_held) = oneshot::channel();
        let mut progress = Progress {
            held: (told.is_some() && self.direct_delivery).then_some(held),
            on_trial: told.is_none(),
            cancelled: cancelled.clone(),
            ..Progress::default()
        };
        let store = async move {
            let outcome = self.store(incoming, participants, &mut progress, cancelled).await;
            if let Some(told) = told
                && outcome == Outcome::Finished
                && !progress.told.is_empty()
            {
                told();
            }
            (outcome, progress.large)
        };
        // Beside the other: one who was told may need it stored while a stream for others does not answer.
        let wait = async {
            let Ok(hold) = is_held.await else {
                return (Outcome::Finished, None);
            };
            let outcome = self
                .wait_for_answers(incoming, participants, &hold, cancelled)
                .await;
            (outcome, Some(hold))
        };
        let ((stored, large), (answered, hold)) = tokio::join!(store, wait);
        let outcome = match (stored, answered) {
            (Outcome::Finished, Outcome::Finished) => Outcome::Finished,
            _ => Outcome::Abandoned,
        };
        if let Some(hold) = hold {
            let finished = outcome == Outcome::Finished;
            self.live.holds.release(hold.sequence, finished);
        }
        if let Some(large) = large {
            // Boxed, since few events are large and every one has room for this.
            Box::pin(self.close_body(incoming, &large, cancelled)).await;
        }
        outcome
    }

    /// Stores it for all who are not told directly.
    async fn store(
        &self,
        incoming: &Incoming,
        participants: &ParticipantsCache,
        progress: &mut Progress,
        cancelled: &CancellationToken,
    ) -> Outcome {
        let started = Instant::now();
        let mut span = traced(incoming);
        progress.trace = onward(incoming, span.as_ref());
        let mut tries = Tries::default();
        let mut waits = Waits::default();
        while !cancelled.is_cancelled() {
            let running = if progress.on_trial {
                None
            } else {
                Some(self.trials.running().await)
            };
            let tried = AssertUnwindSafe(self.attempt(incoming, participants, progress))
                .catch_unwind()
                .await;
            drop(running);
            let reason = match tries.judge(tried) {
                Ok(kind) => {
                    metrics::counter!("tidings_fanout_events_total", "kind" => kind).increment(1);
                    metrics::histogram!("tidings_fanout_seconds").record(started.elapsed().as_secs_f64());
                    metrics::histogram!("tidings_fanout_lag_seconds").record(incoming.age_seconds());
                    let recipients = progress.stored.len() + progress.told.len();
                    metrics::histogram!("tidings_fanout_recipients").record(recipients as f64);
                    tracing::trace!(
                        stream.sequence = incoming.sequence,
                        kind,
                        tries = tries.count(),
                        stored = ?progress.stored,
                        told = ?progress.told,
                        "an event is fanned out"
                    );
                    if let Some(span) = &mut span {
                        span.set("recipients", recipients as i64);
                        span.set("tries", i64::from(tries.count()));
                    }
                    return Outcome::Finished;
                }
                Err(Failure::Weather(reason)) => {
                    waits.wait_for("weather");
                    reason
                }
                Err(Failure::Newer(reason)) => {
                    if waits.wait_for("newer_worker") {
                        tracing::error!(
                            stream.sequence = incoming.sequence,
                            subject = incoming.subject,
                            reason,
                            "an event waits for a newer fan-out worker, and its chat with it"
                        );
                    }
                    // It may take a day, and nothing here can change meanwhile.
                    cancelled
                        .run_until_cancelled(tokio::time::sleep(NEWER_DELAY))
                        .await;
                    continue;
                }
                Err(Failure::Poison(reason)) => {
                    // Boxed, since hardly any event needs it and every one has room for this.
                    match Box::pin(self.bury(incoming, &reason, tries.count())).await {
                        Ok(()) => {
                            if let Some(span) = &mut span {
                                span.fail("a dead letter");
                            }
                            forget_chat(participants, incoming);
                            return Outcome::Finished;
                        }
                        Err(error) => format!("{reason}; and the dead letter was not stored: {error}"),
                    }
                }
            };
            wait_to_try_again(incoming, &tries, &reason, cancelled).await;
        }
        if let Some(span) = &mut span {
            span.fail("abandoned: it is worked on again");
        }
        Outcome::Abandoned
    }
}

/// Says that an event waits, where a person should hear of it, and waits.
async fn wait_to_try_again(incoming: &Incoming, tries: &Tries, reason: &str, cancelled: &CancellationToken) {
    metrics::counter!("tidings_fanout_retries_total").increment(1);
    if tries.is_news() {
        tracing::warn!(
            stream.sequence = incoming.sequence,
            subject = incoming.subject,
            tries = tries.count(),
            reason,
            "an event waits"
        );
    }
    cancelled
        .run_until_cancelled(tokio::time::sleep(tries.delay()))
        .await;
}

/// The span of an event that is traced, from the beginning of the work on it to its end.
fn traced(incoming: &Incoming) -> Option<Span> {
    let before = TraceContext::of(Some(&incoming.headers))?;
    let mut span = Span::child(before, "fan out", Kind::Consumer)?;
    span.set("stream.sequence", incoming.sequence as i64);
    span.set("partition", i64::from(incoming.lane.partition.0));
    Some(span)
}

/// What goes with its entries: that span or, where this process sends none, what came before it.
fn onward(incoming: &Incoming, span: Option<&Span>) -> Option<TraceContext> {
    span.map(Span::context)
        .or_else(|| TraceContext::of(Some(&incoming.headers)))
}
