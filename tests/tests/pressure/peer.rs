//! A connected client whose two directions do not wait for each other, as those of a program that floods do not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use std::sync::{Mutex, MutexGuard, PoisonError};
use tidings_client::connection::{Closed, ConnectError, Connection, Incoming, RequestFailed};
use tidings_protocol::{
    ChatId, ClientFrame, Codec, CreateChat, ErrorCode, Hello, MessageId, NewMessage, Received, Reply,
    RequestId, SendMessage, ServerFrame, UserId,
};
use tidings_tests::{Identity, eventually};
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

/// For a connection and its welcome.
const WELCOME_PATIENCE: Duration = Duration::from_mins(1);
/// Between two tries of what may succeed later.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often deliveries are confirmed, all at once.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);

/// What a peer has seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What was sent and is not answered, by request.
    sent: HashMap<u64, SendMessage>,
    /// What must be sent again: nobody knows what became of it.
    again: Vec<SendMessage>,
    /// Answers `unavailable`, after each of which the same was sent again.
    pub(crate) unavailable: u64,
    /// When each message was sent.
    pub(crate) sent_at: HashMap<MessageId, Instant>,
    /// When each was accepted.
    pub(crate) accepted: HashMap<MessageId, Instant>,
    /// Refusals by code, and whether they may be tried again.
    pub(crate) refused: BTreeMap<(String, bool), u64>,
    /// When each message came, the first time.
    pub(crate) came: HashMap<MessageId, Instant>,
    /// Copies beyond the first.
    pub(crate) doubled: u64,
    /// Messages below the highest `seq` of their chat.
    pub(crate) out_of_order: u64,
    highest: HashMap<ChatId, u64>,
    replies: HashMap<u64, Reply>,
    caught_up: bool,
    /// How the connection ended.
    pub(crate) closed: Option<Closed>,
}

/// See the module. The connection ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    frames: mpsc::UnboundedSender<ClientFrame>,
    seen: Arc<Mutex<Seen>>,
    next_id: Arc<AtomicU64>,
    confirms: Arc<AtomicBool>,
}

impl Peer {
    /// Connects, and waits until it is caught up. `confirms` says whether it confirms what it gets.
    pub(crate) async fn connect(ws: &str, identity: &Identity, secret: &str, confirms: bool) -> Self {
        let connection = timeout(WELCOME_PATIENCE, welcomed(ws, identity, secret)).await;
        let connection = connection.expect("a welcome in time");
        let (mut sender, mut receiver, earlier) = connection.split();
        let (frames, mut queue) = mpsc::unbounded_channel::<ClientFrame>();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let confirms = Arc::new(AtomicBool::new(confirms));
        tokio::spawn(async move {
            while let Some(frame) = queue.recv().await {
                if sender.send(&frame).await.is_err() {
                    return;
                }
            }
            // A reason to end is for the one who reads.
            sender.close().await.ok();
        });
        let (ours, back, may) = (seen.clone(), frames.downgrade(), confirms.clone());
        let next_id = Arc::new(AtomicU64::new(2));
        let ids = next_id.clone();
        tokio::spawn(async move {
            let mut through = Through::default();
            let mut again_at = Instant::now();
            for incoming in earlier {
                through.take(lock(&ours).hear(incoming));
            }
            loop {
                let incoming = timeout(CONFIRM_INTERVAL, receiver.next()).await;
                match incoming {
                    Ok(Ok(incoming)) => through.take(lock(&ours).hear(incoming)),
                    Ok(Err(closed)) => {
                        lock(&ours).closed = Some(closed);
                        return;
                    }
                    Err(_) => {}
                }
                let Some(frames) = back.upgrade() else { continue };
                if again_at.elapsed() >= RETRY_INTERVAL {
                    again_at = Instant::now();
                    let mut seen = lock(&ours);
                    for mut send in std::mem::take(&mut seen.again) {
                        send.id = ids.fetch_add(1, Ordering::Relaxed);
                        seen.sent.insert(send.id, send.clone());
                        frames.send(send.into()).ok();
                    }
                }
                if may.load(Ordering::Relaxed)
                    && let Some(through) = through.due()
                {
                    let delivery = None;
                    let through = Some(through);
                    frames.send(Received { delivery, through }.into()).ok();
                }
            }
        });
        let peer = Self {
            identity: identity.clone(),
            frames,
            seen,
            next_id,
            confirms,
        };
        eventually("a peer is caught up", async || {
            if peer.seen().caught_up { Ok(()) } else { Err(()) }
        })
        .await;
        peer
    }

    /// What it has seen.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// From now on it confirms.
    pub(crate) fn confirm(&self) {
        self.confirms.store(true, Ordering::Relaxed);
    }

    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a message without waiting for anything.
    pub(crate) fn send(&self, chat_id: ChatId, text: &str) -> MessageId {
        let (id, message_id) = (self.id(), MessageId(Uuid::new_v4()));
        let send = SendMessage {
            id,
            chat_id,
            message_id,
            message: text.to_owned(),
            attachments: vec![],
        };
        let mut seen = self.seen();
        seen.sent_at.insert(message_id, Instant::now());
        seen.sent.insert(id, send.clone());
        // Of a peer that is gone, the caller asks `closed`.
        self.frames.send(send.into()).ok();
        message_id
    }

    /// How many sends have no reply yet.
    pub(crate) fn unanswered(&self) -> usize {
        let seen = self.seen();
        seen.sent.len() + seen.again.len()
    }

    /// Makes a group; tries again while the system is too busy.
    pub(crate) async fn group(&self, others: &[UserId]) -> ChatId {
        let request_id = RequestId(Uuid::new_v4());
        let began = Instant::now();
        loop {
            let id = self.id();
            let create = CreateChat {
                id,
                request_id,
                participants: others.to_vec(),
                name: Some("pressure".to_owned()),
            };
            self.frames.send(create.into()).expect("the peer is connected");
            let reply = eventually("createChat is answered", async || {
                self.seen().replies.remove(&id).ok_or(())
            })
            .await;
            match reply.error {
                None => return reply.chat_id.expect("createChat answers a chatId"),
                Some(error) if error.retryable && began.elapsed() < WELCOME_PATIENCE => {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                Some(error) => panic!("no chat is created: {error}"),
            }
        }
    }
}

/// Connects and says hello, until that is welcomed.
pub(crate) async fn welcomed(ws: &str, identity: &Identity, secret: &str) -> Connection {
    let token = identity.token(secret);
    loop {
        match try_once(ws, &token).await {
            Ok(connection) => return connection,
            Err(asked) => tokio::time::sleep(asked.unwrap_or(RETRY_INTERVAL)).await,
        }
    }
}

/// One try to be welcomed; else when to come back, where the server says so.
pub(crate) async fn try_once(ws: &str, token: &str) -> Result<Connection, Option<Duration>> {
    let connection = Connection::connect(ws, Codec::Json, Some(token)).await;
    let mut connection = connection.map_err(|error| match error {
        ConnectError::Refused { retry_after, .. } => retry_after,
        _ => None,
    })?;
    match connection.hello(hello()).await {
        Ok(_) => Ok(connection),
        Err(RequestFailed::Refused(error)) => Err(error.retry_after_ms.map(Duration::from_millis)),
        Err(RequestFailed::Closed(_)) => Err(None),
    }
}

/// A plain hello.
fn hello() -> Hello {
    Hello {
        id: 1,
        token: None,
        name: None,
        replace: None,
    }
}

/// The last delivery, and when it was confirmed last.
#[derive(Default)]
struct Through {
    last: u64,
    confirmed: u64,
    at: Option<Instant>,
}

impl Through {
    fn take(&mut self, delivery: Option<u64>) {
        self.last = delivery.unwrap_or(self.last);
    }

    fn due(&mut self) -> Option<u64> {
        let waited = self.at.is_none_or(|at| at.elapsed() >= CONFIRM_INTERVAL);
        if self.last == self.confirmed || !waited {
            return None;
        }
        (self.confirmed, self.at) = (self.last, Some(Instant::now()));
        Some(self.last)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// The number of what came, if it is a delivery.
    fn hear(&mut self, incoming: Incoming) -> Option<u64> {
        match incoming {
            Incoming::Frame(ServerFrame::NewMessage(message)) => {
                self.message(&message);
                Some(message.delivery)
            }
            Incoming::Frame(ServerFrame::ChatUpdate(update)) => Some(update.delivery),
            Incoming::Frame(ServerFrame::InboxTrimmed(trimmed)) => Some(trimmed.delivery),
            Incoming::Unknown { delivery } => delivery,
            Incoming::Frame(ServerFrame::Reply(reply)) => {
                self.reply(reply);
                None
            }
            Incoming::Frame(ServerFrame::CaughtUp(_)) => {
                self.caught_up = true;
                None
            }
            Incoming::Frame(_) => None,
        }
    }

    fn message(&mut self, message: &NewMessage) {
        if self.came.contains_key(&message.message_id) {
            self.doubled += 1;
            return;
        }
        self.came.insert(message.message_id, Instant::now());
        let highest = self.highest.entry(message.chat_id).or_default();
        if message.seq < *highest {
            self.out_of_order += 1;
        }
        *highest = (*highest).max(message.seq);
    }

    fn reply(&mut self, reply: Reply) {
        let Some(id) = reply.id else { return };
        let Some(send) = self.sent.remove(&id) else {
            self.replies.insert(id, reply);
            return;
        };
        match reply.error {
            None => {
                self.accepted.insert(send.message_id, Instant::now());
            }
            Some(error) if error.code == ErrorCode::Unavailable && error.retryable => {
                self.unavailable += 1;
                self.again.push(send);
            }
            Some(error) => {
                let key = (error.code.as_str().to_owned(), error.retryable);
                *self.refused.entry(key).or_default() += 1;
            }
        }
    }

    /// Whether every refusal has one of these codes and may be tried again.
    pub(crate) fn only_refused_by(&self, codes: &[ErrorCode]) -> bool {
        self.refused
            .keys()
            .all(|(code, retryable)| *retryable && codes.iter().any(|allowed| allowed.as_str() == code))
    }
}
