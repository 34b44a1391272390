//! The reader of the live lane: notices and beacons from the workers, requests to close from other gateways. It
//! never waits for a socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use parking_lot::Mutex;
use tidings_nats::{
    CloseRequest, DirectAnswer, DirectNotice, Entry, Lane, LiveMessage, Notice, close_subject, live_subject,
};
use tidings_protocol::ClientId;
use tidings_service::{Context, LivingWatch, NatsConnection, TraceContext};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::delivery::Arrived;
use crate::direct_answers::DirectAnswering;
use crate::mailbox::{Ending, Told, ToldDirectly};
use crate::sessions::{SessionHandle, Sessions};
use crate::workers::{Verdict, Workers};

/// How often silence is looked for.
const SILENCE_CHECK: Duration = Duration::from_secs(1);
/// After a bucket was made anew, what workers say of their place in it may be about the old one. Each compares every
/// 2 s, asks for at most 3 s, and reads it anew.
const ANEW_WAIT: Duration = Duration::from_secs(10);

/// A session that waits until every worker knows of it.
#[derive(Debug)]
struct Fence {
    handle: Arc<SessionHandle>,
    invalidations_sequence: u64,
    /// The living workers must have been listed after this.
    since: tokio::time::Instant,
    /// Before this, what workers say proves nothing.
    not_before: Option<Instant>,
}

/// The live lane of this gateway.
#[derive(Debug)]
pub(crate) struct Live {
    sessions: Arc<Sessions>,
    state: Mutex<State>,
    living: LivingWatch,
    /// Counts the doubts about all sessions.
    doubts: watch::Sender<u64>,
    /// Told when keys of SESSIONS may be gone.
    keys_lost: Notify,
    /// What workers are answered.
    pub(crate) answering: DirectAnswering,
}

#[derive(Debug, Default)]
struct State {
    workers: Workers,
    fences: Vec<Fence>,
}

impl Live {
    /// Starts reading, on a connection of its own: notices must not wait behind anything.
    pub(crate) async fn start(context: &Context, sessions: Arc<Sessions>) -> anyhow::Result<Arc<Self>> {
        let connection = context.connect_nats("live").await?;
        let living = LivingWatch::start(context, "fanout-worker").await?;
        let (answering, answers) = DirectAnswering::new(connection.client().clone());
        context.tasks.spawn_essential("answers", async move {
            answers.await;
            Ok(())
        });
        let live = Arc::new(Self {
            sessions,
            state: Mutex::default(),
            living,
            doubts: watch::Sender::new(0),
            keys_lost: Notify::new(),
            answering,
        });
        let gateway = context.boot_id.to_string();
        let notices = connection.client().subscribe(live_subject(&gateway)).await?;
        let closes = connection.client().subscribe(close_subject(&gateway)).await?;
        connection.client().flush().await?;
        live.settle_fences();
        context.tasks.spawn_essential(
            "live",
            live.clone().run(context.clone(), connection, notices, closes),
        );
        Ok(live)
    }

    /// Tells the session when every living worker looks clients up at its revision of SESSIONS or later and has
    /// forgotten what was invalidated up to the sequence.
    pub(crate) async fn fence(&self, handle: &Arc<SessionHandle>, invalidations_sequence: u64) {
        handle
            .invalidations_sequence
            .store(invalidations_sequence, Ordering::Relaxed);
        self.push_fence(handle, invalidations_sequence).await;
    }

    /// Takes a session's fence down: its key is about to be put again, and until a fence has passed for that, notices
    /// are only reasons to read.
    pub(crate) fn unfence(&self, handle: &Arc<SessionHandle>) {
        self.state
            .lock()
            .fences
            .retain(|fence| fence.handle.connection != handle.connection);
        handle.mailbox.unfence();
    }

    /// Fences a session whose key was put again. Workers that knew its client once still do.
    pub(crate) async fn fence_again(&self, handle: &Arc<SessionHandle>) {
        self.push_fence(handle, handle.invalidations_sequence.load(Ordering::Relaxed))
            .await;
    }

    async fn push_fence(&self, handle: &Arc<SessionHandle>, invalidations_sequence: u64) {
        // Whoever registered as a worker before now is waited for; whoever does later catches up with SESSIONS before
        // it stores anything.
        let since = tokio::time::Instant::now();
        if let Err(error) = self.living.after(since).await {
            tracing::debug!("the living workers could not be listed; they are again and again: {error:#}");
        }
        let written = *handle.written.lock();
        let fence = Fence {
            handle: handle.clone(),
            invalidations_sequence,
            since,
            not_before: written.anew.then(|| written.ended + ANEW_WAIT),
        };
        self.state.lock().fences.push(fence);
        self.settle_fences();
    }

    /// How far in SESSIONS the furthest worker is.
    pub(crate) fn sessions_revision(&self) -> u64 {
        self.state.lock().workers.sessions_revision()
    }

    /// When some worker was heard of last.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        self.state.lock().workers.heard_at()
    }

    /// Counts the doubts about all sessions.
    pub(crate) fn doubts(&self) -> watch::Receiver<u64> {
        self.doubts.subscribe()
    }

    /// Ends when keys of SESSIONS may be gone.
    pub(crate) async fn keys_lost(&self) {
        self.keys_lost.notified().await;
    }

    async fn run(
        self: Arc<Self>,
        context: Context,
        connection: NatsConnection,
        mut notices: async_nats::Subscriber,
        mut closes: async_nats::Subscriber,
    ) -> anyhow::Result<()> {
        let mut state = connection.state();
        let mut doubts = { *state.borrow_and_update() };
        let mut living = self.living.subscribe();
        let mut silence = tokio::time::interval(SILENCE_CHECK);
        loop {
            tokio::select! {
                message = notices.next() => match message {
                    Some(message) => self.message(&message),
                    None => anyhow::bail!("the subscription to notices ended"),
                },
                message = closes.next() => match message {
                    Some(message) => self.close_request(&context, &connection, message),
                    None => anyhow::bail!("the subscription to requests to close ended"),
                },
                Ok(()) = state.changed() => {
                    let now = *state.borrow_and_update();
                    if now.connects != doubts.connects || now.slow_consumers != doubts.slow_consumers {
                        self.doubt("connection");
                    }
                    doubts = now;
                }
                Ok(()) = living.changed() => {
                    self.settle_fences();
                }
                _ = silence.tick() => {
                    if self.state.lock().workers.any_fell_silent(Instant::now()) {
                        self.doubt("silent worker");
                    }
                    self.settle_fences();
                }
                // Sessions are closed by then; what still comes is for nobody.
                () = context.stopping.cancelled(), if self.sessions.len() == 0 => return Ok(()),
            }
        }
    }

    fn message(&self, message: &async_nats::Message) {
        match LiveMessage::decode(&message.payload) {
            Ok(LiveMessage::Notice(notice)) => {
                let (stamp, stamp_now) = self.arrived(notice.worker, notice.number, notice.lane);
                let trace = TraceContext::of(message.headers.as_ref());
                self.deliver(&notice, trace, stamp, stamp_now);
            }
            Ok(LiveMessage::Direct(notice)) => {
                let (stamp, _) = self.arrived(notice.worker, notice.number, Some(notice.lane));
                let trace = TraceContext::of(message.headers.as_ref());
                self.deliver_directly(&notice, trace, stamp);
            }
            Ok(LiveMessage::Beacon(beacon)) => {
                let (verdict, anew) = self.state.lock().workers.beacon(&beacon, Instant::now());
                if let Verdict::Gap(lost) = verdict {
                    self.lost(lost);
                }
                if anew {
                    self.keys_lost.notify_one();
                }
                self.settle_fences();
            }
            Err(error) => {
                // It may have been a notice.
                tracing::warn!(%error, "a message on the live lane cannot be read");
                self.doubt("unreadable");
            }
        }
    }

    /// A notice came: the stamp of its lane, and the last stamp that was given.
    fn arrived(&self, worker: Uuid, number: u64, lane: Option<Lane>) -> (u64, u64) {
        let (arrival, stamp_now) = {
            let workers = &mut self.state.lock().workers;
            let arrival = workers.notice(worker, number, lane, Instant::now());
            (arrival, workers.stamp())
        };
        if let Verdict::Gap(lost) = arrival.verdict {
            self.lost(lost);
        }
        (arrival.stamp, stamp_now)
    }

    /// Who cannot take it says so at once, so that it is stored.
    fn deliver_directly(&self, notice: &DirectNotice, trace: Option<TraceContext>, stamp: u64) {
        // Where it cannot be read nobody answers, so it is stored.
        let Some(entry) = self.entry(&notice.entry, trace) else {
            return;
        };
        for recipient in &notice.recipients {
            let taken = if let Some(handle) = self.connected(recipient.client_id, recipient.connection) {
                let told = ToldDirectly {
                    entry: entry.clone(),
                    bytes: notice.entry.len(),
                    stamp,
                    worker: notice.worker,
                    grant: recipient.grant,
                };
                handle.mailbox.direct(told).is_ok()
            } else {
                metrics::counter!("tidings_direct_refusals_total", "cause" => "not here").increment(1);
                false
            };
            if !taken {
                let refused = DirectAnswer::Refused {
                    event: entry.seq,
                    client_id: recipient.client_id,
                };
                self.answering.answer(notice.worker, refused);
            }
        }
    }

    fn deliver(&self, notice: &Notice, trace: Option<TraceContext>, stamp: u64, stamp_now: u64) {
        let Some(entry) = self.entry(&notice.entry, trace) else {
            return;
        };
        for recipient in &notice.recipients {
            if let Some(handle) = self.connected(recipient.client_id, recipient.connection) {
                handle.mailbox.notice(Told {
                    entry: entry.clone(),
                    sequence: recipient.sequence,
                    bytes: notice.entry.len(),
                    stamp,
                    stamp_now,
                    stored_before: recipient.stored_before,
                    worker: notice.worker,
                });
            }
        }
    }

    /// The entry of a notice, decoded once for all its recipients here. One that cannot be read casts doubt.
    fn entry(&self, entry: &[u8], trace: Option<TraceContext>) -> Option<Arc<Arrived>> {
        match Entry::decode(entry) {
            Ok(entry) => Some(Arc::new(Arrived::new(entry, trace))),
            Err(error) => {
                tracing::warn!(%error, "an entry on the live lane cannot be read");
                self.doubt("unreadable");
                None
            }
        }
    }

    /// The session of a client, if it is that of this connection.
    fn connected(&self, client_id: ClientId, connection: u64) -> Option<Arc<SessionHandle>> {
        let handle = self.sessions.get(client_id);
        handle.filter(|handle| handle.connection == connection)
    }

    /// Notices were lost, of whichever sessions.
    fn lost(&self, notices: u64) {
        metrics::counter!("tidings_notices_lost_total").increment(notices);
        self.doubt("gap");
    }

    /// Notices may have been lost, of whichever sessions.
    fn doubt(&self, cause: &'static str) {
        metrics::counter!("tidings_doubts_total", "cause" => cause).increment(1);
        tracing::debug!(cause, "notices may have been lost: every session is checked");
        let doubt = *self.doubts.borrow() + 1;
        self.sessions.suspect_all(doubt);
        self.doubts.send_replace(doubt);
    }

    fn close_request(&self, context: &Context, connection: &NatsConnection, message: async_nats::Message) {
        let Ok(request) = CloseRequest::decode(&message.payload) else {
            tracing::warn!("a request to close cannot be read");
            return;
        };
        let handle = self.sessions.get(request.client_id).filter(|handle| {
            request
                .connection
                .is_none_or(|connection| connection == handle.connection)
        });
        if let Some(handle) = &handle {
            handle.mailbox.close(Ending::Asked(request.reason));
        }
        let client = connection.client().clone();
        context.tasks.spawn(async move {
            if let Some(handle) = handle {
                handle.closed.cancelled().await;
            }
            if let Some(reply) = message.reply {
                // Whoever asked waits a second at most; nothing depends on the answer.
                let _ = client.publish(reply, bytes::Bytes::new()).await;
            }
        });
    }

    /// Tells the sessions whose fences have passed.
    fn settle_fences(&self) {
        let living = self.living.now();
        let registered = living.instances.keys().map(|boot_id| boot_id.0).collect();
        let now = Instant::now();
        let mut state = self.state.lock();
        let State { workers, fences } = &mut *state;
        let forgotten = workers.registered(registered);
        fences.retain(|fence| {
            if fence.handle.closed.is_cancelled() {
                return false;
            }
            let passed = living.as_of >= fence.since
                && fence.not_before.is_none_or(|not_before| now >= not_before)
                && workers.have_passed(fence.handle.revision(), fence.invalidations_sequence);
            if passed {
                fence.handle.mailbox.fence_passed(workers.stamp());
            }
            !passed
        });
        drop(state);
        if forgotten {
            self.doubt("forgotten worker");
        }
    }
}
