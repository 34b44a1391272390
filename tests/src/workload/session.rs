//! One connection of a device, from hello on.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tidings_client::connection::{Closed, Connection, Incoming};
use tidings_protocol::{ClientFrame, Codec, Error, Hello, Ping, Received, ServerFrame, Welcome};
use tokio::time::{Instant, timeout};

use crate::history::ConnectionRecorder;

/// For the WebSocket, and for each frame that a socket takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the welcome: longer than a gateway waits for whatever stands behind it.
const HELLO_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the server is asked for a sign of life.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);
/// After which silence the connection counts as lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(15);
/// What a client that confirms one by one leaves unconfirmed at most: well below the window of 256.
const SKIPPED_MAX: usize = 50;

/// When a device confirms.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// As PROTOCOL advises: after 64 deliveries or 200 ms.
    Prompt,
    /// Each delivery at once.
    Each,
    /// Each delivery at once, but some only much later.
    Sloppy,
    /// All of it after some seconds.
    Late,
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum NotWelcomed {
    /// Nobody there, or no answer.
    Lost,
    /// An answer.
    Refused(Error),
    /// Closed in place of an answer.
    Closed(Closed),
}

/// A welcomed connection.
pub(super) struct Session {
    pub(super) recorder: ConnectionRecorder,
    connection: Connection,
    habit: Habit,
    last_id: u64,
    last_delivery: u64,
    unconfirmed: BTreeSet<u64>,
    /// When what is unconfirmed is to be confirmed.
    pub(super) confirm_at: Option<Instant>,
    /// Whether deliveries are left unconfirmed, since the connection is going to be dropped.
    pub(super) forgetting: bool,
    pub(super) caught_up: bool,
    pub(super) heartbeat_at: Instant,
    /// When the last delivery came, or the session began.
    pub(super) delivered_at: Instant,
    /// The ping that proves that confirms have been read, and whether it was answered.
    ping: Option<(u64, bool)>,
}

impl Session {
    /// Connects and says hello.
    pub(super) async fn open(
        url: &str,
        codec: Codec,
        token: String,
        mut hello: Hello,
        habit: Habit,
        recorder: ConnectionRecorder,
    ) -> Result<(Self, Welcome), NotWelcomed> {
        let connecting = timeout(CONNECT_TIMEOUT, Connection::connect(url, codec, None)).await;
        let connection = match connecting {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                recorder.refused(url, error.to_string());
                return Err(NotWelcomed::Lost);
            }
            Err(elapsed) => {
                recorder.refused(url, elapsed.to_string());
                return Err(NotWelcomed::Lost);
            }
        };
        recorder.opened(url);
        hello.token = Some(token);
        let now = Instant::now();
        let mut session = Self {
            recorder,
            connection,
            habit,
            last_id: hello.id,
            last_delivery: 0,
            unconfirmed: BTreeSet::new(),
            confirm_at: None,
            forgetting: false,
            caught_up: false,
            heartbeat_at: now + HEARTBEAT,
            delivered_at: now,
            ping: None,
        };
        let answer = timeout(HELLO_TIMEOUT, session.hello(hello)).await;
        match answer {
            Ok(Ok(Ok(welcome))) => Ok((session, welcome)),
            Ok(Ok(Err(error))) => {
                session.hang_up(1000).await;
                Err(NotWelcomed::Refused(error))
            }
            Ok(Err(closed)) => {
                session.recorder.closed(closed.code, closed.reason.clone());
                Err(NotWelcomed::Closed(closed))
            }
            Err(_) => {
                session.recorder.hung_up(1006);
                Err(NotWelcomed::Lost)
            }
        }
    }

    async fn hello(&mut self, hello: Hello) -> Result<Result<Welcome, Error>, Closed> {
        let id = hello.id;
        self.send(hello.into()).await?;
        loop {
            match self.next().await? {
                Some(ServerFrame::Welcome(welcome)) if welcome.id == id => return Ok(Ok(welcome)),
                Some(ServerFrame::Reply(reply)) if reply.id == Some(id) => {
                    if let Some(error) = reply.error {
                        return Ok(Err(error));
                    }
                }
                _ => {}
            }
        }
    }

    /// The number of the next request.
    pub(super) const fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    /// Says something.
    pub(super) async fn send(&mut self, frame: ClientFrame) -> Result<(), Closed> {
        if let Some(id) = frame.id() {
            self.last_id = self.last_id.max(id);
        }
        self.recorder.sent(&frame);
        match timeout(CONNECT_TIMEOUT, self.connection.send(&frame)).await {
            Ok(sent) => sent,
            Err(_) => Err(Closed::lost("the socket takes nothing")),
        }
    }

    /// The next frame; absent for what is of a newer version. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<ServerFrame>, Closed> {
        let incoming = self.connection.next().await?;
        Ok(match incoming {
            Incoming::Frame(frame) => {
                self.recorder.received(&frame);
                Some(frame)
            }
            Incoming::Unknown { delivery } => {
                self.recorder.unknown(delivery);
                if let Some(delivery) = delivery {
                    self.delivered(delivery, None);
                }
                None
            }
        })
    }

    /// A delivery came. Says when nothing is left to the caller but to wait for `confirm_at`.
    pub(super) fn delivered(&mut self, delivery: u64, rng: Option<&mut StdRng>) {
        let now = Instant::now();
        self.delivered_at = now;
        self.last_delivery = self.last_delivery.max(delivery);
        self.unconfirmed.insert(delivery);
        // An answer to a ping says nothing about what came later.
        self.ping = None;
        if self.forgetting {
            return;
        }
        let wait = match (self.habit, rng) {
            (Habit::Each, _) => Duration::ZERO,
            (Habit::Prompt, _) if self.unconfirmed.len() >= 64 => Duration::ZERO,
            (Habit::Prompt, _) | (_, None) => Duration::from_millis(200),
            (Habit::Late, Some(rng)) => Duration::from_millis(rng.random_range(1000..5000)),
            (Habit::Sloppy, Some(rng)) => {
                if self.unconfirmed.len() < SKIPPED_MAX && rng.random_bool(0.1) {
                    return;
                }
                Duration::ZERO
            }
        };
        let at = now + wait;
        self.confirm_at = Some(self.confirm_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Confirms what the habit says.
    pub(super) async fn confirm(&mut self) -> Result<(), Closed> {
        self.confirm_at = None;
        if self.forgetting {
            return Ok(());
        }
        let one_by_one = matches!(self.habit, Habit::Each | Habit::Sloppy);
        let last = self.unconfirmed.last().copied();
        let Some(last) = last else { return Ok(()) };
        let received = if one_by_one && self.unconfirmed.len() < SKIPPED_MAX {
            self.unconfirmed.remove(&last);
            Received {
                delivery: Some(last),
                through: None,
            }
        } else {
            self.unconfirmed.clear();
            Received {
                delivery: None,
                through: Some(last),
            }
        };
        self.send(received.into()).await
    }

    /// From here on it confirms as PROTOCOL advises, also what it left out.
    pub(super) fn be_prompt(&mut self) {
        self.habit = Habit::Prompt;
        self.forgetting = false;
        if !self.unconfirmed.is_empty() {
            self.confirm_at = Some(Instant::now());
        }
    }

    /// Whether nothing is left to confirm and the server has read every confirm; asks it once that is worth asking.
    pub(super) async fn settled(&mut self) -> Result<bool, Closed> {
        if !self.unconfirmed.is_empty() {
            return Ok(false);
        }
        if let Some((_, answered)) = self.ping {
            return Ok(answered);
        }
        let id = self.next_id();
        self.ping = Some((id, false));
        self.send(Ping { id }.into()).await?;
        Ok(false)
    }

    /// Takes the reply to [`Self::settled`]'s ping; false if it is another's.
    pub(super) fn pinged(&mut self, id: Option<u64>) -> bool {
        match &mut self.ping {
            Some((ping, answered)) if Some(*ping) == id => {
                *answered = true;
                true
            }
            _ => false,
        }
    }

    /// Asks for a sign of life, if the last one is not too old.
    pub(super) async fn heartbeat(&mut self) -> Result<(), Closed> {
        self.heartbeat_at = Instant::now() + HEARTBEAT;
        if self.connection.heard().elapsed() > SILENCE_MAX {
            return Err(Closed::lost("silence"));
        }
        match timeout(CONNECT_TIMEOUT, self.connection.ping()).await {
            Ok(sent) => sent,
            Err(_) => Err(Closed::lost("the socket takes nothing")),
        }
    }

    /// Ends it: politely (1000) or by dropping the socket (1006).
    pub(super) async fn hang_up(self, code: u16) {
        self.recorder.hung_up(code);
        if code == 1000 {
            self.connection.close().await;
        }
    }

    /// Goes on reading, as a program does that does not know that it has been replaced, until it is told.
    pub(super) async fn linger(mut self, at_most: Duration) {
        let reading = async {
            loop {
                if let Err(closed) = self.next().await {
                    return closed;
                }
            }
        };
        match timeout(at_most, reading).await {
            Ok(closed) => self.recorder.closed(closed.code, closed.reason),
            Err(_) => self.recorder.hung_up(1006),
        }
    }
}
