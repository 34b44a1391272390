//! The task of a client: it does what the pure parts decide, and nothing else.

mod phase;
mod session;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidings_protocol::{ClientFrame, ClientId, Codec, Reply, Timestamp};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::attachments::Session;
use crate::client::{Command, Request, State};
use crate::delivery::Verdict;
use crate::driver::phase::{Happened, Phase};
use crate::event::{Event, Events};
use crate::inbox::Inbox;
use crate::link::{Ending, Link, Next, Stopped};
use crate::options::Options;
use crate::outbox::Outbox;
use crate::request::RequestError;
use crate::store::{Change, Store, StoreError};
use crate::tokens::{TokenReason, Tokens};

/// Events on their way to the application.
const EVENTS_AHEAD: usize = 64;
/// Events that wait for room there; more stop the reading of the socket. The window of unconfirmed
/// deliveries is smaller.
const EVENTS_MAX: usize = 1_024;
/// For how long a change that need not be durable at once waits for others.
const CHANGES_WAIT: Duration = Duration::from_millis(200);

/// Who waits for a request.
struct Waiter {
    durable: bool,
    answer: Option<oneshot::Sender<Result<Box<Reply>, RequestError>>>,
}

/// A token, and until when it is worth presenting.
struct Token {
    text: String,
    good_until: Option<Instant>,
}

pub(crate) struct Driver {
    urls: Vec<String>,
    codec: Codec,
    tokens: Tokens,
    name: Option<String>,
    replace: Option<ClientId>,
    outbox_max: usize,

    commands: mpsc::Receiver<Command>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    /// For deliveries to come. Bounded by what was handed over.
    verdicts_tx: mpsc::UnboundedSender<Verdict>,
    events: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
    state: watch::Sender<State>,
    /// For what goes beside the connection.
    session: watch::Sender<Session>,

    phase: Phase,
    link: Link,
    /// Attempts in a row that did not end in a welcome.
    failures: u32,
    inbox: Inbox,
    outbox: Outbox,
    waiting: HashMap<u64, Waiter>,
    /// Absent only while a thread works with it.
    store: Option<Box<dyn Store>>,
    changes: Vec<Change>,
    changes_since: Option<Instant>,
    token: Option<Token>,
    /// The token that was refused last.
    refused: Option<String>,
    client_id: Option<ClientId>,
    last_id: u64,
}

impl Driver {
    pub(crate) fn new(
        options: Options,
        commands: mpsc::Receiver<Command>,
    ) -> Result<(Self, Events, watch::Receiver<State>, watch::Receiver<Session>), StoreError> {
        let mut outbox = Outbox::new(options.outbox_max);
        let mut waiting = HashMap::new();
        for queued in options.store.queued()? {
            let waiter = Waiter {
                durable: true,
                answer: None,
            };
            waiting.insert(queued.position, waiter);
            outbox.restore(queued);
        }
        let (events, events_rx) = mpsc::channel(EVENTS_AHEAD);
        let (verdicts_tx, verdicts) = mpsc::unbounded_channel();
        let (state, state_rx) = watch::channel(State::Disconnected);
        let (session, session_rx) = watch::channel(Session::default());
        let mut urls = options.urls;
        if !urls.is_empty() {
            // Clients that know the same list begin at different gateways.
            let first = rand::random_range(0..urls.len());
            urls.rotate_left(first);
        }
        let driver = Self {
            urls,
            codec: options.codec,
            tokens: options.tokens,
            name: options.name,
            replace: options.replace,
            outbox_max: options.outbox_max,
            commands,
            verdicts,
            verdicts_tx,
            events,
            backlog: VecDeque::new(),
            state,
            session,
            phase: Phase::Resting {
                until: Some(Instant::now()),
            },
            link: Link::default(),
            failures: 0,
            inbox: Inbox::default(),
            outbox,
            waiting,
            store: Some(options.store),
            changes: Vec::new(),
            changes_since: None,
            token: None,
            refused: None,
            client_id: None,
            last_id: 0,
        };
        Ok((driver, Events(events_rx), state_rx, session_rx))
    }

    /// Until the application closes it or nothing can be done any more.
    pub(crate) async fn run(mut self) {
        let mut closed = None;
        let reason = loop {
            match self.step().await {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    closed = answer;
                    break Stopped::ByApplication;
                }
                Err(reason) => break reason,
            }
        };
        self.stop(reason, closed).await;
    }

    /// One thing that happens, and what follows from it. Some at the end, with whoever waits for it.
    async fn step(&mut self) -> Result<Option<Option<oneshot::Sender<()>>>, Stopped> {
        let deadline = self.deadline();
        let readable = self.backlog.len() < EVENTS_MAX;
        tokio::select! {
            command = self.commands.recv() => match command {
                None => return Ok(Some(None)),
                Some(command) => {
                    if let Some(closed) = self.take_commands(command).await? {
                        return Ok(Some(Some(closed)));
                    }
                }
            },
            Some(verdict) = self.verdicts.recv() => {
                self.take_verdict(verdict);
                self.take_verdicts();
            }
            () = room_in(&self.events), if !self.backlog.is_empty() => {}
            () = self.events.closed() => return Ok(Some(None)),
            happened = self.phase.next(), if readable => self.take_happened(happened).await?,
            () = sleep_until(deadline) => {}
        }
        self.turn().await?;
        self.hand_over();
        Ok(None)
    }

    /// Gives the application what it has room for.
    fn hand_over(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(TrySendError::Full(event) | TrySendError::Closed(event)) = self.events.try_send(event)
            {
                self.backlog.push_front(event);
                return;
            }
        }
    }

    fn deadline(&mut self) -> Instant {
        let far = Instant::now() + Duration::from_hours(1);
        let changes = self.changes_since.map(|since| since + CHANGES_WAIT);
        let online = self.phase.online().is_some();
        let confirmations = self.inbox.due().filter(|_| online);
        let requests = self.outbox.due().filter(|_| online);
        let all = [changes, confirmations, requests, self.phase.deadline()];
        all.into_iter().flatten().fold(far, Instant::min)
    }

    /// What is due by the clock or by what happened.
    async fn turn(&mut self) -> Result<(), Stopped> {
        let now = Instant::now();
        if self
            .changes_since
            .is_some_and(|since| since + CHANGES_WAIT <= now)
        {
            self.store_changes().await?;
        }
        if self.phase.online().is_some() {
            return self.turn_online(now).await;
        }
        match &self.phase {
            Phase::Resting { until: Some(until) } if *until <= now => self.start_connecting()?,
            Phase::Greeting { deadline, .. } if *deadline <= now => {
                self.end(Ending::TimedOut(phase::GREETING_TIMEOUT)).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Everything the application has asked for by now, so that what comes together is stored together.
    async fn take_commands(&mut self, first: Command) -> Result<Option<oneshot::Sender<()>>, Stopped> {
        let mut next = Some(first);
        let mut queued = Vec::new();
        let mut flushes = Vec::new();
        let mut closed = None;
        while let Some(command) = next {
            match command {
                Command::Request(request) => self.queue(request, &mut queued),
                Command::Replace(client_id) => self.take_replace(client_id).await?,
                Command::Pending(answer) => {
                    let durable = self.outbox.frames().filter(|frame| is_durable(frame));
                    answer.send(durable.cloned().collect()).ok();
                }
                Command::Flush(answer) => flushes.push(answer),
                Command::Close(answer) => {
                    closed = Some(answer);
                    break;
                }
            }
            next = self.commands.try_recv().ok();
        }
        if !queued.is_empty() || !flushes.is_empty() {
            self.take_verdicts();
            self.store_changes().await?;
        }
        for answer in queued {
            answer.send(Ok(())).ok();
        }
        if !flushes.is_empty() {
            self.tell_confirmations().await?;
        }
        for answer in flushes {
            answer.send(()).ok();
        }
        Ok(closed)
    }

    fn queue(&mut self, request: Request, queued: &mut Vec<oneshot::Sender<Result<(), RequestError>>>) {
        let Request {
            frame,
            durable,
            queued: answer_queued,
            answer,
        } = request;
        let mut position = self.outbox.queue(frame.clone());
        if position.is_none() && self.cancel_abandoned() {
            position = self.outbox.queue(frame.clone());
        }
        let Some(position) = position else {
            let max = self.outbox_max;
            answer_queued.send(Err(RequestError::OutboxFull { max })).ok();
            return;
        };
        if durable {
            let change = Change::Queue(crate::store::Queued { position, frame });
            self.note(change);
        }
        let waiter = Waiter {
            durable,
            answer: Some(answer),
        };
        self.waiting.insert(position, waiter);
        queued.push(answer_queued);
    }

    /// Forgets questions whose askers have gone. True if there were any.
    fn cancel_abandoned(&mut self) -> bool {
        let gone = |waiter: &Waiter| {
            !waiter.durable && waiter.answer.as_ref().is_none_or(oneshot::Sender::is_closed)
        };
        let abandoned: Vec<u64> = self
            .outbox
            .positions()
            .filter(|position| self.waiting.get(position).is_none_or(gone))
            .collect();
        for position in &abandoned {
            self.outbox.cancel(*position);
            self.waiting.remove(position);
        }
        !abandoned.is_empty()
    }

    fn take_verdicts(&mut self) {
        while let Ok(verdict) = self.verdicts.try_recv() {
            self.take_verdict(verdict);
        }
    }

    fn take_verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Confirmed(key) => {
                if self.inbox.confirmed(key, Instant::now())
                    && let crate::inbox::Key::Known(known) = key
                {
                    self.note(Change::Know(known));
                }
            }
            Verdict::Abandoned(key) => self.inbox.abandoned(key),
        }
    }

    fn note(&mut self, change: Change) {
        self.changes.push(change);
        self.changes_since.get_or_insert_with(Instant::now);
    }

    /// Returns when everything noted is in the store.
    async fn store_changes(&mut self) -> Result<(), Stopped> {
        self.changes_since = None;
        if !self.changes.is_empty() {
            let changes = std::mem::take(&mut self.changes);
            let now = wall_clock();
            self.with_store(move |store| store.commit(&changes, now)).await?;
        }
        self.inbox.stored();
        Ok(())
    }

    /// Works with the store on a thread that may block.
    async fn with_store<F>(&mut self, work: F) -> Result<(), Stopped>
    where
        F: FnOnce(&mut dyn Store) -> Result<(), StoreError> + Send + 'static,
    {
        let mut store = self
            .store
            .take()
            .expect("only this function takes it, and puts it back");
        let worked = tokio::task::spawn_blocking(move || {
            let result = work(&mut *store);
            (store, result)
        });
        let failed = |reason: String| Stopped::Store(reason);
        let (store, result) = worked.await.map_err(|error| failed(error.to_string()))?;
        self.store = Some(store);
        result.map_err(|StoreError(reason)| failed(reason))
    }

    /// The connection, or the attempt to make one, is over.
    async fn end(&mut self, ending: Ending) -> Result<(), Stopped> {
        let held = self.phase.online().map(|online| online.since.elapsed());
        self.phase = Phase::Resting { until: None };
        self.outbox.disconnected();
        self.inbox.connected();
        self.take_verdicts();
        self.cancel_abandoned();
        // Before the same events can come again.
        self.store_changes().await?;
        self.failures = if held.is_some() { 0 } else { self.failures + 1 };
        let others = usize::from(self.urls.len() > 1);
        self.urls.rotate_left(others);
        let next = self.link.ended(&ending, held.unwrap_or_default(), rand::random());
        tracing::debug!(%ending, ?next, "a connection ended");
        match next {
            Next::Stop(reason) => return Err(reason),
            Next::Choose => {}
            Next::Retry { after, new_token } => {
                if new_token && let Some(token) = self.token.take() {
                    self.refused = Some(token.text);
                }
                self.phase = Phase::Resting {
                    until: Some(Instant::now() + after),
                };
                let retry_in = after;
                self.backlog.push_back(Event::Disconnected { ending, retry_in });
            }
        }
        self.state.send_replace(State::Disconnected);
        Ok(())
    }

    fn start_connecting(&mut self) -> Result<(), Stopped> {
        let Some(url) = self.urls.first().cloned() else {
            return Err(Stopped::Settings("no gateway's URL is given".to_owned()));
        };
        let now = Instant::now();
        let token = match &self.token {
            Some(token) if token.good_until.is_none_or(|until| now < until) => Ok(token.text.clone()),
            Some(_) => Err(TokenReason::Expiring),
            None if self.refused.is_some() => Err(TokenReason::Refused),
            None => Err(TokenReason::First),
        };
        self.state.send_replace(State::Connecting);
        let failures = self.failures;
        let connecting = Event::Connecting {
            url: url.clone(),
            failures,
        };
        self.backlog.push_back(connecting);
        let refused = self.refused.clone();
        self.phase = Phase::connecting(url, self.codec, self.tokens.clone(), token, refused);
        Ok(())
    }

    async fn take_happened(&mut self, happened: Happened) -> Result<(), Stopped> {
        match happened {
            Happened::Connected(connected) => self.take_connected(connected).await,
            Happened::Incoming(incoming) => self.take_incoming(incoming).await,
            Happened::Token(token) => self.take_renewal(token).await,
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Tells everybody, after what can still be told to the server.
    async fn stop(mut self, reason: Stopped, closed: Option<oneshot::Sender<()>>) {
        self.take_verdicts();
        if self.store.is_some() && self.store_changes().await.is_ok() {
            self.tell_confirmations().await.ok();
        }
        if let Some(connection) = self.phase.into_connection() {
            connection.close().await;
        }
        // The file is closed before the application hears of the end, and may open it again.
        drop(self.store);
        self.state.send_replace(State::Stopped(reason.clone()));
        for waiter in self.waiting.into_values() {
            if let Some(answer) = waiter.answer {
                answer.send(Err(RequestError::Stopped(reason.clone()))).ok();
            }
        }
        drop(self.commands);
        if let Some(closed) = closed {
            closed.send(()).ok();
        }
        self.backlog.push_back(Event::Stopped(reason));
        for event in self.backlog {
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// Returns when an event could be sent; never when nobody takes them any more.
async fn room_in(events: &mpsc::Sender<Event>) {
    if events.reserve().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Requests that do their work once by an id of their own, so that another run may go on with them.
fn is_durable(frame: &ClientFrame) -> bool {
    matches!(
        frame,
        ClientFrame::SendMessage(_) | ClientFrame::CreateChat(_) | ClientFrame::ModifyChatParticipants(_)
    )
}

/// Only for dating what is remembered.
fn wall_clock() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(elapsed.as_millis() as i64)
}
