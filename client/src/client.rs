//! The handle that an application holds.

use tidings_protocol::{
    AttachmentId, Chat, ChatId, ClientFrame, ClientId, ClientInfo, CreateAttachment, CreateChat, Error,
    GetChat, ListChats, ListClients, MessageId, ModifyChatParticipants, Operation, Ping, RemoveClient, Reply,
    RequestId, SendMessage, Timestamp, UserId,
};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::attachments::Media;
use crate::driver::Driver;
use crate::event::Events;
use crate::link::Stopped;
use crate::options::Options;
use crate::request::{Changed, ChatNow, Created, RequestError, Sending};
use crate::store::StoreError;

/// Commands on their way to the client's task; more make the application wait.
const COMMANDS_MAX: usize = 64;
/// Chats a page: what the server allows.
const CHATS_A_PAGE: u32 = 100;

/// How a client stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Between two connections, or waiting for [`Client::replace`].
    Disconnected,
    /// Making a connection.
    Connecting,
    /// Welcomed.
    Connected,
    /// Stopped for good.
    Stopped(Stopped),
}

/// A client of Tidings. Cheap to clone; when the last clone is dropped the connection is closed.
///
/// Every request waits for the connection if there is none, is sent again on the next connection if this one
/// breaks, and once more when the server says `unavailable`, `rate_limited` or `chat_busy`; an application
/// that cannot wait so long drops the future. Messages and changes of chats are in the [`Store`](crate::Store)
/// before they are sent, keep their order within a chat, and are sent at least until they are answered,
/// whether somebody waits for them or not; the server and the recipients see to it that they count once.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
    media: Media,
}

/// What the handle asks of the task.
#[derive(Debug)]
pub(crate) enum Command {
    Request(Request),
    Replace(ClientId),
    Pending(oneshot::Sender<Vec<ClientFrame>>),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) frame: ClientFrame,
    /// Goes on when nobody waits, also in another run.
    pub(crate) durable: bool,
    /// Told when it is in the store.
    pub(crate) queued: oneshot::Sender<Result<(), RequestError>>,
    /// Told the final answer.
    pub(crate) answer: oneshot::Sender<Result<Box<Reply>, RequestError>>,
}

impl Client {
    /// Makes a client, which connects by itself and stays connected. Must be called in a tokio runtime. An
    /// error means that the store cannot be read.
    pub fn connect(options: Options) -> Result<(Self, Events), StoreError> {
        let (commands, commands_rx) = mpsc::channel(COMMANDS_MAX);
        let tokens = options.tokens.clone();
        let (driver, events, state, session) = Driver::new(options, commands_rx)?;
        tokio::spawn(driver.run());
        let media = Media::new(tokens, session, state.clone());
        let client = Self {
            commands,
            state,
            media,
        };
        Ok((client, events))
    }

    /// How it stands now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Sends a message. Returns when it is in the store; [`Sending::accepted`] waits for the server.
    pub async fn send(&self, chat_id: ChatId, message: impl Into<String>) -> Result<Sending, RequestError> {
        self.send_with(chat_id, message, Vec::new()).await
    }

    /// The same with attachments.
    pub async fn send_with(
        &self,
        chat_id: ChatId,
        message: impl Into<String>,
        attachments: Vec<AttachmentId>,
    ) -> Result<Sending, RequestError> {
        let message_id = MessageId(Uuid::now_v7());
        let frame = SendMessage {
            id: 0,
            chat_id,
            message_id,
            message: message.into(),
            attachments,
        };
        let answer = self.queue(frame.into(), true).await?;
        Ok(Sending { message_id, answer })
    }

    /// The direct chat with somebody, made if it is not there.
    pub async fn direct_chat(&self, user: UserId) -> Result<Created, RequestError> {
        self.create_chat(vec![user], None).await
    }

    /// Makes a chat. With one other participant and no name it is the direct chat of the two.
    pub async fn create_chat(
        &self,
        participants: Vec<UserId>,
        name: Option<String>,
    ) -> Result<Created, RequestError> {
        let frame = CreateChat {
            id: 0,
            request_id: RequestId(Uuid::now_v7()),
            participants,
            name,
        };
        let reply = self.request(frame.into(), true).await?;
        Created::from_reply(&reply)
    }

    /// Adds or removes a participant; removing oneself is leaving.
    pub async fn modify(
        &self,
        chat_id: ChatId,
        user_id: UserId,
        operation: Operation,
    ) -> Result<Changed, RequestError> {
        let frame = ModifyChatParticipants {
            id: 0,
            request_id: RequestId(Uuid::now_v7()),
            chat_id,
            user_id,
            operation,
        };
        let reply = self.request(frame.into(), true).await?;
        Ok(Changed::from_reply(&reply))
    }

    /// All chats the user is in, by chat id.
    pub async fn chats(&self) -> Result<Vec<Chat>, RequestError> {
        let mut chats = Vec::new();
        let mut after = None;
        loop {
            let frame = ListChats {
                id: 0,
                after,
                limit: Some(CHATS_A_PAGE),
            };
            let reply = self.request(frame.into(), false).await?;
            let page = reply.chats.ok_or(RequestError::Incomplete("chats"))?;
            let empty = page.is_empty();
            chats.extend(page);
            after = reply.next.flatten();
            if after.is_none() || empty {
                return Ok(chats);
            }
        }
    }

    /// One chat.
    pub async fn chat(&self, chat_id: ChatId) -> Result<ChatNow, RequestError> {
        let reply = self.request(GetChat { id: 0, chat_id }.into(), false).await?;
        Ok(ChatNow {
            chat: reply.chat.ok_or(RequestError::Incomplete("chat"))?,
            not_yet_connected: reply.not_yet_connected.unwrap_or_default(),
        })
    }

    /// The user's active clients.
    pub async fn clients(&self) -> Result<Vec<ClientInfo>, RequestError> {
        let reply = self.request(ListClients { id: 0 }.into(), false).await?;
        reply.clients.ok_or(RequestError::Incomplete("clients"))
    }

    /// Removes a client of the same user, for ever.
    pub async fn remove_client(&self, client_id: ClientId) -> Result<(), RequestError> {
        self.request(RemoveClient { id: 0, client_id }.into(), false)
            .await?;
        Ok(())
    }

    /// Announces an upload; the reply says where it goes. `frame.id` is ignored. The same again answers the
    /// same slot. [`Self::upload`] does this and the rest.
    pub async fn create_attachment(&self, frame: CreateAttachment) -> Result<Box<Reply>, RequestError> {
        self.request(frame.into(), false).await
    }

    /// There and back; the server's clock.
    pub async fn ping(&self) -> Result<Timestamp, RequestError> {
        let reply = self.request(Ping { id: 0 }.into(), false).await?;
        reply.server_time.ok_or(RequestError::Incomplete("serverTime"))
    }

    /// After [`Event::TooManyClients`](crate::Event::TooManyClients): removes that one, for ever, and takes
    /// its place.
    pub async fn replace(&self, client_id: ClientId) -> Result<(), RequestError> {
        self.command(Command::Replace(client_id)).await
    }

    /// The messages and changes that have no final answer yet, in order; after a start, what the earlier run
    /// left.
    pub async fn pending(&self) -> Result<Vec<ClientFrame>, RequestError> {
        let (answer, pending) = oneshot::channel();
        self.command(Command::Pending(answer)).await?;
        pending.await.map_err(|_| self.stopped())
    }

    /// Waits until everything confirmed so far is in the store and, where there is a connection, told to
    /// the server.
    pub async fn flush(&self) -> Result<(), RequestError> {
        let (answer, flushed) = oneshot::channel();
        self.command(Command::Flush(answer)).await?;
        flushed.await.map_err(|_| self.stopped())
    }

    /// Tells the server what was confirmed and closes the connection, with the handshake, within 5 seconds.
    pub async fn close(&self) {
        let (answer, closed) = oneshot::channel();
        if self.command(Command::Close(answer)).await.is_ok() {
            closed.await.ok();
        }
    }

    pub(crate) const fn media(&self) -> &Media {
        &self.media
    }

    async fn request(&self, frame: ClientFrame, durable: bool) -> Result<Box<Reply>, RequestError> {
        let answer = self.queue(frame, durable).await?;
        answer.await.map_err(|_| self.stopped())?
    }

    async fn queue(
        &self,
        frame: ClientFrame,
        durable: bool,
    ) -> Result<oneshot::Receiver<Result<Box<Reply>, RequestError>>, RequestError> {
        let valid: Result<(), Error> = frame.validate();
        valid?;
        let (queued, is_queued) = oneshot::channel();
        let (answer, is_answered) = oneshot::channel();
        let request = Request {
            frame,
            durable,
            queued,
            answer,
        };
        self.command(Command::Request(request)).await?;
        is_queued.await.map_err(|_| self.stopped())??;
        Ok(is_answered)
    }

    async fn command(&self, command: Command) -> Result<(), RequestError> {
        self.commands.send(command).await.map_err(|_| self.stopped())
    }

    fn stopped(&self) -> RequestError {
        match &*self.state.borrow() {
            State::Stopped(reason) => RequestError::Stopped(reason.clone()),
            _ => RequestError::Stopped(Stopped::ByApplication),
        }
    }
}
