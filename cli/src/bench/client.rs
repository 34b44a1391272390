//! One client of the load generator: sends what it is told to, confirms what comes as PROTOCOL.md asks (through
//! every 64 deliveries or 200 ms), and notes both. It may be told to go away and come back, and be cut off; then it sends
//! again what was not answered.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidings_client::connection::{Closed, Connection, Incoming};
use tidings_protocol::{ClientFrame, NewMessage, Received, Reply, SendMessage, ServerFrame};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::connecting::come_back;
use super::event::{self, Arrival, Event};
use super::observed::Observed;
use super::share::Share;
use super::target::Target;

/// Deliveries after which they are confirmed at once.
const CONFIRM_COUNT: u64 = 64;
/// How long a delivery waits for others to be confirmed with.
const CONFIRM_DELAY: Duration = Duration::from_millis(200);
/// Requests with a number from here on are messages: the number of the message is added. Below are the others.
const FIRST_SEND_ID: u64 = 1 << 32;
/// What was confirmed so shortly before a connection broke may come again (PROTOCOL.md): a gateway deletes it within
/// that time, if it has read that at all.
const JUST_BEFORE: Duration = Duration::from_secs(5);

/// What a client is told to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Sends a message of the load.
    Send {
        number: usize,
        /// Index into the load's chats.
        chat: u32,
    },
    /// Sends a request and hands over its reply.
    Request(Box<ClientFrame>, oneshot::Sender<Reply>),
    /// Confirms what is left, closes, and stays away.
    Leave,
    /// Comes back.
    Return,
    /// Drops its socket without a word and comes back, which counts from this moment.
    BreakOff(Instant),
    /// Confirms what is left and closes for good.
    Close,
}

/// A client. Dropping all of its handles closes its connection without a handshake.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    /// Its task is in this process.
    Here(mpsc::UnboundedSender<Command>),
    /// Another process has it.
    There { index: u32, share: Arc<Share> },
}

/// The task behind a [`Client`].
pub(crate) struct Task {
    name: String,
    index: u32,
    target: Arc<Target>,
    commands: mpsc::UnboundedReceiver<Command>,
    observed: Arc<Observed>,
    requests: HashMap<u64, oneshot::Sender<Reply>>,
    /// Messages that are sent and not answered, and their chats.
    unanswered: BTreeMap<usize, u32>,
    /// Messages of this connection that were confirmed not long ago.
    confirmed: VecDeque<(Instant, usize)>,
    /// Messages that may come again, since an earlier connection broke.
    may_come_again: HashSet<usize>,
}

/// One connection of a client.
struct Session {
    connection: Connection,
    /// From when the time until it is up to date counts; of a client that was away or cut off.
    returned: Option<Instant>,
    /// The last delivery that is not confirmed yet, how many there are, and when they will be confirmed.
    through: u64,
    unconfirmed: u64,
    confirm_at: Option<Instant>,
    /// Those that are messages of the load.
    numbers: Vec<usize>,
}

/// Why a client has no connection any more.
enum End {
    Closed,
    Left,
    BrokenOff(Instant),
}

impl Client {
    /// With the task that must be run for it.
    pub(crate) fn new(
        name: String,
        index: u32,
        target: Arc<Target>,
        observed: Arc<Observed>,
    ) -> (Self, Task) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let task = Task {
            name,
            index,
            target,
            commands: receiver,
            observed,
            requests: HashMap::new(),
            unanswered: BTreeMap::new(),
            confirmed: VecDeque::new(),
            may_come_again: HashSet::new(),
        };
        (Self::Here(commands), task)
    }

    /// Sends a message of the load to the chat of this index. Never waits; a client whose connection is lost does
    /// nothing, one that is coming back sends it then.
    pub(crate) fn send(&self, number: usize, chat: u32) {
        self.command(Command::Send { number, chat });
    }

    /// Sends a request and waits for its reply. The request's number must be below 2^32 and not in use. `None`:
    /// the connection is lost.
    pub(crate) async fn request(&self, frame: impl Into<ClientFrame>) -> Option<Reply> {
        let (sender, reply) = oneshot::channel();
        self.command(Command::Request(Box::new(frame.into()), sender));
        // Dropped with the command, where nobody does it.
        reply.await.ok()
    }

    /// Confirms what is left, closes, and stays away.
    pub(crate) fn leave(&self) {
        self.command(Command::Leave);
    }

    /// Comes back after it has left.
    pub(crate) fn come_back(&self) {
        self.command(Command::Return);
    }

    /// Drops its socket without a word, and comes back at once.
    pub(crate) fn break_off(&self) {
        self.command(Command::BreakOff(Instant::now()));
    }

    /// Confirms what is left and closes.
    pub(crate) fn close(&self) {
        self.command(Command::Close);
    }

    /// Tells it to do something. One whose connection is lost does nothing.
    pub(crate) fn command(&self, command: Command) {
        match self {
            Self::Here(commands) => drop(commands.send(command)),
            Self::There { index, share } => share.command(*index, command),
        }
    }
}

impl Session {
    fn new(connection: Connection, returned: Option<Instant>) -> Self {
        Self {
            connection,
            returned,
            through: 0,
            unconfirmed: 0,
            confirm_at: None,
            numbers: Vec::new(),
        }
    }
}

impl Task {
    /// Until the client is closed or its connection is lost. `connection` has been welcomed.
    pub(crate) async fn run(mut self, connection: Connection) {
        let mut session = Session::new(connection, None);
        loop {
            let (returned, failures) = match self.serve(&mut session).await {
                Ok(End::Closed) => return session.connection.close().await,
                Ok(End::Left) => {
                    session.connection.close().await;
                    self.observed.note(Event::Left);
                    if !self.wait_outside().await {
                        return;
                    }
                    (None, 0)
                }
                Ok(End::BrokenOff(at)) => {
                    self.forget(session);
                    (Some(at), 0)
                }
                // Welcomed, and sent away after all, as one of many who come at once.
                Err(_) if session.returned.is_some() => {
                    self.observed.note(Event::SentAway);
                    let returned = session.returned;
                    self.forget(session);
                    (returned, 1)
                }
                Err(closed) => return self.lost(closed.to_string()),
            };
            let place = self.target.returning.acquire().await;
            let began = returned.unwrap_or_else(Instant::now);
            let came = come_back(&self.target, &self.observed, self.index, failures).await;
            drop(place);
            match came {
                Ok(connection) => session = Session::new(connection, Some(began)),
                Err(error) => return self.lost(format!("{error:#}")),
            }
        }
    }

    fn lost(&self, why: String) {
        let who = self.name.clone();
        self.observed.note(Event::Lost { who, why });
    }

    /// Whether it comes back.
    async fn wait_outside(&mut self) -> bool {
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Return => return true,
                Command::Close => return false,
                // Nobody sends anything with a client that is away.
                _ => {}
            }
        }
        false
    }

    /// Whatever was not confirmed will come again, and what just was may.
    fn forget(&mut self, session: Session) {
        self.observed.note(Event::Settled(session.unconfirmed));
        let just_now = self
            .confirmed
            .drain(..)
            .filter(|(at, _)| at.elapsed() < JUST_BEFORE);
        self.may_come_again.extend(just_now.map(|(_, number)| number));
        self.may_come_again.extend(session.numbers);
    }

    async fn serve(&mut self, session: &mut Session) -> Result<End, Closed> {
        self.send_again(session).await?;
        loop {
            let confirm_at = session.confirm_at;
            tokio::select! {
                incoming = session.connection.next() => match incoming? {
                    Incoming::Frame(frame) => self.frame(session, frame).await?,
                    Incoming::Unknown { delivery: Some(delivery) } => {
                        self.observed.note(Event::UnknownDelivery);
                        self.delivery(session, delivery).await?;
                    }
                    Incoming::Unknown { delivery: None } => {}
                },
                command = self.commands.recv() => match command {
                    Some(Command::Send { number, chat }) => self.send(session, number, chat).await?,
                    Some(Command::Request(frame, reply)) => {
                        if let Some(id) = frame.id() {
                            self.requests.insert(id, reply);
                        }
                        session.connection.send(&frame).await?;
                    }
                    Some(Command::BreakOff(at)) => return Ok(End::BrokenOff(at)),
                    Some(Command::Leave) => {
                        self.confirm(session).await?;
                        return Ok(End::Left);
                    }
                    // It is here.
                    Some(Command::Return) => {}
                    Some(Command::Close) | None => {
                        self.confirm(session).await?;
                        return Ok(End::Closed);
                    }
                },
                () = sleep_until(confirm_at.unwrap_or_else(Instant::now)), if confirm_at.is_some() => {
                    self.confirm(session).await?;
                }
            }
        }
    }

    /// Messages whose reply did not come through the connection before, in their order.
    async fn send_again(&mut self, session: &mut Session) -> Result<(), Closed> {
        for (number, chat) in self.unanswered.clone() {
            if self.write(session, number, chat).await? {
                self.observed.note(Event::SentAgain);
            }
        }
        Ok(())
    }

    async fn send(&mut self, session: &mut Session, number: usize, chat: u32) -> Result<(), Closed> {
        self.unanswered.insert(number, chat);
        if self.write(session, number, chat).await? {
            let at = event::now();
            self.observed.note(Event::Sent { number, at });
        }
        Ok(())
    }

    /// Whether it is known what messages look like.
    async fn write(&mut self, session: &mut Session, number: usize, chat: u32) -> Result<bool, Closed> {
        let Some(traffic) = self.observed.traffic() else {
            return Ok(false);
        };
        let message = SendMessage {
            id: FIRST_SEND_ID + number as u64,
            chat_id: traffic.chat_ids[chat as usize],
            message_id: traffic.run.message_id(number),
            message: traffic.body.clone(),
            attachments: Vec::new(),
        };
        session.connection.send(&message.into()).await?;
        Ok(true)
    }

    async fn frame(&mut self, session: &mut Session, frame: ServerFrame) -> Result<(), Closed> {
        match frame {
            ServerFrame::NewMessage(message) => {
                self.message(session, &message);
                self.delivery(session, message.delivery).await
            }
            ServerFrame::ChatUpdate(update) => {
                let of_this_run = self
                    .observed
                    .run_name()
                    .is_some_and(|name| update.name.as_ref() == Some(name));
                self.observed.note(Event::ChatUpdate { of_this_run });
                self.delivery(session, update.delivery).await
            }
            ServerFrame::InboxTrimmed(trimmed) => {
                self.observed.note(Event::Trimmed);
                self.delivery(session, trimmed.delivery).await
            }
            ServerFrame::Reply(reply) => {
                self.reply(reply);
                Ok(())
            }
            ServerFrame::CaughtUp(_) => {
                self.observed.note(Event::CaughtUp);
                if let Some(returned) = session.returned.take() {
                    let microseconds = returned.elapsed().as_micros() as u64;
                    self.observed.note(Event::Back { microseconds });
                }
                // Nothing more is about to come that could be confirmed with it.
                self.confirm(session).await
            }
            ServerFrame::Notice(_) => {
                self.observed.note(Event::Notice);
                Ok(())
            }
            // The close frame behind it says the same.
            ServerFrame::Closing(_) | ServerFrame::TokenExpiring(_) | ServerFrame::Welcome(_) => Ok(()),
        }
    }

    fn message(&mut self, session: &mut Session, message: &NewMessage) {
        let at = event::now();
        let traffic = self.observed.traffic();
        let number = traffic.and_then(|traffic| traffic.run.number(message.message_id));
        let again = number.is_some_and(|number| self.may_come_again.remove(&number));
        self.observed.note(Event::Message(Arrival {
            client: self.index,
            number,
            chat: traffic.and_then(|traffic| traffic.chat(message.chat_id)),
            seq: message.seq,
            right_text: traffic.is_some_and(|traffic| message.message == traffic.body),
            again,
            at,
        }));
        session.numbers.extend(number);
    }

    fn reply(&mut self, reply: Reply) {
        let Some(id) = reply.id else { return };
        if id < FIRST_SEND_ID {
            if let Some(request) = self.requests.remove(&id) {
                // Whoever asked may have given up.
                request.send(reply).ok();
            }
            return;
        }
        let number = (id - FIRST_SEND_ID) as usize;
        self.unanswered.remove(&number);
        let error = reply.error.map(|error| error.code.as_str().to_owned());
        let at = event::now();
        self.observed.note(Event::Answered { number, error, at });
    }

    async fn delivery(&mut self, session: &mut Session, delivery: u64) -> Result<(), Closed> {
        session.through = delivery;
        session.unconfirmed += 1;
        if session.unconfirmed >= CONFIRM_COUNT {
            return self.confirm(session).await;
        }
        session
            .confirm_at
            .get_or_insert_with(|| Instant::now() + CONFIRM_DELAY);
        Ok(())
    }

    async fn confirm(&mut self, session: &mut Session) -> Result<(), Closed> {
        session.confirm_at = None;
        if session.unconfirmed == 0 {
            return Ok(());
        }
        let received = Received {
            delivery: None,
            through: Some(session.through),
        };
        session.connection.send(&received.into()).await?;
        let now = Instant::now();
        let old = |(at, _): &(Instant, usize)| now.duration_since(*at) > JUST_BEFORE;
        while self.confirmed.front().is_some_and(old) {
            self.confirmed.pop_front();
        }
        self.confirmed
            .extend(session.numbers.drain(..).map(|number| (now, number)));
        let confirmed = std::mem::take(&mut session.unconfirmed);
        self.observed.note(Event::Settled(confirmed));
        Ok(())
    }
}
