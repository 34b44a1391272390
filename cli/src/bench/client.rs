//! One client of the load generator: sends what it is told to, confirms what comes as PROTOCOL.md asks (through
//! every 64 deliveries or 200 ms), and notes both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidings_client::connection::{Closed, Connection, Incoming};
use tidings_protocol::{ClientFrame, NewMessage, Received, Reply, SendMessage, ServerFrame};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::observed::{Observed, count};

/// Deliveries after which they are confirmed at once.
const CONFIRM_COUNT: u64 = 64;
/// How long a delivery waits for others to be confirmed with.
const CONFIRM_DELAY: Duration = Duration::from_millis(200);
/// Requests with a number from here on are messages: the number of the message is added. Below are the others.
const FIRST_SEND_ID: u64 = 1 << 32;

/// What a client is told to do.
#[derive(Debug)]
enum Command {
    /// Sends a message of the load.
    Send {
        number: usize,
        /// Index into the load's chats.
        chat: u32,
    },
    /// Sends a request and hands over its reply.
    Request(Box<ClientFrame>, oneshot::Sender<Reply>),
    /// Confirms what is left and closes.
    Close,
}

/// A connected client. Dropping it closes its connection without a handshake.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    commands: mpsc::UnboundedSender<Command>,
}

/// The task behind a [`Client`].
pub(crate) struct Task {
    name: String,
    index: u32,
    connection: Connection,
    commands: mpsc::UnboundedReceiver<Command>,
    observed: Arc<Observed>,
    requests: HashMap<u64, oneshot::Sender<Reply>>,
    /// The last delivery that is not confirmed yet, how many there are, and when they will be confirmed.
    through: u64,
    unconfirmed: u64,
    confirm_at: Option<Instant>,
}

impl Client {
    /// With the task that must be run for it. `connection` has been welcomed.
    pub(crate) fn new(
        name: String,
        index: u32,
        connection: Connection,
        observed: Arc<Observed>,
    ) -> (Self, Task) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let task = Task {
            name,
            index,
            connection,
            commands: receiver,
            observed,
            requests: HashMap::new(),
            through: 0,
            unconfirmed: 0,
            confirm_at: None,
        };
        (Self { commands }, task)
    }

    /// Sends a message of the load to the chat of this index. Never waits; a client whose connection is lost does
    /// nothing.
    pub(crate) fn send(&self, number: usize, chat: u32) {
        self.commands.send(Command::Send { number, chat }).ok();
    }

    /// Sends a request and waits for its reply. The request's number must be below 2^32 and not in use. `None`:
    /// the connection is lost.
    pub(crate) async fn request(&self, frame: impl Into<ClientFrame>) -> Option<Reply> {
        let (sender, reply) = oneshot::channel();
        let command = Command::Request(Box::new(frame.into()), sender);
        self.commands.send(command).ok()?;
        reply.await.ok()
    }

    /// Confirms what is left and closes.
    pub(crate) fn close(&self) {
        self.commands.send(Command::Close).ok();
    }
}

impl Task {
    /// Until the connection ends.
    pub(crate) async fn run(mut self) {
        if let Err(closed) = self.serve().await {
            self.observed.lost(&self.name, &closed.to_string());
        } else {
            self.connection.close().await;
        }
    }

    async fn serve(&mut self) -> Result<(), Closed> {
        loop {
            let confirm_at = self.confirm_at;
            tokio::select! {
                incoming = self.connection.next() => match incoming? {
                    Incoming::Frame(frame) => self.frame(frame).await?,
                    Incoming::Unknown { delivery: Some(delivery) } => self.delivery(delivery).await?,
                    Incoming::Unknown { delivery: None } => {}
                },
                command = self.commands.recv() => match command {
                    Some(Command::Send { number, chat }) => self.send(number, chat).await?,
                    Some(Command::Request(frame, reply)) => {
                        if let Some(id) = frame.id() {
                            self.requests.insert(id, reply);
                        }
                        self.connection.send(&frame).await?;
                    }
                    Some(Command::Close) | None => {
                        self.confirm().await?;
                        return Ok(());
                    }
                },
                () = sleep_until(confirm_at.unwrap_or_else(Instant::now)), if confirm_at.is_some() => {
                    self.confirm().await?;
                }
            }
        }
    }

    async fn send(&mut self, number: usize, chat: u32) -> Result<(), Closed> {
        let observed = Arc::clone(&self.observed);
        let Some(load) = observed.load() else {
            return Ok(());
        };
        let message = SendMessage {
            id: FIRST_SEND_ID + number as u64,
            chat_id: load.chat_ids[chat as usize],
            message_id: load.run.message_id(number),
            message: load.body.clone(),
            attachments: Vec::new(),
        };
        self.connection.send(&message.into()).await?;
        load.ledger().sent(number, load.now());
        Ok(())
    }

    async fn frame(&mut self, frame: ServerFrame) -> Result<(), Closed> {
        match frame {
            ServerFrame::NewMessage(message) => {
                count(&self.observed.messages);
                self.message(&message);
                self.delivery(message.delivery).await
            }
            ServerFrame::ChatUpdate(update) => {
                let of_this_run = self
                    .observed
                    .run_name()
                    .is_some_and(|name| update.name.as_ref() == Some(name));
                if of_this_run {
                    count(&self.observed.chat_updates);
                }
                self.delivery(update.delivery).await
            }
            ServerFrame::InboxTrimmed(trimmed) => {
                count(&self.observed.trimmed);
                self.delivery(trimmed.delivery).await
            }
            ServerFrame::Reply(reply) => {
                self.reply(reply);
                Ok(())
            }
            ServerFrame::CaughtUp(_) => {
                count(&self.observed.caught_up);
                Ok(())
            }
            ServerFrame::Notice(_) => {
                count(&self.observed.notices);
                Ok(())
            }
            // The close frame behind it says the same.
            ServerFrame::Closing(_) | ServerFrame::TokenExpiring(_) | ServerFrame::Welcome(_) => Ok(()),
        }
    }

    fn message(&self, message: &NewMessage) {
        if let Some(load) = self.observed.load() {
            load.delivered(self.index, message, load.now());
        }
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
        if let Some(load) = self.observed.load() {
            let code = reply.error.as_ref().map(|error| &error.code);
            load.answered((id - FIRST_SEND_ID) as usize, code);
        }
    }

    async fn delivery(&mut self, delivery: u64) -> Result<(), Closed> {
        self.through = delivery;
        self.unconfirmed += 1;
        if self.unconfirmed >= CONFIRM_COUNT {
            return self.confirm().await;
        }
        self.confirm_at
            .get_or_insert_with(|| Instant::now() + CONFIRM_DELAY);
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), Closed> {
        self.confirm_at = None;
        if std::mem::take(&mut self.unconfirmed) == 0 {
            return Ok(());
        }
        let received = Received {
            delivery: None,
            through: Some(self.through),
        };
        self.connection.send(&received.into()).await
    }
}
