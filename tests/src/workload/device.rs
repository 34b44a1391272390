//! A device of a workload: it connects, asks, reads, confirms, goes away and comes back, whatever the system does.

mod coming_to_rest;
mod hearing;

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tidings_client::Backoff;
use tidings_client::connection::Closed;
use tidings_protocol::{ClientFrame, ClientId, Codec, ErrorCode, Hello};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::outbox::{Ask, Outbox};
use super::session::{Habit, NotWelcomed, Session};
use super::world::DeviceState;
use crate::history::{ConnectionRecorder, RecordedConnection};
use crate::token::Identity;

/// Between attempts to connect. Shorter than PROTOCOL's, since what comes after a fault is what a test wants to see.
const RECONNECT: Backoff = Backoff {
    base: Duration::from_millis(300),
    max: Duration::from_secs(3),
};
/// A server that asks for a longer pause is not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// For how long a replaced program goes on reading.
const LINGER: Duration = Duration::from_secs(30);
/// After so long without a delivery nothing more is expected.
const QUIET: Duration = Duration::from_secs(1);
/// How often a device that is to come to rest looks whether it has.
const REST_TICK: Duration = Duration::from_millis(100);
/// How often a connection is lost just after a message was sent, before its reply can come.
const LOST_WITH_REPLY: f64 = 0.02;
/// How often a program forgets that a message was answered, and sends it again.
const REPEATED: f64 = 0.02;
/// A day: longer than any run.
const TOKEN_SECONDS: i64 = 86_400;

/// What a device is told to do.
#[derive(Debug)]
pub(super) enum Command {
    /// To ask for something.
    Ask(Ask),
    /// To be away for a time. Half of those who leave say so.
    Away { time: Duration },
    /// To stop confirming, and to lose the connection after a time.
    Forget { after: Duration },
    /// To connect a second time while the first connection is there.
    Twice,
    /// To come back for good and to confirm promptly.
    Finish,
    /// To connect anew, read everything, confirm everything, and say that it did.
    Rest {
        deadline: Instant,
        done: oneshot::Sender<Result<(), String>>,
    },
    /// To be gone.
    Stop,
}

#[derive(Debug)]
struct Rest {
    deadline: Instant,
    done: oneshot::Sender<Result<(), String>>,
    /// Connections above this number were made for it.
    above: u32,
}

enum Ending {
    /// The server or the network ended it.
    Closed(Closed),
    /// Away until then.
    Away(Instant),
    /// To be connected again at once.
    Again,
    /// For ever.
    Stop,
}

/// A device.
pub(super) struct Device {
    shared: Arc<Shared>,
    number: usize,
    name: String,
    identity: Identity,
    codec: Codec,
    habit: Habit,
    replace: Option<ClientId>,
    commands: mpsc::UnboundedReceiver<Command>,
    rng: StdRng,
    outbox: Outbox,
    connections: u32,
    failures: u32,
    retry_after: Option<Duration>,
    rest: Option<Rest>,
    finishing: bool,
    last: Option<ConnectionRecorder>,
}

impl Device {
    /// Makes a device known and lets it run.
    pub(super) fn spawn(
        shared: &Arc<Shared>,
        name: String,
        identity: Identity,
        replace: Option<ClientId>,
        seed: u64,
    ) -> usize {
        let (commands, received) = mpsc::unbounded_channel();
        let mut rng = StdRng::seed_from_u64(seed);
        let number = {
            let mut state = shared.world.lock();
            state.devices.push(DeviceState {
                identity: identity.clone(),
                commands,
                registered: false,
                online: false,
                removed: false,
                unanswered: 0,
                finishing: false,
                hopeless: false,
            });
            state.devices.len() - 1
        };
        let habits = [
            Habit::Prompt,
            Habit::Prompt,
            Habit::Each,
            Habit::Sloppy,
            Habit::Late,
        ];
        let device = Self {
            shared: Arc::clone(shared),
            number,
            name,
            identity,
            codec: *Codec::ALL.choose(&mut rng).expect("there are two"),
            habit: *habits.choose(&mut rng).expect("there are some"),
            replace,
            commands: received,
            outbox: Outbox::new(rng.random_bool(0.5)),
            rng,
            connections: 0,
            failures: 0,
            retry_after: None,
            rest: None,
            finishing: false,
            last: None,
        };
        shared.tracker.spawn(device.run());
        number
    }

    async fn run(mut self) {
        loop {
            let ending = match self.connect().await {
                Ok(session) => self.session(session).await,
                Err(Some(ending)) => ending,
                Err(None) => break,
            };
            self.outbox.disconnected();
            self.shared.world.lock().devices[self.number].online = false;
            let until = match ending {
                Ending::Closed(closed) => match self.closed(&closed) {
                    Some(wait) => Instant::now() + wait,
                    None => break,
                },
                Ending::Away(until) => until,
                Ending::Again => Instant::now(),
                Ending::Stop => break,
            };
            if !self.pause(until).await {
                break;
            }
        }
        let mut state = self.shared.world.lock();
        state.devices[self.number].online = false;
        state.report.retries += self.outbox.retries;
    }

    /// Tries once. The error is what comes next; absent: nothing any more.
    async fn connect(&mut self) -> Result<Session, Option<Ending>> {
        self.connections += 1;
        let recorder = self.shared.recorder.connection(RecordedConnection {
            device: self.name.clone(),
            user_id: self.identity.user_id.clone(),
            client_id: self.identity.client_id,
            number: self.connections,
        });
        self.last = Some(recorder.clone());
        let url = self.shared.targets.urls.choose(&mut self.rng);
        let url = url.expect("a workload has somewhere to connect to").clone();
        let token = self
            .identity
            .token_for(&self.shared.targets.secret, TOKEN_SECONDS);
        let hello = Hello {
            id: 1,
            token: None,
            name: None,
            replace: self.replace,
        };
        let habit = if self.finishing { Habit::Prompt } else { self.habit };
        match Session::open(&url, self.codec, token, hello, habit, recorder).await {
            Ok((session, _)) => {
                self.failures = 0;
                let mut state = self.shared.world.lock();
                state.report.connections += 1;
                let device = &mut state.devices[self.number];
                device.registered = true;
                device.online = true;
                Ok(session)
            }
            Err(NotWelcomed::Lost) => Err(Some(Ending::Closed(Closed::lost("")))),
            Err(NotWelcomed::Closed(closed)) => Err(Some(Ending::Closed(closed))),
            Err(NotWelcomed::Refused(error)) => match error.code {
                ErrorCode::ClientRemoved => {
                    self.removed();
                    Err(None)
                }
                // Somebody is being removed for it, and may be stuck; at the end that no longer helps.
                ErrorCode::TooManyClients if self.finishing => {
                    self.shared.world.lock().devices[self.number].hopeless = true;
                    self.answer_rest(Ok(()));
                    Err(None)
                }
                _ => Err(Some(Ending::Closed(Closed::lost("")))),
            },
        }
    }

    async fn session(&mut self, mut session: Session) -> Ending {
        match self.live(&mut session).await {
            Ok(Ending::Again) => {
                self.shared.tracker.spawn(session.linger(LINGER));
                Ending::Again
            }
            Ok(Ending::Away(until)) => {
                let code = if self.rng.random_bool(0.5) { 1000 } else { 1006 };
                session.hang_up(code).await;
                Ending::Away(until)
            }
            Ok(ending) => {
                session.hang_up(1000).await;
                ending
            }
            Err(closed) => {
                session.recorder.closed(closed.code, closed.reason.clone());
                Ending::Closed(closed)
            }
        }
    }

    /// Reads, asks and confirms until the connection ends (the error) or is to be ended.
    async fn live(&mut self, session: &mut Session) -> Result<Ending, Closed> {
        let mut drop_at: Option<Instant> = None;
        if self.finishing {
            session.be_prompt();
        }
        loop {
            let now = Instant::now();
            while let Some(frame) = self.outbox.next(now, session.next_id()) {
                let is_message = matches!(frame, ClientFrame::SendMessage(_));
                session.send(frame).await?;
                if is_message && !self.finishing && self.rng.random_bool(LOST_WITH_REPLY) {
                    let pause = Duration::from_millis(self.rng.random_range(0..2000));
                    return Ok(Ending::Away(now + pause));
                }
            }
            self.note_unanswered();
            if session.confirm_at.is_some_and(|at| at <= now) {
                session.confirm().await?;
                continue;
            }
            if session.heartbeat_at <= now {
                session.heartbeat().await?;
            }
            if drop_at.is_some_and(|at| at <= now) {
                return Ok(Ending::Away(now));
            }
            self.look_at_rest(session).await?;
            let rest_tick = self.rest.as_ref().map(|_| now + REST_TICK);
            let wakes = [session.confirm_at, drop_at, self.outbox.wakes(now), rest_tick];
            let wake = wakes.into_iter().flatten().min();
            let wake = wake.map_or(session.heartbeat_at, |wake| wake.min(session.heartbeat_at));
            tokio::select! {
                frame = session.next() => {
                    if let Some(frame) = frame? {
                        self.heard(session, frame);
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Ask(ask)) => self.outbox.push(ask),
                    Some(Command::Away { time }) => return Ok(Ending::Away(Instant::now() + time)),
                    Some(Command::Forget { after }) => {
                        session.forgetting = true;
                        drop_at = Some(Instant::now() + after);
                    }
                    Some(Command::Twice) => return Ok(Ending::Again),
                    Some(Command::Finish) => {
                        self.finish();
                        drop_at = None;
                        session.be_prompt();
                    }
                    Some(Command::Rest { deadline, done }) => {
                        self.rest = Some(Rest { deadline, done, above: self.connections });
                        return Ok(Ending::Away(Instant::now()));
                    }
                    Some(Command::Stop) | None => return Ok(Ending::Stop),
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Waits, and takes commands meanwhile. False: it is the end.
    async fn pause(&mut self, until: Instant) -> bool {
        let mut until = until;
        loop {
            self.note_unanswered();
            if let Some(rest) = &self.rest
                && rest.deadline <= Instant::now()
            {
                self.give_up_rest(None);
            }
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Ask(ask)) => self.outbox.push(ask),
                    Some(Command::Away { time }) => until = until.max(Instant::now() + time),
                    Some(Command::Forget { .. } | Command::Twice) => {}
                    Some(Command::Finish) => {
                        self.finish();
                        until = until.min(Instant::now() + RECONNECT.base);
                    }
                    Some(Command::Rest { deadline, done }) => {
                        self.rest = Some(Rest { deadline, done, above: self.connections });
                        until = until.min(Instant::now() + RECONNECT.base);
                    }
                    Some(Command::Stop) | None => return false,
                },
                () = sleep_until(until) => return true,
            }
        }
    }

    fn finish(&mut self) {
        self.finishing = true;
        self.failures = 0;
        self.shared.world.lock().devices[self.number].finishing = true;
        self.note_unanswered();
    }

    fn note_unanswered(&self) {
        self.shared.world.lock().devices[self.number].unanswered = self.outbox.len();
    }

    fn removed(&mut self) {
        self.shared.world.lock().devices[self.number].removed = true;
        self.answer_rest(Ok(()));
    }
}
