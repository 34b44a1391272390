//! The talk itself: events of the client, typed lines and finished operations, one at a time.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tidings_client::{
    Accepted, ChatNow, Client, Content, Delivery, Event, Events, Options, RequestError, Stopped,
};
use tidings_protocol::{
    ChatId, ClientFrame, ClientId, ClientInfo, InboxTrimmed, NewMessage, Operation, Reply, Timestamp,
    TrimReason, UserId, Welcome, You,
};
use time::UtcOffset;
use tokio::time::timeout;

use crate::chat::book::Book;
use crate::chat::command::{self, Command};
use crate::chat::history::{History, Placed, Said};
use crate::chat::input::{Entered, Input};
use crate::chat::operation::{self, Effect, Running, sentence};
use crate::chat::screen::{LineId, Screen, Typed};
use crate::chat::text::{brief, clean, time_of_day};

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
    /// The devices of which one may be replaced.
    too_many: Vec<ClientInfo>,
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
            too_many: Vec::new(),
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
        timeout(CLOSE_TIMEOUT, self.client.close()).await.ok();
        if unsent > 0 {
            let unsent = messages(unsent);
            self.screen
                .status(format!("{unsent} not accepted yet; it goes on at the next start"));
        }
        self.screen.finish();
        result
    }

    /// A pipe's talk is over when everything is sent and everything has come.
    fn done(&self) -> bool {
        self.input_ended
            && self.sending.is_empty()
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
            () = self.screen.terminal().gone() => return Ok(false),
            interrupted = interrupt() => {
                interrupted?;
                if self.operation.is_none() || self.early.is_some() {
                    return Ok(false);
                }
                self.operation = None;
                self.screen.status("given up waiting");
            }
        }
        Ok(true)
    }

    async fn say_what_was_left(&mut self) {
        if let Ok(pending) = self.client.pending().await
            && !pending.is_empty()
        {
            let left = messages(pending.len());
            self.screen
                .status(format!("{left} of last time still to be sent"));
        }
    }

    fn take_event(&mut self, event: Event) -> anyhow::Result<bool> {
        match event {
            Event::Connected(welcome) => self.take_connected(*welcome),
            Event::Disconnected { ending, .. } => {
                let why = clean(&ending.to_string());
                match self.connection {
                    Connection::Up => self
                        .screen
                        .status(format!("connection lost ({why}), reconnecting")),
                    Connection::Never => {
                        self.screen
                            .status(format!("cannot connect ({why}), trying again"));
                    }
                    Connection::Lost | Connection::Failing => {}
                }
                self.connection = match self.connection {
                    Connection::Never | Connection::Failing => Connection::Failing,
                    Connection::Up | Connection::Lost => Connection::Lost,
                };
            }
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

    fn take_connected(&mut self, welcome: Welcome) {
        self.client_id = Some(welcome.client_id);
        if welcome.user_id != self.user {
            self.screen.status(format!(
                "the token is of {}, so that is who you are",
                welcome.user_id
            ));
            self.user = welcome.user_id;
            self.book = Book::new(self.user.clone());
        }
        self.too_many.clear();
        match self.connection {
            Connection::Never | Connection::Failing => {
                self.screen.status(format!("connected as {}", self.user));
            }
            Connection::Up | Connection::Lost => self.screen.status("connected"),
        }
        let first = self.early.is_some() && self.operation.is_none();
        self.connection = Connection::Up;
        if first {
            let client = self.client.clone();
            self.operation = Some(match self.target.clone() {
                Target::With(user) => operation::begin(client, None, Some(user)),
                Target::Group(name) => operation::begin(client, Some(Effect::Find(name)), None),
                Target::Nothing => operation::begin(client, Some(Effect::List), None),
            });
        }
    }

    fn take_too_many(&mut self, clients: Vec<ClientInfo>) {
        self.screen.status(format!(
            "{} has too many devices; this one takes the place of which?",
            self.user
        ));
        for (index, client) in clients.iter().enumerate() {
            let name = clean(client.name.as_deref().unwrap_or("no name"));
            let seen = time_of_day(client.last_seen, now(), self.offset);
            let online = if client.online {
                "online".to_owned()
            } else {
                format!("last seen {seen}")
            };
            self.screen
                .line(format!("  {} {name}: {online} ({})", index + 1, client.client_id));
        }
        self.screen
            .status("/replace 1 removes the first of them for ever; /quit changes nothing");
        self.too_many = clients;
    }

    /// Stores what came, shows it, and only then lets go of it.
    fn take_deliveries(&mut self, first: Delivery) -> anyhow::Result<()> {
        if let Some(early) = &mut self.early {
            early.push(first);
            return Ok(());
        }
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX {
            match self.events.next().now_or_never().flatten() {
                Some(Event::Delivery(delivery)) => batch.push(delivery),
                Some(other) => {
                    self.ahead.push_back(other);
                    break;
                }
                None => break,
            }
        }
        self.show(batch)
    }

    fn show(&mut self, batch: Vec<Delivery>) -> anyhow::Result<()> {
        let placed: Vec<Placed> = batch
            .iter()
            .filter_map(|delivery| self.placed(delivery.content()))
            .collect();
        self.history.add(&placed)?;
        for delivery in batch {
            match delivery.content() {
                Content::Message(message) => self.show_message(message),
                Content::Update(update) => {
                    let sentence = self.book.sentence(update);
                    self.book.update(update);
                    if self.open == Some(update.chat_id) {
                        self.screen.status(sentence);
                        if update.you == You::Removed {
                            self.open = None;
                        }
                    } else if update.you == You::Removed {
                        let name = update.name.as_deref().map_or("a chat".to_owned(), clean);
                        self.screen.status(format!("[{name}] {sentence}"));
                    } else {
                        self.screen
                            .status(format!("[{}] {sentence}", self.book.numbered(update.chat_id)));
                    }
                }
                Content::Trimmed(trimmed) => self.screen.status(trimmed_sentence(trimmed)),
            }
            delivery.confirm();
        }
        Ok(())
    }

    fn placed(&self, content: &Content) -> Option<Placed> {
        match content {
            Content::Message(message) => {
                let said = Said {
                    at: message.sent_at,
                    by: Some(message.user_id.clone()),
                    text: with_attachments(message),
                };
                Some((message.chat_id, message.seq, said))
            }
            Content::Update(update) => {
                let said = Said {
                    at: update.at,
                    by: None,
                    text: self.book.sentence(update),
                };
                Some((update.chat_id, update.seq, said))
            }
            Content::Trimmed(_) => None,
        }
    }

    fn show_message(&mut self, message: &NewMessage) {
        let text = with_attachments(message);
        let by = if message.user_id == self.user {
            "you (elsewhere)".to_owned()
        } else {
            message.user_id.to_string()
        };
        if self.open == Some(message.chat_id) {
            let at = time_of_day(message.sent_at, now(), self.offset);
            self.screen.line(format!("{at} {by}: {}", clean(&text)));
        } else {
            self.book.unread(message.chat_id);
            let label = self.book.numbered(message.chat_id);
            self.screen.line(format!("[{label}] {by}: {}", brief(&text)));
        }
    }

    async fn take_entered(&mut self, entered: Entered) -> anyhow::Result<bool> {
        let (line, typed) = match entered {
            Entered::Line(line, typed) => (line, typed),
            Entered::End => {
                self.input_ended = true;
                // A person who types Ctrl-D wants to go now.
                return Ok(!self.screen.terminal().is_there());
            }
        };
        let command = match command::parse(&line) {
            Ok(command) => command,
            Err(error) => {
                self.screen.status(clean(&error));
                return Ok(true);
            }
        };
        if !self.too_many.is_empty()
            && !matches!(command, Command::Replace(_) | Command::Quit | Command::Nothing)
        {
            self.screen.status("first say which device to replace, or /quit");
            return Ok(true);
        }
        match command {
            Command::Say(text) => self.say(text, typed).await,
            Command::Quit => return Ok(false),
            command => self.start(command).await,
        }
        Ok(true)
    }

    async fn say(&mut self, text: String, typed: Option<Typed>) {
        let Some(chat_id) = self.open else {
            self.screen
                .status("no chat is open: /list shows your chats, /open bob opens one with bob");
            return;
        };
        match self.client.send(chat_id, text.clone()).await {
            Ok(sending) => {
                let line = self.screen.own(self.own_line(None, &text, "…"), typed);
                self.sending.push(
                    async move {
                        let result = sending.accepted().await;
                        Sent {
                            line,
                            chat_id,
                            text,
                            result,
                        }
                    }
                    .boxed(),
                );
            }
            Err(error) => self.screen.status(format!("not sent: {}", sentence(error))),
        }
    }

    fn own_line(&self, at: Option<Timestamp>, text: &str, mark: &str) -> String {
        let at = time_of_day(at.unwrap_or_else(now), now(), self.offset);
        format!("{at} you: {} {mark}", clean(text))
    }

    fn take_sent(&mut self, sent: Sent) -> anyhow::Result<()> {
        match sent.result {
            Ok(accepted) => {
                let text = self.own_line(accepted.sent_at, &sent.text, &format!("✓ {}", accepted.seq));
                self.screen.amend(sent.line, text);
                self.remember_own(sent.chat_id, accepted, sent.text)
            }
            // It waits in the store for the next start.
            Err(RequestError::Stopped(_)) => Ok(()),
            Err(error) => {
                let mark = format!("✗ {}", sentence(error));
                self.screen
                    .amend(sent.line, self.own_line(None, &sent.text, &mark));
                Ok(())
            }
        }
    }

    fn remember_own(&mut self, chat_id: ChatId, accepted: Accepted, text: String) -> anyhow::Result<()> {
        let said = Said {
            at: accepted.sent_at.unwrap_or_else(now),
            by: Some(self.user.clone()),
            text,
        };
        self.history.add(&[(chat_id, accepted.seq, said)])
    }

    /// A request of last time has its answer.
    fn take_settled(
        &mut self,
        request: &ClientFrame,
        result: Result<Box<Reply>, tidings_protocol::Error>,
    ) -> anyhow::Result<()> {
        let what = match request {
            ClientFrame::SendMessage(message) => format!("“{}”", brief(&message.message)),
            ClientFrame::CreateChat(_) => "the new chat".to_owned(),
            _ => "the change of a chat".to_owned(),
        };
        let accepted = result.map_err(RequestError::Refused);
        match (request, accepted) {
            (ClientFrame::SendMessage(message), Ok(reply)) => {
                if let Ok(accepted) = Accepted::from_reply(&reply) {
                    let label = self.book.label(message.chat_id);
                    self.screen
                        .status(format!("{what} of last time sent to {label} ✓ {}", accepted.seq));
                    self.remember_own(message.chat_id, accepted, message.message.clone())?;
                }
            }
            (_, Ok(_)) => self.screen.status(format!("{what} of last time is done ✓")),
            (_, Err(error)) => self
                .screen
                .status(format!("{what} of last time failed ✗ {}", sentence(error))),
        }
        Ok(())
    }

    /// Begins what needs a word with the server, or does what does not.
    async fn start(&mut self, command: Command) {
        let client = self.client.clone();
        let open = self.open;
        let in_chat = |then: &dyn Fn(ChatId) -> Running| match open {
            Some(chat_id) => Ok(then(chat_id)),
            None => Err("no chat is open".to_owned()),
        };
        let operation = match command {
            Command::Nothing | Command::Say(_) | Command::Quit => return,
            Command::Help => {
                for line in command::HELP {
                    self.screen.line(*line);
                }
                return;
            }
            Command::List => return self.show_list(),
            Command::Replace(which) => return self.replace(&which).await,
            Command::Open(which) => self.find(&which),
            Command::Create { name, users } => Ok(operation::create(client, name, users)),
            Command::Add(user) => {
                in_chat(&|chat| operation::modify(client.clone(), chat, user.clone(), Operation::Add))
            }
            Command::Remove(user) => {
                in_chat(&|chat| operation::modify(client.clone(), chat, user.clone(), Operation::Remove))
            }
            Command::Leave => {
                in_chat(&|chat| operation::modify(client.clone(), chat, self.user.clone(), Operation::Remove))
            }
            Command::Who => in_chat(&|chat| operation::who(client.clone(), chat)),
            Command::Clients => Ok(operation::clients(client, self.client_id, now(), self.offset)),
        };
        match operation {
            Ok(operation) => {
                if self.connection != Connection::Up {
                    self.screen.status("waiting for the connection; Ctrl-C gives up");
                }
                self.operation = Some(operation);
            }
            Err(error) => self.screen.status(clean(&error)),
        }
    }

    fn show_list(&mut self) {
        let lines = self.book.lines(self.open);
        if lines.is_empty() {
            self.screen
                .status("no chats yet: /open bob begins one with bob, /create Lunch bob carol a group");
        }
        for line in lines {
            self.screen.line(line);
        }
    }

    fn find(&self, which: &str) -> Result<Running, String> {
        match self.book.find(which)? {
            Some(chat_id) => Ok(operation::open(self.client.clone(), chat_id)),
            None => match UserId::new(which) {
                Ok(user) if user != self.user => Ok(operation::open_direct(self.client.clone(), user)),
                _ => Err(format!("there is no chat {which}; /list shows them")),
            },
        }
    }

    async fn replace(&mut self, which: &str) {
        let index = which
            .parse::<usize>()
            .ok()
            .and_then(|number| number.checked_sub(1));
        match index.and_then(|index| self.too_many.get(index)) {
            Some(chosen) => {
                // An error here is told by the event that follows it.
                self.client.replace(chosen.client_id).await.ok();
                self.too_many.clear();
            }
            None if self.too_many.is_empty() => self.screen.status("there is nothing to replace"),
            None => self.screen.status("there is no such number"),
        }
    }

    fn take_result(&mut self, result: Result<Vec<Effect>, String>) -> anyhow::Result<()> {
        match result {
            Ok(effects) => {
                for effect in effects {
                    self.apply(effect)?;
                }
            }
            Err(error) => self.screen.status(error),
        }
        // What came early waited for the chats' names, and for the chat that was to be opened.
        if self.operation.is_none()
            && let Some(early) = self.early.take()
        {
            self.show(early)?;
        }
        Ok(())
    }

    fn apply(&mut self, effect: Effect) -> anyhow::Result<()> {
        match effect {
            Effect::Say(text) => self.screen.line(text),
            Effect::Note(chat) => self.book.note(chat),
            Effect::Open(now) => return self.open_chat(&now),
            Effect::List => self.show_list(),
            Effect::Find(name) => match self.book.find(&name) {
                Ok(Some(chat_id)) => self.operation = Some(operation::open(self.client.clone(), chat_id)),
                Ok(None) => self.screen.status(format!(
                    "you are in no group called {}; /create makes one, /list shows your chats",
                    clean(&name)
                )),
                Err(error) => self.screen.status(error),
            },
        }
        Ok(())
    }

    fn open_chat(&mut self, chat: &ChatNow) -> anyhow::Result<()> {
        let chat_id = chat.chat.chat_id;
        self.open = Some(chat_id);
        self.book.read(chat_id);
        for said in self.history.last(chat_id, HISTORY_LINES)? {
            let at = time_of_day(said.at, now(), self.offset);
            match said.by {
                Some(by) if by == self.user => self.screen.line(format!("{at} you: {}", clean(&said.text))),
                Some(by) => self.screen.line(format!("{at} {by}: {}", clean(&said.text))),
                None => self.screen.status(clean(&said.text)),
            }
        }
        let label = self.book.label(chat_id);
        self.screen
            .status(format!("this is the chat with {label}").replace("with only you", "of only you"));
        let absent: Vec<&str> = chat.not_yet_connected.iter().map(UserId::as_str).collect();
        match absent.as_slice() {
            [] => {}
            [one] => self.screen.status(format!(
                "{one} has not connected yet; what you write waits for them"
            )),
            several => {
                let several = several.join(", ");
                self.screen.status(format!(
                    "{several} have not connected yet; what you write waits for them"
                ));
            }
        }
        Ok(())
    }
}

fn with_attachments(message: &NewMessage) -> String {
    let files = message.attachments.iter().map(|attachment| {
        let name = attachment.name.as_deref().unwrap_or("a file");
        format!("[{name}, {} bytes]", attachment.size)
    });
    let text = (!message.message.is_empty()).then(|| message.message.clone());
    text.into_iter().chain(files).collect::<Vec<_>>().join(" ")
}

fn trimmed_sentence(trimmed: &InboxTrimmed) -> String {
    let missed = match trimmed.missed {
        Some(missed) => format!("about {}", messages(missed as usize)),
        None => "some messages".to_owned(),
    };
    let reason = match trimmed.reason {
        TrimReason::Full => "this inbox was full",
        TrimReason::Expired => "they were too old",
        TrimReason::Inactive => "this device was away for too long",
    };
    format!("{missed} did not reach you: {reason}")
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

/// Ctrl-C while nothing is being typed, or a polite request to end.
async fn interrupt() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
