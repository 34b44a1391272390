//! What the histories say, sorted: connections, clients, requests with their answers, events of chats.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use tidings_protocol::{
    AttachmentId, ChatId, ClientFrame, ClientId, ErrorCode, InboxTrimmed, MessageId, Operation, Registration,
    Reply, RequestId, ServerFrame, Status, UserId,
};
use uuid::Uuid;

use super::chat_log::ChatLog;
use crate::history::{Moment, Record, RecordedConnection, Run, What};

/// What a reader recognises a message by (PROTOCOL, exactly once).
#[expect(clippy::struct_field_names, reason = "they are named as the frame names them")]
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) chat_id: ChatId,
    pub(super) client_id: ClientId,
    pub(super) message_id: MessageId,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {}", short(self.message_id.0))
    }
}

/// The end of an id: enough to tell things apart in a story.
pub(super) fn short(id: Uuid) -> String {
    let text = id.simple().to_string();
    text[text.len() - 6..].to_owned()
}

/// What became of one attempt, as far as its connection was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// No reply came.
    None,
    /// Done.
    Success(Moment, Box<Reply>),
    /// It may have been done.
    Unknown(Moment, ErrorCode),
    /// It was not done.
    Refused(Moment, ErrorCode),
}

impl Answer {
    fn of(at: Moment, reply: &Reply) -> Self {
        match (&reply.status, &reply.error) {
            (Status::Success, _) => Self::Success(at, Box::new(reply.clone())),
            (Status::Failure, Some(error)) => match &error.code {
                code @ (ErrorCode::Unavailable | ErrorCode::Internal) => Self::Unknown(at, code.clone()),
                code => Self::Refused(at, code.clone()),
            },
            (Status::Failure, None) => Self::Unknown(at, ErrorCode::Internal),
        }
    }

    /// Whether it was certainly not done.
    pub(super) const fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(..))
    }

    /// When SUCCESS came.
    pub(super) const fn success(&self) -> Option<Moment> {
        match self {
            Self::Success(at, _) => Some(*at),
            _ => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no reply"),
            Self::Success(at, reply) => {
                write!(f, "SUCCESS at {at}")?;
                if let Some(seq) = reply.seq {
                    write!(f, ", seq {seq}")?;
                }
                if reply.duplicate == Some(true) {
                    f.write_str(", duplicate")?;
                }
                Ok(())
            }
            Self::Unknown(at, code) | Self::Refused(at, code) => write!(f, "{code} at {at}"),
        }
    }
}

/// One time that a request was sent.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) at: Moment,
    pub(super) connection: usize,
    pub(super) answer: Answer,
}

/// A message that somebody tried to send.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) user_id: UserId,
    pub(super) text: String,
    pub(super) attachments: Vec<AttachmentId>,
    pub(super) attempts: Vec<Attempt>,
}

/// A change of a chat that somebody asked for.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) by: UserId,
    pub(super) ask: Ask,
    pub(super) attempts: Vec<Attempt>,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Create {
        participants: Vec<UserId>,
    },
    Modify {
        chat_id: ChatId,
        user_id: UserId,
        operation: Operation,
    },
}

/// Somebody asked for a client to be removed, or replaced.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    pub(super) target: ClientId,
    pub(super) attempt: Attempt,
}

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Connection<'a> {
    pub(super) id: &'a RecordedConnection,
    /// Its records, as positions in the run.
    pub(super) records: Vec<usize>,
    pub(super) first_hello: Option<Moment>,
    pub(super) last_hello: Option<Moment>,
    pub(super) welcome: Option<(Moment, Registration)>,
    pub(super) caught_up: Option<Moment>,
    pub(super) closed: Option<Moment>,
    /// How the server closed it.
    pub(super) closed_with: Option<(Moment, u16)>,
    pub(super) at_rest: Option<Moment>,
    pub(super) not_at_rest: Option<(Moment, String)>,
}

/// A client.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) user_id: UserId,
    pub(super) device: String,
    /// Its connections, in the order of their numbers.
    pub(super) connections: Vec<usize>,
    pub(super) trims: Vec<InboxTrimmed>,
}

/// The histories, sorted.
pub(super) struct Index<'a> {
    pub(super) run: &'a Run,
    pub(super) connections: Vec<Connection<'a>>,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) messages: HashMap<Key, Message>,
    pub(super) changes: HashMap<(UserId, RequestId), Change>,
    pub(super) removals: Vec<Removal>,
    pub(super) chats: BTreeMap<ChatId, ChatLog>,
    /// Second replies to one request: (connection, position in the run).
    pub(super) second_replies: Vec<usize>,
}

/// Which request a reply answers.
enum Asked {
    Message(Key, usize),
    Change((UserId, RequestId), usize),
    Removal(usize),
    Other,
}

/// What is under way on a connection: request id to what was asked; answered ones stay, to notice second replies.
#[derive(Default)]
struct UnderWay {
    asked: HashMap<u64, (Asked, bool)>,
}

impl<'a> Index<'a> {
    /// Sorts a run.
    pub(super) fn of(run: &'a Run) -> Self {
        let mut index = Self {
            run,
            connections: Vec::new(),
            clients: BTreeMap::new(),
            messages: HashMap::new(),
            changes: HashMap::new(),
            removals: Vec::new(),
            chats: BTreeMap::new(),
            second_replies: Vec::new(),
        };
        let mut numbers: HashMap<&RecordedConnection, usize> = HashMap::new();
        let mut under_way: Vec<UnderWay> = Vec::new();
        for (position, record) in run.records.iter().enumerate() {
            let number = *numbers.entry(&*record.connection).or_insert_with(|| {
                under_way.push(UnderWay::default());
                index.new_connection(&record.connection)
            });
            index.connections[number].records.push(position);
            index.record(number, position, record, &mut under_way[number]);
        }
        for client in index.clients.values_mut() {
            client
                .connections
                .sort_by_key(|number| index.connections[*number].id.number);
        }
        index
    }

    /// The record at a position.
    pub(super) fn record_at(&self, position: usize) -> &'a Record {
        &self.run.records[position]
    }

    /// What a client is called.
    pub(super) fn device(&self, client_id: ClientId) -> String {
        match self.clients.get(&client_id) {
            Some(client) => client.device.clone(),
            None => format!("client {}", short(client_id.0)),
        }
    }

    fn new_connection(&mut self, id: &'a RecordedConnection) -> usize {
        let number = self.connections.len();
        self.connections.push(Connection {
            id,
            records: Vec::new(),
            first_hello: None,
            last_hello: None,
            welcome: None,
            caught_up: None,
            closed: None,
            closed_with: None,
            at_rest: None,
            not_at_rest: None,
        });
        self.clients
            .entry(id.client_id)
            .or_insert_with(|| Client {
                user_id: id.user_id.clone(),
                device: id.device.clone(),
                connections: Vec::new(),
                trims: Vec::new(),
            })
            .connections
            .push(number);
        number
    }

    fn record(&mut self, number: usize, position: usize, record: &'a Record, under_way: &mut UnderWay) {
        let connection = &mut self.connections[number];
        match &record.what {
            What::Sent(frame) => self.sent(number, record.at, frame, under_way),
            What::Received(frame) => self.received(number, position, record.at, frame, under_way),
            What::Closed { code, by_client, .. } => {
                connection.closed = Some(record.at);
                connection.closed_with = (!by_client).then_some((record.at, *code));
            }
            What::AtRest => connection.at_rest = Some(record.at),
            What::NotAtRest { reason } => connection.not_at_rest = Some((record.at, reason.clone())),
            What::Refused { .. } | What::Opened { .. } | What::Unknown { .. } | What::Fetched { .. } => {}
        }
    }

    fn sent(&mut self, number: usize, at: Moment, frame: &ClientFrame, under_way: &mut UnderWay) {
        let id = self.connections[number].id;
        let attempt = Attempt {
            at,
            connection: number,
            answer: Answer::None,
        };
        let asked = match frame {
            ClientFrame::Hello(hello) => {
                let connection = &mut self.connections[number];
                connection.first_hello.get_or_insert(at);
                connection.last_hello = Some(at);
                match hello.replace {
                    Some(target) => {
                        self.removals.push(Removal { target, attempt });
                        Asked::Removal(self.removals.len() - 1)
                    }
                    None => Asked::Other,
                }
            }
            ClientFrame::RemoveClient(remove) => {
                self.removals.push(Removal {
                    target: remove.client_id,
                    attempt,
                });
                Asked::Removal(self.removals.len() - 1)
            }
            ClientFrame::SendMessage(send) => {
                let key = Key {
                    chat_id: send.chat_id,
                    client_id: id.client_id,
                    message_id: send.message_id,
                };
                let message = self.messages.entry(key).or_insert_with(|| Message {
                    user_id: id.user_id.clone(),
                    text: send.message.clone(),
                    attachments: send.attachments.clone(),
                    attempts: Vec::new(),
                });
                message.attempts.push(attempt);
                Asked::Message(key, message.attempts.len() - 1)
            }
            ClientFrame::CreateChat(create) => {
                let ask = Ask::Create {
                    participants: create.participants.clone(),
                };
                self.change(id, create.request_id, ask, attempt)
            }
            ClientFrame::ModifyChatParticipants(modify) => {
                let ask = Ask::Modify {
                    chat_id: modify.chat_id,
                    user_id: modify.user_id.clone(),
                    operation: modify.operation,
                };
                self.change(id, modify.request_id, ask, attempt)
            }
            _ => Asked::Other,
        };
        if let Some(request) = frame.id() {
            under_way.asked.insert(request, (asked, false));
        }
    }

    fn change(
        &mut self,
        id: &RecordedConnection,
        request_id: RequestId,
        ask: Ask,
        attempt: Attempt,
    ) -> Asked {
        let name = (id.user_id.clone(), request_id);
        let change = self.changes.entry(name.clone()).or_insert_with(|| Change {
            by: id.user_id.clone(),
            ask,
            attempts: Vec::new(),
        });
        change.attempts.push(attempt);
        Asked::Change(name, change.attempts.len() - 1)
    }

    fn received(
        &mut self,
        number: usize,
        position: usize,
        at: Moment,
        frame: &ServerFrame,
        under_way: &mut UnderWay,
    ) {
        let connection = &mut self.connections[number];
        match frame {
            ServerFrame::Welcome(welcome) => {
                connection.welcome = Some((at, welcome.registration));
                if let Some((Asked::Removal(removal), answered)) = under_way.asked.get_mut(&welcome.id) {
                    *answered = true;
                    // To a client that is registered already `replace` says nothing; then an earlier, unanswered hello
                    // may have done it.
                    if welcome.registration != Registration::Known {
                        self.removals[*removal].attempt.answer =
                            Answer::Success(at, Box::new(Reply::success(welcome.id)));
                    }
                }
            }
            ServerFrame::Reply(reply) => {
                let Some((asked, answered)) = reply.id.and_then(|id| under_way.asked.get_mut(&id)) else {
                    return;
                };
                if std::mem::replace(answered, true) {
                    self.second_replies.push(position);
                    return;
                }
                let answer = Answer::of(at, reply);
                match asked {
                    Asked::Message(key, attempt) => {
                        let message = self.messages.get_mut(key).expect("it was put when it was sent");
                        message.attempts[*attempt].answer = answer;
                    }
                    Asked::Change(name, attempt) => {
                        let change = self.changes.get_mut(name).expect("it was put when it was sent");
                        change.attempts[*attempt].answer = answer;
                    }
                    Asked::Removal(removal) => self.removals[*removal].attempt.answer = answer,
                    Asked::Other => {}
                }
            }
            ServerFrame::CaughtUp(_) => {
                connection.caught_up.get_or_insert(at);
            }
            ServerFrame::InboxTrimmed(trimmed) => {
                let client = self.clients.get_mut(&connection.id.client_id);
                client
                    .expect("every connection has its client")
                    .trims
                    .push(trimmed.clone());
            }
            _ => {}
        }
    }
}
