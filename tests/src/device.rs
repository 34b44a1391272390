//! A person's device: a bare connection that hears everything and confirms only when told to.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tidings_client::connection::{Closed, Connection, Incoming, RequestFailed};
use tidings_protocol::{
    ChatId, ChatUpdate, ClientFrame, ClientId, Codec, CreateChat, Error, ErrorCode, Hello, MessageId,
    ModifyChatParticipants, NewMessage, Operation, Received, Reply, RequestId, SendMessage, ServerFrame,
    Status, UserId, Welcome,
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::eventually::PATIENCE;
use crate::system::System;
use crate::token::Identity;

/// Something that a device heard, replies aside.
pub type Heard = ServerFrame;

/// A connected device.
pub struct Device {
    /// Who and which.
    pub identity: Identity,
    connection: Connection,
    next_id: u64,
    /// Heard while waiting for something else, in the order it came.
    earlier: VecDeque<Heard>,
    replies: VecDeque<Reply>,
}

impl Device {
    /// A device of a user whom nobody knows yet, on gateway 0, caught up.
    pub async fn fresh(system: &System, name: &str) -> Self {
        Self::of(system, &Identity::fresh(name)).await
    }

    /// A device on gateway 0, welcomed and caught up; what was heard on the way can still be expected.
    pub async fn of(system: &System, identity: &Identity) -> Self {
        Self::on(system, 0, identity, Codec::Json).await
    }

    /// The same on a gateway of choice.
    pub async fn on(system: &System, gateway: usize, identity: &Identity, codec: Codec) -> Self {
        let mut device = Self::welcomed(system, gateway, identity, codec).await;
        device.until_caught_up().await;
        device
    }

    /// A device that has been welcomed and has not waited for anything else.
    pub async fn welcomed(system: &System, gateway: usize, identity: &Identity, codec: Codec) -> Self {
        let began = Instant::now();
        loop {
            let (device, welcome) = Self::hello(system, gateway, identity, codec, None).await;
            match (welcome, began.elapsed()) {
                (Ok(_), _) => return device,
                // A hundred new clients at once may be told so on a busy machine; every client comes back then.
                (Err(error), waited) if error.code == ErrorCode::Unavailable && waited < PATIENCE => {
                    let retry_after = error.retry_after_ms.unwrap_or(1_000);
                    tokio::time::sleep(Duration::from_millis(retry_after)).await;
                }
                (Err(error), _) => panic!("{} was not welcomed: {error}", identity.user_id),
            }
        }
    }

    /// Connects and says hello, whatever the answer is.
    pub async fn hello(
        system: &System,
        gateway: usize,
        identity: &Identity,
        codec: Codec,
        replace: Option<ClientId>,
    ) -> (Self, Result<Welcome, Error>) {
        let connection = Connection::connect(&system.ws(gateway), codec, None).await;
        let connection = connection.unwrap_or_else(|error| panic!("gateway {gateway}: {error}"));
        let mut device = Self {
            identity: identity.clone(),
            connection,
            next_id: 1,
            earlier: VecDeque::new(),
            replies: VecDeque::new(),
        };
        let welcome = device.say_hello(&system.secret(), replace).await;
        (device, welcome)
    }

    /// A device that says hello with a token of choice, and is welcomed.
    pub async fn with_token(system: &System, identity: &Identity, token: &str, codec: Codec) -> Self {
        Self::at(&system.ws(0), identity, token, codec).await
    }

    /// The same at any URL, if it is welcomed there.
    pub async fn try_at(ws: &str, identity: &Identity, token: &str, codec: Codec) -> Option<Self> {
        let connection = Connection::connect(ws, codec, Some(token)).await.ok()?;
        let mut device = Self::around(connection, identity);
        let hello = Hello {
            id: 1,
            token: None,
            name: None,
            replace: None,
        };
        let welcome = timeout(PATIENCE, device.connection.hello(hello)).await;
        welcome.expect("hello is answered").ok()?;
        Some(device)
    }

    fn around(connection: Connection, identity: &Identity) -> Self {
        Self {
            identity: identity.clone(),
            connection,
            next_id: 1,
            earlier: VecDeque::new(),
            replies: VecDeque::new(),
        }
    }

    /// The same at any URL.
    pub async fn at(ws: &str, identity: &Identity, token: &str, codec: Codec) -> Self {
        let connection = Connection::connect(ws, codec, Some(token)).await;
        let mut device = Self::around(connection.expect("the gateway accepts sockets"), identity);
        let hello = Hello {
            id: 1,
            token: None,
            name: None,
            replace: None,
        };
        let welcome = timeout(PATIENCE, device.connection.hello(hello))
            .await
            .expect("hello is answered");
        welcome.unwrap_or_else(|error| panic!("{} was not welcomed: {error:?}", identity.user_id));
        device
    }

    /// Says hello (again, after `too_many_clients`).
    pub async fn say_hello(&mut self, secret: &str, replace: Option<ClientId>) -> Result<Welcome, Error> {
        let token = Some(self.identity.token(secret));
        let id = self.id();
        let hello = Hello {
            id,
            token,
            name: Some("test".to_owned()),
            replace,
        };
        match timeout(PATIENCE, self.connection.hello(hello))
            .await
            .expect("hello is answered")
        {
            Ok(welcome) => Ok(welcome),
            Err(RequestFailed::Refused(error)) => Err(error),
            Err(RequestFailed::Closed(closed)) => panic!("closed instead of an answer to hello: {closed}"),
        }
    }

    /// The number for another request.
    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Who this is.
    pub fn user_id(&self) -> UserId {
        self.identity.user_id.clone()
    }

    /// Sends a frame and waits for nothing.
    pub async fn send(&mut self, frame: impl Into<ClientFrame>) {
        self.connection
            .send(&frame.into())
            .await
            .expect("the connection is open");
    }

    /// The bare connection.
    pub const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sends a request and waits for its reply.
    pub async fn request(&mut self, frame: impl Into<ClientFrame>) -> Result<Reply, Error> {
        let frame = frame.into();
        let id = frame.id();
        self.send(frame).await;
        self.reply(id.expect("a request has a number")).await
    }

    /// Waits for the reply to a request that was sent.
    pub async fn reply(&mut self, id: u64) -> Result<Reply, Error> {
        let reply = loop {
            if let Some(index) = self.replies.iter().position(|reply| reply.id == Some(id)) {
                break self.replies.remove(index).expect("it was found there");
            }
            match self.hear().await {
                ServerFrame::Reply(reply) => self.replies.push_back(reply),
                heard => self.earlier.push_back(heard),
            }
        };
        match reply.status {
            Status::Success => Ok(reply),
            Status::Failure => Err(reply.error.expect("a FAILURE has an error")),
        }
    }

    /// Creates a group chat with these people.
    pub async fn create_group(&mut self, others: &[UserId]) -> ChatId {
        let id = self.id();
        let request = CreateChat {
            id,
            request_id: RequestId(Uuid::new_v4()),
            participants: others.to_vec(),
            name: Some("group".to_owned()),
        };
        let reply = self.request(request).await.expect("the chat is created");
        reply.chat_id.expect("createChat answers a chatId")
    }

    /// The direct chat with somebody.
    pub async fn direct_chat(&mut self, other: &UserId) -> ChatId {
        let id = self.id();
        let request_id = RequestId(Uuid::new_v4());
        let request = CreateChat {
            id,
            request_id,
            participants: vec![other.clone()],
            name: None,
        };
        let reply = self.request(request).await.expect("the chat is created");
        reply.chat_id.expect("createChat answers a chatId")
    }

    /// Adds or removes somebody.
    pub async fn modify(
        &mut self,
        chat_id: ChatId,
        user_id: &UserId,
        operation: Operation,
    ) -> Result<Reply, Error> {
        let id = self.id();
        let request_id = RequestId(Uuid::new_v4());
        let request = ModifyChatParticipants {
            id,
            request_id,
            chat_id,
            user_id: user_id.clone(),
            operation,
        };
        self.request(request).await
    }

    /// Sends a message and waits until it is accepted.
    pub async fn say(&mut self, chat_id: ChatId, text: &str) -> Reply {
        let message_id = MessageId(Uuid::new_v4());
        self.say_as(chat_id, message_id, text)
            .await
            .expect("the message is accepted")
    }

    /// Sends a message with an id of choice.
    pub async fn say_as(
        &mut self,
        chat_id: ChatId,
        message_id: MessageId,
        text: &str,
    ) -> Result<Reply, Error> {
        let id = self.id();
        self.request(SendMessage {
            id,
            chat_id,
            message_id,
            message: text.to_owned(),
            attachments: vec![],
        })
        .await
    }

    /// The next thing heard that `wanted` wants; what is not wanted can still be expected later.
    pub async fn expect<T>(&mut self, what: &str, mut wanted: impl FnMut(&Heard) -> Option<T>) -> T {
        for index in 0..self.earlier.len() {
            if let Some(found) = wanted(&self.earlier[index]) {
                self.earlier.remove(index);
                return found;
            }
        }
        loop {
            let heard = match timeout(PATIENCE, self.next_frame()).await {
                Ok(Ok(heard)) => heard,
                Ok(Err(closed)) => panic!("{} waited for {what} and was {closed}", self.identity.user_id),
                Err(elapsed) => panic!(
                    "{elapsed}: {} never heard {what}; heard {:?}",
                    self.identity.user_id, self.earlier
                ),
            };
            if let ServerFrame::Reply(reply) = heard {
                self.replies.push_back(reply);
            } else if let Some(found) = wanted(&heard) {
                return found;
            } else {
                self.earlier.push_back(heard);
            }
        }
    }

    /// The next message.
    pub async fn message(&mut self) -> NewMessage {
        self.expect("a message", |heard| match heard {
            ServerFrame::NewMessage(message) => Some(message.clone()),
            _ => None,
        })
        .await
    }

    /// The next change of a chat's participants.
    pub async fn update(&mut self) -> ChatUpdate {
        self.expect("a chatUpdate", |heard| match heard {
            ServerFrame::ChatUpdate(update) => Some(update.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for `caughtUp`.
    pub async fn until_caught_up(&mut self) {
        self.expect("caughtUp", |heard| {
            matches!(heard, ServerFrame::CaughtUp(_)).then_some(())
        })
        .await;
    }

    /// Confirms one delivery.
    pub async fn confirm(&mut self, delivery: u64) {
        self.send(Received {
            delivery: Some(delivery),
            through: None,
        })
        .await;
    }

    /// Confirms everything up to a delivery.
    pub async fn confirm_through(&mut self, delivery: u64) {
        self.send(Received {
            delivery: None,
            through: Some(delivery),
        })
        .await;
    }

    /// Asks something and waits for the answer: whatever the server had to say before has been heard by then.
    /// Says what was heard and not expected.
    pub async fn settle(&mut self) -> Vec<Heard> {
        let id = self.id();
        self.request(tidings_protocol::Ping { id })
            .await
            .expect("a ping is answered");
        self.earlier.drain(..).collect()
    }

    /// Waits until the server closes the connection, and says how, and what was heard before.
    pub async fn until_closed(&mut self) -> (Closed, Vec<Heard>) {
        let closed = timeout(PATIENCE, async {
            loop {
                match self.next_frame().await {
                    Ok(heard) => self.earlier.push_back(heard),
                    Err(closed) => return closed,
                }
            }
        });
        let closed = closed.await.expect("the server closes the connection");
        (closed, self.earlier.drain(..).collect())
    }

    /// Closes the connection as a client does.
    pub async fn close(self) {
        self.connection.close().await;
    }

    async fn hear(&mut self) -> Heard {
        match timeout(PATIENCE, self.next_frame()).await {
            Ok(Ok(heard)) => heard,
            Ok(Err(closed)) => panic!("{} was {closed}", self.identity.user_id),
            Err(elapsed) => panic!(
                "{elapsed}: {} never heard anything; heard before {:?}",
                self.identity.user_id, self.earlier
            ),
        }
    }

    async fn next_frame(&mut self) -> Result<Heard, Closed> {
        loop {
            if let Incoming::Frame(frame) = self.connection.next().await? {
                return Ok(frame);
            }
        }
    }
}
