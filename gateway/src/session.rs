//! One connection from welcome to close: the task around the pure inbox session.
//!
//! It reads while it writes: a client that takes long to read what it is sent is heard meanwhile, so that what it has
//! confirmed is not lost with the connection. What waits to be written has bounds: deliveries that of the window, and
//! answers that of [`crate::outgoing`], beyond which nothing more is read until some have left.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tidings_nats::{CloseReason, DirectAnswer};
use tidings_protocol::{
    ClientFrame, ClientId, CloseCode, Error, ErrorCode, FrameError, Notice, NoticeCode, PING_SECONDS, Reply,
    SendMessage, TokenExpiring,
};
use tidings_service::{Claims, clock};
use tokio::time::Instant;
use uuid::Uuid;

use crate::delivery::{Body, Way};
use crate::gateway::Gateway;
use crate::hello::{Opened, RETRY_AFTER_MS_MAX};
use crate::inbox_reader::{InboxReader, Read};
use crate::inbox_session::{Action, Direct, InboxSession, Input, Stored};
use crate::mailbox::{Ending, Mail};
use crate::metrics::{CONFIRMED, count_error};
use crate::rate_limits::ClientLimits;
use crate::requests::{Done, Requests};
use crate::seat::Seat;
use crate::sessions::SessionHandle;
use crate::take_over;
use crate::wire::{Incoming, Wire, WriteError};

/// Silence after which the server pings; twice as much is death.
const PING_AFTER: Duration = Duration::from_secs(PING_SECONDS);
/// How long before its end a token's expiry is announced.
const EXPIRY_NOTICE: Duration = Duration::from_mins(1);
/// After so long a full window is worth a notice.
const WINDOW_FULL_NOTICE: Duration = Duration::from_secs(30);
/// How often a session reads that not every worker knows of yet, or whose client leaves most of its window unconfirmed.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(500);
/// A worker that goes on telling of what it has stored, so long after direct delivery was granted, has not heard of it.
const GRANT_INTERVAL: Duration = Duration::from_secs(1);
/// How long it is remembered whom it was granted: a worker that tells nothing for so long may be gone.
const GRANT_KEPT: Duration = Duration::from_mins(1);
/// How long a restarting gateway waits for the answers of what is under way.
const LAST_REPLIES_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a session has ended.
enum End {
    /// The socket is gone.
    Gone,
    /// It is to be closed with this.
    Close {
        code: CloseCode,
        reason: ErrorCode,
        retry_after_ms: Option<u64>,
    },
}

impl End {
    const fn because(code: CloseCode, reason: ErrorCode) -> Self {
        Self::Close {
            code,
            reason,
            retry_after_ms: None,
        }
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Gone => Self::Gone,
            WriteError::Stalled => Self::because(CloseCode::Timeout, ErrorCode::Unavailable),
        }
    }
}

/// What a session waits for.
enum Happening {
    Incoming(Incoming),
    Mail(Mail),
    Done(Done),
    Read(InboxReader, Read),
    Due,
}

/// See the module.
pub(crate) struct Session {
    gateway: Arc<Gateway>,
    handle: Arc<SessionHandle>,
    wire: Wire,
    claims: Claims,
    inbox: InboxSession<Body>,
    actions: Vec<Action<Body>>,
    reader: Option<InboxReader>,
    reading: Option<BoxFuture<'static, (InboxReader, Read)>>,
    requests: Requests,
    limits: ClientLimits,
    heard_at: Instant,
    pinged: bool,
    expiry_told: bool,
    full_since: Option<Instant>,
    read_at: Instant,
    /// Which workers were last granted direct delivery, under which grant, and when. One for each worker that tells
    /// this client of something.
    granted: Vec<(Uuid, u32, Instant)>,
    seat: Seat,
}

/// A session for a connection that was welcomed. Boxed, so that its task holds one place for it and none for moving it
/// there.
pub(crate) async fn begin(gateway: Arc<Gateway>, opened: Opened) -> Box<Session> {
    let Opened {
        wire,
        seat,
        claims,
        reader,
        invalidations_sequence,
    } = opened;
    let handle = Arc::clone(&seat);
    gateway.live.fence(&handle, invalidations_sequence).await;
    if gateway.stopping.is_cancelled() {
        // It came in while the others were being sent elsewhere, perhaps after the last of them had gone.
        handle.mailbox.close(Ending::Restart);
    }
    let now = Instant::now();
    Box::new(Session {
        limits: gateway.rate_limits.client(),
        requests: Requests::new(gateway.clone(), handle.clone()),
        gateway,
        handle,
        wire,
        claims,
        inbox: InboxSession::new(),
        actions: Vec::new(),
        reader: Some(reader),
        reading: None,
        heard_at: now,
        pinged: false,
        expiry_told: false,
        full_since: None,
        read_at: now,
        granted: Vec::new(),
        seat,
    })
}

/// Serves its connection to the end.
pub(crate) async fn run(mut session: Box<Session>) {
    let end = session.serve().await;
    Box::pin(finish(session, end)).await;
}

async fn finish(session: Box<Session>, end: End) {
    let gateway = session.gateway.clone();
    let (wire, seat) = session.into_wire();
    let handle = &*seat;
    gateway.sessions.remove(handle);
    match end {
        End::Gone => drop(wire),
        End::Close {
            code,
            reason,
            retry_after_ms,
        } => {
            // Whoever takes over waits for this; the closing handshake need not be over for it.
            handle.closed.cancel();
            wire.close(code, reason, retry_after_ms).await;
        }
    }
    handle.closed.cancel();
    gateway.seen.note(handle.client_id);
    take_over::delete_key(&gateway.bus, handle.client_id, handle.revision()).await;
    seat.leave();
}

impl Session {
    /// Its reading and its requests end here: they hold places that others wait for, and nobody works on them any more.
    ///
    /// What was told directly and is not confirmed must be stored now: nobody will confirm it here.
    fn into_wire(self: Box<Self>) -> (Wire, Seat) {
        let unread = std::iter::from_fn(|| self.handle.mailbox.try_next());
        let unread = unread.filter_map(|mail| match mail {
            Mail::Direct(told) => Some((told.worker, told.entry.seq)),
            _ => None,
        });
        for (worker, event) in self.inbox.directs().chain(unread) {
            self.answer(worker, |client_id| DirectAnswer::Refused { event, client_id });
        }
        // What it confirmed, too, is to be known before the client is elsewhere.
        self.gateway.live.answering.hurry();
        let Self { wire, seat, .. } = *self;
        (wire, seat)
    }

    async fn serve(&mut self) -> End {
        self.tell(Input::Start);
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
        }
    }

    /// Does what is to be done, then waits for one thing to happen.
    async fn turn(&mut self) -> Result<(), End> {
        for action in std::mem::take(&mut self.actions) {
            if let Some(sequence) = self.act(action) {
                // Boxed, as below, so that a connection which waits, as most do at any moment, holds only what waiting takes.
                Box::pin(self.gateway.confirmer.confirm(self.handle.shard, sequence)).await;
            }
        }
        self.note_full_window();
        self.wire.send().await?;
        let happening = self.next().await;
        match self.meet(happening)? {
            Some(ending) => Err(Box::pin(self.ending(ending)).await),
            None => Ok(()),
        }
    }

    /// Waits for one thing to happen, while what was written leaves.
    async fn next(&mut self) -> Happening {
        let deadline = self.deadline();
        let may_read = self.requests.has_room();
        let mailbox = &self.handle.mailbox;
        tokio::select! {
            incoming = self.wire.next(may_read) => Happening::Incoming(incoming),
            mail = mailbox.next() => Happening::Mail(mail),
            Some(done) = self.requests.next(), if !self.requests.is_empty() => Happening::Done(done),
            (reader, read) = async { self.reading.as_mut().expect("guarded").await }, if self.reading.is_some() => {
                Happening::Read(reader, read)
            }
            () = tokio::time::sleep_until(deadline) => Happening::Due,
        }
    }

    /// With what it is to end with, if it is.
    fn meet(&mut self, happening: Happening) -> Result<Option<Ending>, End> {
        match happening {
            Happening::Incoming(incoming) => self.incoming(incoming)?,
            Happening::Mail(mail) => return Ok(self.mail(mail)),
            Happening::Done(done) => self.done(done),
            Happening::Read(reader, read) => {
                self.reading = None;
                self.reader = Some(reader);
                self.read_at = Instant::now();
                let input = Input::Read {
                    entries: read.entries,
                    through: read.through,
                    complete: read.complete,
                };
                self.tell(input);
            }
            Happening::Due => self.tick()?,
        }
        Ok(None)
    }

    /// Does what the inbox session wants, but for deleting an entry, which it says.
    fn act(&mut self, action: Action<Body>) -> Option<u64> {
        match action {
            Action::Deliver { delivery, body } => {
                let span = body.span(self.handle.client_id);
                self.wire
                    .deliver(delivery, body, self.handle.user_id.clone(), span);
            }
            Action::Delete { sequence } => return Some(sequence),
            Action::Confirmed { worker, event } => {
                CONFIRMED.increment(1);
                self.answer(worker, |client_id| DirectAnswer::Confirmed { event, client_id });
            }
            Action::Refused { worker, event } => {
                metrics::counter!("tidings_direct_refusals_total", "cause" => "session").increment(1);
                self.answer(worker, |client_id| DirectAnswer::Refused { event, client_id });
            }
            Action::Read(reading) => {
                let mut reader = self.reader.take().expect("one reading at a time");
                // While it catches up, mostly nothing is there; afterwards something was told.
                let perhaps_nothing = !self.inbox.is_live();
                self.reading = Some(Box::pin(async move {
                    let read = reader.read(reading, perhaps_nothing).await;
                    (reader, read)
                }));
            }
            Action::CaughtUp => self.wire.caught_up(),
            Action::UnknownDelivery(delivery) => self.unknown_delivery(delivery),
        }
        None
    }

    fn answer(&self, worker: Uuid, answer: impl FnOnce(ClientId) -> DirectAnswer) {
        self.gateway
            .live
            .answering
            .answer(worker, answer(self.handle.client_id));
    }

    /// A worker has told of something that it had stored: from now on it need not, where nothing stands against it.
    fn grant(&mut self, worker: Uuid) {
        let Some(grant) = self.inbox.grant() else {
            return;
        };
        let now = Instant::now();
        let known = self.granted.iter_mut().find(|(known, ..)| *known == worker);
        match known {
            // It is on its way, and so is what the worker told before it came.
            Some((_, before, at)) if *before == grant && now < *at + GRANT_INTERVAL => return,
            Some(known) => *known = (worker, grant, now),
            None => {
                self.granted.retain(|(_, _, at)| now < *at + GRANT_KEPT);
                self.granted.push((worker, grant, now));
            }
        }
        self.handle.mailbox.granted();
        let connection = self.handle.connection;
        self.answer(worker, |client_id| DirectAnswer::Granted {
            client_id,
            connection,
            grant,
        });
    }

    /// Tells the inbox session, and counts the reading that it wants because of it.
    fn tell(&mut self, input: Input<Body>) {
        let (cause, before) = (cause(&input), self.actions.len());
        self.inbox.handle(input, &mut self.actions);
        if self.actions[before..]
            .iter()
            .any(|action| matches!(action, Action::Read(_)))
        {
            metrics::counter!("tidings_inbox_readings_total", "cause" => cause).increment(1);
        }
    }

    fn unknown_delivery(&mut self, delivery: u64) {
        let notice = Notice {
            code: NoticeCode::UnknownDelivery,
            delivery: Some(delivery),
        };
        self.wire.write(&notice.into());
    }

    /// Since when the client must confirm before anything more is delivered.
    fn note_full_window(&mut self) {
        self.full_since = match (self.inbox.is_full(), self.full_since) {
            (true, None) => Some(Instant::now()),
            (true, since) => since,
            (false, _) => None,
        };
    }

    /// Takes everything that is there. With what the session is to end with, if it is.
    fn mail(&mut self, mail: Mail) -> Option<Ending> {
        let mut next = Some(mail);
        while let Some(mail) = next {
            let mut stored_by = None;
            let input = match mail {
                Mail::Close(ending) => return Some(ending),
                Mail::Doubt => Input::Doubt,
                Mail::FencePassed => Input::FencePassed,
                Mail::Checked(last) => Input::Checked(last),
                Mail::Withdraw => Input::Withdraw,
                Mail::Direct(told) => Input::Direct(Direct {
                    worker: told.worker,
                    event: told.entry.seq,
                    grant: told.grant,
                    bytes: told.bytes,
                    body: Body::Entry(told.entry, Way::Direct),
                }),
                Mail::Notice {
                    entry,
                    sequence,
                    bytes,
                    worker,
                } => {
                    stored_by = Some(worker);
                    Input::Notice(Stored {
                        sequence,
                        bytes,
                        event: Some(entry.seq),
                        body: Body::Entry(entry, Way::Live),
                    })
                }
            };
            self.tell(input);
            if let Some(worker) = stored_by {
                self.grant(worker);
            }
            next = self.handle.mailbox.try_next();
        }
        None
    }

    async fn ending(&mut self, ending: Ending) -> End {
        // It holds a place that others wait for, and is not gone on with.
        self.reading = None;
        match ending {
            Ending::Asked(CloseReason::Replaced) => End::because(CloseCode::Replaced, ErrorCode::Replaced),
            Ending::Asked(CloseReason::Removed) => {
                End::because(CloseCode::Forbidden, ErrorCode::ClientRemoved)
            }
            Ending::Asked(CloseReason::Suspended) => End::because(CloseCode::Forbidden, ErrorCode::Suspended),
            Ending::Asked(CloseReason::Kicked) | Ending::Restart => {
                // What was sent to us is answered, as far as that takes no longer than a publish ack does.
                let replies = async {
                    while let Some(done) = self.requests.next().await {
                        self.done(done);
                    }
                };
                let _ = tokio::time::timeout(LAST_REPLIES_TIMEOUT, replies).await;
                let retry_after_ms = Some(rand::random_range(0..RETRY_AFTER_MS_MAX));
                End::Close {
                    code: CloseCode::Restart,
                    reason: ErrorCode::Unavailable,
                    retry_after_ms,
                }
            }
        }
    }

    fn incoming(&mut self, incoming: Incoming) -> Result<(), End> {
        self.heard_at = Instant::now();
        self.pinged = false;
        match incoming {
            Incoming::Gone => Err(End::Gone),
            Incoming::SignOfLife => Ok(()),
            Incoming::Unacceptable(code) => Err(End::because(code, ErrorCode::BadFrame)),
            Incoming::Bad(FrameError { id, error }) => {
                self.reply(Reply::failure(id, error));
                Ok(())
            }
            Incoming::Frame(frame) => {
                self.frame(frame);
                Ok(())
            }
        }
    }

    fn frame(&mut self, frame: ClientFrame) {
        if let Err(error) = frame.validate() {
            return self.reply(Reply::failure(frame.id(), error));
        }
        match frame {
            // Newest wins: what is left of an older connection confirms nothing more.
            ClientFrame::Received(_) if self.handle.mailbox.is_closing() => {}
            ClientFrame::Received(received) => {
                let (delivery, input) = match (received.delivery, received.through) {
                    (Some(delivery), _) => (delivery, Input::Received(delivery)),
                    (None, Some(through)) => (through, Input::ReceivedThrough(through)),
                    (None, None) => unreachable!("validated: exactly one"),
                };
                if delivery > self.wire.delivered() {
                    // What has not left cannot have been received; nor may it make room for more, so that the window
                    // bounds what waits to leave.
                    return self.unknown_delivery(delivery);
                }
                self.wire.confirmed(delivery, received.through.is_some());
                self.tell(input);
            }
            ClientFrame::SendMessage(request) => self.send(request),
            ClientFrame::Hello(hello) => {
                let error = Error::new(ErrorCode::NotHello, "this connection has said hello already");
                self.reply(Reply::failure(Some(hello.id), error));
            }
            frame => {
                if !matches!(frame, ClientFrame::Ping(_))
                    && let Err(error) = self.limits.check_question()
                {
                    return self.reply(Reply::failure(frame.id(), error));
                }
                self.requests.ask(frame);
            }
        }
    }

    fn send(&mut self, request: SendMessage) {
        if let Err(error) = self.limits.check_message() {
            return self.reply(Reply::failure(Some(request.id), error));
        }
        self.requests.send(request);
    }

    fn done(&mut self, mut done: Done) {
        if let Some(claims) = done.renewed.take() {
            self.claims = claims;
            self.expiry_told = false;
        }
        let refused = self.requests.finish(&done);
        self.reply(done.reply);
        for reply in refused {
            self.reply(reply);
        }
    }

    fn reply(&mut self, reply: Reply) {
        if let Some(error) = &reply.error {
            count_error(&error.code);
        }
        self.wire.write(&reply.into());
    }

    /// When the next thing is due that nobody else tells.
    fn deadline(&self) -> Instant {
        let silence = if self.pinged { 2 * PING_AFTER } else { PING_AFTER };
        let mut deadline = self.heard_at + silence;
        let left = self.token_left();
        let token = if self.expiry_told {
            left
        } else {
            left.saturating_sub(EXPIRY_NOTICE)
        };
        deadline = deadline.min(Instant::now() + token);
        if let Some(stall) = self.wire.stalls_at() {
            deadline = deadline.min(stall);
        }
        if let Some(since) = self.full_since {
            deadline = deadline.min(since + WINDOW_FULL_NOTICE);
        }
        if self.must_read() || self.inbox.waits_for_room() {
            deadline = deadline.min(self.read_at + CATCH_UP_INTERVAL);
        }
        deadline
    }

    /// Whether entries may be stored without a notice, so that the session must read by itself.
    fn must_read(&self) -> bool {
        self.reading.is_none() && (!self.inbox.is_live() || self.handle.mailbox.is_unfenced())
    }

    /// How long the token is still good.
    fn token_left(&self) -> Duration {
        let milliseconds = self.claims.expires_at.0.saturating_sub(clock::now().0);
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
    }

    fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if let Some(progress) = self.wire.take_progress().filter(|at| *at > self.heard_at) {
            // Bytes that had to wait have left, so somebody reads, whose pong may be behind much else.
            self.heard_at = progress;
            self.pinged = false;
        }
        if now >= self.heard_at + 2 * PING_AFTER {
            return Err(End::because(CloseCode::Timeout, ErrorCode::Unavailable));
        }
        if now >= self.heard_at + PING_AFTER && !self.pinged {
            self.pinged = true;
            self.wire.ping();
        }
        let left = self.token_left();
        if left.is_zero() {
            return Err(End::because(CloseCode::Unauthorized, ErrorCode::TokenExpired));
        }
        if left <= EXPIRY_NOTICE && !self.expiry_told {
            self.expiry_told = true;
            let expires_at = self.claims.expires_at;
            self.wire.write(&TokenExpiring { expires_at }.into());
        }
        if self
            .full_since
            .is_some_and(|since| now >= since + WINDOW_FULL_NOTICE)
        {
            self.full_since = Some(now);
            let notice = Notice {
                code: NoticeCode::WindowFull,
                delivery: None,
            };
            self.wire.write(&notice.into());
        }
        if now >= self.read_at + CATCH_UP_INTERVAL {
            if self.must_read() {
                self.read_at = now;
                self.tell(Input::Doubt);
            }
            if self.inbox.waits_for_room() {
                self.read_at = now;
                self.tell(Input::Waited);
            }
        }
        Ok(())
    }
}

/// Why an inbox is read, for metrics.
const fn cause(input: &Input<Body>) -> &'static str {
    match input {
        Input::Start => "start",
        Input::FencePassed => "fence",
        // Of this session, of all of them, or the look every half second while not every worker knows of it.
        Input::Doubt => "doubt",
        // Told of more than there was room for.
        Input::Notice(_) => "notice",
        // Never, since they take nothing from what is stored.
        Input::Direct(_) | Input::Withdraw => "direct",
        Input::Checked(_) => "check",
        // What was read before was not everything.
        Input::Read { .. } => "more",
        Input::Received(_) | Input::ReceivedThrough(_) | Input::Waited => "room",
    }
}
