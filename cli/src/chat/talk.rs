//! The talk itself: events of the client, typed lines and finished operations, one at a time.

mod arrivals;
mod connection;
mod interrupts;
mod opening;
mod sending;
mod transfers;
mod typing;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tidings_client::{Accepted, Client, Delivery, Event, Events, Options, RequestError, Stopped};
use tidings_protocol::{Attachment, ChatId, ClientId, ClientInfo, Timestamp, UserId};
use time::UtcOffset;
use tokio::time::timeout;

use crate::chat::book::Book;
use crate::chat::history::History;
use crate::chat::input::Input;
use crate::chat::operation::Running;
use crate::chat::screen::{LineId, Screen};
use crate::chat::shelf::Shelf;
use crate::chat::talk::interrupts::Interrupts;
use crate::chat::talk::transfers::Ended;
use crate::chat::text::clean;

/// Lines of a chat that are shown when it is opened.
const HISTORY_LINES: usize = 20;
/// Deliveries stored at once.
const BATCH_MAX: usize = 64;
/// For the confirmations and the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(6);

/// What to open first.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The direct chat with this user.
    With(UserId),
    /// The group of this name.
    Group(String),
    /// Nothing.
    Nothing,
}

/// What became of a sent message.
struct Sent {
    line: LineId,
    chat_id: ChatId,
    text: String,
    attachments: Vec<Attachment>,
    result: Result<Accepted, RequestError>,
}

pub(crate) struct Talk {
    user: UserId,
    target: Target,
    client: Client,
    client_id: Option<ClientId>,
    events: Events,
    /// Taken from the events and not yet looked at.
    ahead: VecDeque<Event>,
    history: History,
    screen: Screen,
    input: Input,
    offset: UtcOffset,

    book: Book,
    open: Option<ChatId>,
    /// Deliveries that came before the chats were known.
    early: Option<Vec<Delivery>>,
    operation: Option<Running>,
    sending: FuturesUnordered<BoxFuture<'static, Sent>>,
    /// Files on their way.
    transfers: FuturesUnordered<BoxFuture<'static, Ended>>,
    shelf: Shelf,
    /// The devices of which one may be replaced.
    too_many: Vec<ClientInfo>,
    interrupts: Interrupts,
    connection: Connection,
    caught_up: bool,
    input_ended: bool,
}

/// What was last said about the connection.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Connection {
    Never,
    Failing,
    Up,
    Lost,
}

impl Talk {
    pub(crate) fn new(
        options: Options,
        user: UserId,
        target: Target,
        history: History,
        screen: Screen,
        input: Input,
        offset: UtcOffset,
    ) -> anyhow::Result<Self> {
        let (client, events) = Client::connect(options)?;
        Ok(Self {
            book: Book::new(user.clone()),
            user,
            target,
            client,
            client_id: None,
            events,
            ahead: VecDeque::new(),
            history,
            screen,
            input,
            offset,
            open: None,
            early: Some(Vec::new()),
            operation: None,
            sending: FuturesUnordered::new(),
            transfers: FuturesUnordered::new(),
            shelf: Shelf::default(),
            too_many: Vec::new(),
            interrupts: Interrupts::new()?,
            connection: Connection::Never,
            caught_up: false,
            input_ended: false,
        })
    }

    /// Until the person or the server ends it.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        self.say_what_was_left().await;
        let result = loop {
            match self.step().await {
                Ok(true) if !self.done() => {}
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let unsent = self.sending.len();
        let untransferred = self.transfers.len();
        // Their lines are let go of with them.
        self.transfers.clear();
        timeout(CLOSE_TIMEOUT, self.client.close()).await.ok();
        if unsent > 0 {
            let unsent = messages(unsent);
            self.screen
                .status(format!("{unsent} not accepted yet; it goes on at the next start"));
        }
        if untransferred > 0 {
            self.screen.status(format!(
                "{} not through yet; the same command goes on where it stopped",
                if untransferred == 1 {
                    "1 file".to_owned()
                } else {
                    format!("{untransferred} files")
                }
            ));
        }
        self.screen.finish();
        result
    }

    /// A pipe's talk is over when everything is sent and everything has come.
    fn done(&self) -> bool {
        self.input_ended
            && self.sending.is_empty()
            && self.transfers.is_empty()
            && self.operation.is_none()
            && self.caught_up
            && self.early.is_none()
            && self.ahead.is_empty()
    }

    /// One thing that happens. False: the end.
    async fn step(&mut self) -> anyhow::Result<bool> {
        if let Some(event) = self.ahead.pop_front() {
            return self.take_event(event);
        }
        if self.input_ended && !self.too_many.is_empty() {
            bail!(
                "{} has too many devices: say which to remove with --replace",
                self.user
            );
        }
        let label = &self.book;
        let prompt = || match self.open {
            Some(chat_id) => format!("{}> ", label.label(chat_id)),
            None => format!("{} (no chat)> ", self.user),
        };
        let choosing = !self.too_many.is_empty();
        // Lines wait until the operation before them is through: they may be meant for the chat it opens.
        let listening = !self.input_ended && self.operation.is_none() && (self.early.is_none() || choosing);
        let operation = async {
            match &mut self.operation {
                Some(operation) => operation.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.events.next() => match event {
                Some(event) => return self.take_event(event),
                None => return Ok(false),
            },
            entered = self.input.next(prompt), if listening => return self.take_entered(entered).await,
            result = operation => {
                self.operation = None;
                self.take_result(result)?;
            }
            Some(sent) = self.sending.next() => self.take_sent(sent)?,
            Some(ended) = self.transfers.next() => self.take_transfer(ended).await,
            () = self.screen.terminal().gone() => return Ok(false),
            () = self.interrupts.next() => {
                if self.operation.is_none() || self.early.is_some() {
                    return Ok(false);
                }
                self.operation = None;
                self.screen.status("given up waiting");
            }
        }
        Ok(true)
    }

    fn take_event(&mut self, event: Event) -> anyhow::Result<bool> {
        match event {
            Event::Connected(welcome) => self.take_connected(*welcome),
            Event::Disconnected { ending, .. } => self.take_disconnected(&ending),
            Event::TooManyClients(clients) => self.take_too_many(clients),
            Event::Delivery(delivery) => self.take_deliveries(delivery)?,
            Event::CaughtUp => self.caught_up = true,
            Event::Connecting { .. } | Event::Notice(_) => {}
            Event::Delayed { error, retry_in, .. } => {
                let seconds = retry_in.as_secs_f64();
                let why = clean(&error.message);
                self.screen.status(format!(
                    "the server asks to wait {seconds:.1} s: {why} ({})",
                    error.code
                ));
            }
            Event::Settled { request, result } => self.take_settled(&request, result)?,
            Event::Stopped(reason) => {
                return match reason {
                    Stopped::ByApplication => Ok(false),
                    Stopped::Replaced => {
                        bail!(
                            "this device of {} has connected elsewhere; choose another with --device",
                            self.user
                        )
                    }
                    reason => bail!("{}", clean(&reason.to_string())),
                };
            }
        }
        Ok(true)
    }
}

fn messages(count: usize) -> String {
    if count == 1 {
        "1 message".to_owned()
    } else {
        format!("{count} messages")
    }
}

fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(elapsed.as_millis() as i64)
}
