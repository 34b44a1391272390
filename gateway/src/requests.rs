//! The requests of one connection: those under way, and messages that wait for their turn.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tidings_protocol::{ChatId, ClientFrame, Error, ErrorCode, Reply, SendMessage};
use tidings_service::{Claims, Kind, Span, clock};

use crate::gateway::Gateway;
use crate::sessions::SessionHandle;
use crate::unavailable::{in_time, unavailable};

/// Requests of one connection under way; beyond, its socket is not read until one is answered.
const REQUESTS_MAX: usize = 64;
/// Of these, requests that ask Postgres. Fewer, since all connections share its few connections: somebody who asks
/// without reading the answers must not make everybody else wait behind 64 of them.
const QUESTIONS_MAX: usize = 8;

/// What a finished request leaves.
pub(crate) struct Done {
    pub(crate) reply: Reply,
    /// The chat whose next message may be sent now.
    sent_to: Option<ChatId>,
    /// Whether it asked Postgres.
    asked: bool,
    /// A token that was renewed.
    pub(crate) renewed: Option<Claims>,
}

/// See the module.
pub(crate) struct Requests {
    gateway: Arc<Gateway>,
    handle: Arc<SessionHandle>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Messages that wait for the one before them in the same chat: a connection's sends to a chat keep their order.
    queued: HashMap<ChatId, VecDeque<(SendMessage, Option<Span>)>>,
    queued_count: usize,
    /// Requests under way that ask Postgres.
    questions: usize,
}

impl Requests {
    pub(crate) fn new(gateway: Arc<Gateway>, handle: Arc<SessionHandle>) -> Self {
        Self {
            gateway,
            handle,
            running: FuturesUnordered::new(),
            queued: HashMap::new(),
            queued_count: 0,
            questions: 0,
        }
    }

    /// Whether one more may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.running.len() + self.queued_count < REQUESTS_MAX && self.questions < QUESTIONS_MAX
    }

    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The next one that is finished, which [`Self::finish`] wants to know of; None where none is under way.
    pub(crate) async fn next(&mut self) -> Option<Done> {
        self.running.next().await
    }

    /// Begins a request that is neither hello nor a message.
    pub(crate) fn ask(&mut self, frame: ClientFrame) {
        self.questions += 1;
        let request = request(self.gateway.clone(), self.handle.clone(), frame);
        self.running.push(Box::pin(request));
    }

    /// Sends a message once the one before it in the same chat is answered.
    pub(crate) fn send(&mut self, request: SendMessage) {
        let span = self.traced(&request);
        if let Some(queue) = self.queued.get_mut(&request.chat_id) {
            queue.push_back((request, span));
            self.queued_count += 1;
        } else {
            self.queued.insert(request.chat_id, VecDeque::new());
            self.start_send(request, span);
        }
    }

    /// The span of a message that is traced, from its frame to its answer.
    fn traced(&self, request: &SendMessage) -> Option<Span> {
        let mut span = Span::root("send", Kind::Server, self.gateway.trace_ratio)?;
        span.set("chat.id", request.chat_id.to_string());
        span.set("message.id", request.message_id.to_string());
        span.set("client.id", self.handle.client_id.to_string());
        Some(span)
    }

    fn start_send(&mut self, request: SendMessage, mut span: Option<Span>) {
        let asked = !request.attachments.is_empty();
        self.questions += usize::from(asked);
        let (gateway, handle) = (self.gateway.clone(), self.handle.clone());
        self.running.push(Box::pin(async move {
            let (id, chat_id) = (request.id, request.chat_id);
            let result = gateway.send_message(&handle, request, span.as_ref()).await;
            if let (Some(span), Err(error)) = (&mut span, &result) {
                span.fail(error.code.as_str());
            }
            Done {
                reply: answer(id, result),
                sent_to: Some(chat_id),
                asked,
                renewed: None,
            }
        }));
    }

    /// Makes room, and begins what waited for it. Answers the messages that are refused for what became of it.
    pub(crate) fn finish(&mut self, done: &Done) -> Vec<Reply> {
        self.questions -= usize::from(done.asked);
        let Some(chat_id) = done.sent_to else {
            return Vec::new();
        };
        let error = done.reply.error.as_ref();
        if error.is_some_and(|error| error.code == ErrorCode::Unavailable) {
            return self.refuse_queued(chat_id);
        }
        if let Some((request, span)) = self.queued.get_mut(&chat_id).and_then(VecDeque::pop_front) {
            self.queued_count -= 1;
            self.start_send(request, span);
        } else {
            self.queued.remove(&chat_id);
            if self.queued.is_empty() {
                self.queued.shrink_to_fit();
            }
        }
        Vec::new()
    }

    /// After a message whose fate is not known, those behind it are refused: they would overtake its retry.
    fn refuse_queued(&mut self, chat_id: ChatId) -> Vec<Reply> {
        let queued = self.queued.remove(&chat_id).unwrap_or_default();
        self.queued_count -= queued.len();
        let refuse = |(request, span): (SendMessage, Option<Span>)| {
            if let Some(mut span) = span {
                span.fail(ErrorCode::Unavailable.as_str());
            }
            let error = unavailable("not sent: the message before it in this chat was not accepted");
            Reply::failure(Some(request.id), error)
        };
        queued.into_iter().map(refuse).collect()
    }
}

/// Everything but hello, sendMessage and received.
async fn request(gateway: Arc<Gateway>, session: Arc<SessionHandle>, frame: ClientFrame) -> Done {
    let id = frame.id().expect("received is not a request");
    let mut renewed = None;
    let work = async {
        match frame {
            ClientFrame::CreateChat(request) => gateway.create_chat(&session, request).await,
            ClientFrame::ModifyChatParticipants(request) => {
                gateway.modify_chat_participants(&session, request).await
            }
            ClientFrame::ListChats(request) => gateway.list_chats(&session, request).await,
            ClientFrame::GetChat(request) => gateway.get_chat(&session, request).await,
            ClientFrame::ListClients(request) => gateway.list_clients(&session, request).await,
            ClientFrame::RemoveClient(request) => gateway.remove_client(&session, request).await,
            ClientFrame::RenewToken(request) => match gateway.renew_token(&session, &request.token).await {
                Ok(claims) => {
                    let expires_at = claims.expires_at;
                    renewed = Some(claims);
                    Ok(Reply {
                        token_expires_at: Some(expires_at),
                        ..Reply::success(id)
                    })
                }
                Err(error) => Err(error),
            },
            ClientFrame::Ping(_) => Ok(Reply {
                server_time: Some(clock::now()),
                ..Reply::success(id)
            }),
            ClientFrame::CreateAttachment(request) => gateway.create_attachment(&session, request).await,
            ClientFrame::Hello(_) | ClientFrame::SendMessage(_) | ClientFrame::Received(_) => {
                unreachable!("handled by the session itself")
            }
        }
    };
    let result = in_time(work).await;
    Done {
        reply: answer(id, result),
        sent_to: None,
        asked: true,
        renewed,
    }
}

fn answer(id: u64, result: Result<Reply, Error>) -> Reply {
    result.unwrap_or_else(|error| Reply::failure(Some(id), error))
}
