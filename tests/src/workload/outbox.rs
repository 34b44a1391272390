//! What a device has asked for and was not answered for good: sent again until it is.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tidings_client::Backoff;
use tidings_protocol::{
    AttachmentId, ChatId, ClientFrame, ClientId, CreateChat, ErrorCode, GetChat, MessageId,
    ModifyChatParticipants, Operation, RemoveClient, Reply, RequestId, SendMessage, Status, UserId,
};
use tokio::time::Instant;

use super::files::Errand;

/// How many messages of one chat a device that does not wait for replies has under way.
const PIPELINED_MAX: usize = 4;
/// Short, since a test wants to see what comes after.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(200),
    max: Duration::from_secs(3),
};

/// Something to ask for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Send {
        chat_id: ChatId,
        message_id: MessageId,
        text: String,
        attachments: Vec<AttachmentId>,
    },
    /// A file that is going to be uploaded and sent.
    Announce {
        errand: Errand,
    },
    Create {
        request_id: RequestId,
        participants: Vec<UserId>,
        name: Option<String>,
    },
    Modify {
        request_id: RequestId,
        chat_id: ChatId,
        user_id: UserId,
        operation: Operation,
    },
    Remove {
        client_id: ClientId,
    },
    Look {
        chat_id: ChatId,
    },
}

impl Ask {
    fn frame(&self, id: u64) -> ClientFrame {
        match self.clone() {
            Self::Send {
                chat_id,
                message_id,
                text,
                attachments,
            } => SendMessage {
                id,
                chat_id,
                message_id,
                message: text,
                attachments,
            }
            .into(),
            Self::Announce { errand } => errand.file.announced(id).into(),
            Self::Create {
                request_id,
                participants,
                name,
            } => CreateChat {
                id,
                request_id,
                participants,
                name,
            }
            .into(),
            Self::Modify {
                request_id,
                chat_id,
                user_id,
                operation,
            } => ModifyChatParticipants {
                id,
                request_id,
                chat_id,
                user_id,
                operation,
            }
            .into(),
            Self::Remove { client_id } => RemoveClient { id, client_id }.into(),
            Self::Look { chat_id } => GetChat { id, chat_id }.into(),
        }
    }

    /// What keeps its order: requests about one chat.
    const fn lane(&self) -> Option<ChatId> {
        match self {
            Self::Send { chat_id, .. } | Self::Modify { chat_id, .. } | Self::Look { chat_id } => {
                Some(*chat_id)
            }
            Self::Announce { .. } | Self::Create { .. } | Self::Remove { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Pending {
    ask: Ask,
    /// The request's id, while it is under way on this connection.
    under_way: Option<u64>,
    not_before: Instant,
    attempts: u32,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    pub(super) ask: Ask,
    /// Why not, if it was refused for good.
    pub(super) result: Result<Reply, ErrorCode>,
}

/// A device's unanswered requests, in the order of asking. Bounded by the director, which asks a device for nothing
/// more while it has [`Outbox::LEN_MAX`].
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pending: VecDeque<Pending>,
    /// Whether several messages of one chat may be under way.
    pipelined: bool,
    /// Second and later attempts.
    pub(super) retries: u64,
}

impl Outbox {
    /// Messages that may wait: more than a person types while a train is in a tunnel.
    pub(super) const LEN_MAX: usize = 32;

    /// An empty one.
    pub(super) fn new(pipelined: bool) -> Self {
        Self {
            pipelined,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn push(&mut self, ask: Ask) {
        self.pending.push_back(Pending {
            ask,
            under_way: None,
            not_before: Instant::now(),
            attempts: 0,
        });
    }

    /// Nothing is under way any more: the connection is over.
    pub(super) fn disconnected(&mut self) {
        for pending in &mut self.pending {
            pending.under_way = None;
        }
    }

    /// The next frame to send now; `id` is its number.
    pub(super) fn next(&mut self, now: Instant, id: u64) -> Option<ClientFrame> {
        let index = (0..self.pending.len()).find(|index| self.may_go(*index, now))?;
        let pending = &mut self.pending[index];
        pending.under_way = Some(id);
        pending.attempts += 1;
        self.retries += u64::from(pending.attempts > 1);
        Some(pending.ask.frame(id))
    }

    fn may_go(&self, index: usize, now: Instant) -> bool {
        let pending = &self.pending[index];
        if pending.under_way.is_some() || pending.not_before > now {
            return false;
        }
        let Some(lane) = pending.ask.lane() else {
            return true;
        };
        let before = || {
            self.pending
                .iter()
                .take(index)
                .filter(|other| other.ask.lane() == Some(lane))
        };
        // Whoever waits to be sent again keeps back those behind it; only what was never refused may be overtaken.
        let limit = if self.pipelined { PIPELINED_MAX } else { 1 };
        before().count() < limit && before().all(|other| other.under_way.is_some())
    }

    /// When something that waits may be sent again. What waits for another one wakes with its reply.
    pub(super) fn wakes(&self, now: Instant) -> Option<Instant> {
        self.pending
            .iter()
            .filter(|pending| pending.under_way.is_none() && pending.not_before > now)
            .map(|pending| pending.not_before)
            .min()
    }

    /// Takes a reply; says how the request ended, if it did.
    pub(super) fn reply(&mut self, reply: &Reply, rng: &mut StdRng) -> Option<Answered> {
        let id = reply.id?;
        let index = self
            .pending
            .iter()
            .position(|pending| pending.under_way == Some(id))?;
        let error = match (&reply.status, &reply.error) {
            (Status::Success, _) => {
                let pending = self.pending.remove(index)?;
                return Some(Answered {
                    ask: pending.ask,
                    result: Ok(reply.clone()),
                });
            }
            (Status::Failure, Some(error)) => error,
            (Status::Failure, None) => return None,
        };
        if !error.code.retryable() {
            let pending = self.pending.remove(index)?;
            return Some(Answered {
                ask: pending.ask,
                result: Err(error.code.clone()),
            });
        }
        let pending = &mut self.pending[index];
        pending.under_way = None;
        let wait = match error.retry_after_ms {
            Some(after) => Duration::from_millis(after),
            None => RETRY.delay(pending.attempts, rng.random()),
        };
        pending.not_before = Instant::now() + wait;
        None
    }

    /// What is unanswered, in words.
    pub(super) fn tell(&self) -> String {
        let asks = self.pending.iter().take(3).map(|pending| match &pending.ask {
            Ask::Send { message_id, .. } => format!("message {message_id}"),
            Ask::Announce { errand } => format!("createAttachment for chat {}", errand.chat_id),
            Ask::Create { request_id, .. } => format!("createChat {request_id}"),
            Ask::Modify { request_id, .. } => format!("modifyChatParticipants {request_id}"),
            Ask::Remove { client_id } => format!("removeClient {client_id}"),
            Ask::Look { chat_id } => format!("getChat {chat_id}"),
        });
        format!(
            "{} unanswered requests: {}",
            self.pending.len(),
            asks.collect::<Vec<_>>().join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use tidings_protocol::Error;
    use uuid::Uuid;

    use super::*;

    fn message(chat: u128, number: u128) -> Ask {
        Ask::Send {
            chat_id: ChatId(Uuid::from_u128(chat)),
            message_id: MessageId(Uuid::from_u128(number)),
            text: String::new(),
            attachments: Vec::new(),
        }
    }

    /// What goes out now, by message number.
    fn sent(outbox: &mut Outbox, first_id: u64) -> Vec<u128> {
        let frames = (first_id..).map_while(|id| outbox.next(Instant::now(), id));
        frames
            .map(|frame| match frame {
                ClientFrame::SendMessage(send) => send.message_id.0.as_u128(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn answer(outbox: &mut Outbox, id: u64, error: Option<Error>) -> bool {
        let reply = match error {
            Some(error) => Reply::failure(Some(id), error),
            None => Reply::success(id),
        };
        let mut rng = StdRng::seed_from_u64(1);
        outbox.reply(&reply, &mut rng).is_some()
    }

    #[tokio::test]
    async fn one_message_of_a_chat_at_a_time_in_order() {
        let mut outbox = Outbox::new(false);
        for (chat, number) in [(1, 1), (1, 2), (2, 3)] {
            outbox.push(message(chat, number));
        }
        assert_eq!(sent(&mut outbox, 10), [1, 3]);
        assert!(answer(&mut outbox, 10, None));
        assert_eq!(sent(&mut outbox, 20), [2]);
    }

    #[tokio::test]
    async fn whoever_waits_to_be_sent_again_keeps_back_those_behind() {
        let mut outbox = Outbox::new(true);
        for number in 1..=6 {
            outbox.push(message(1, number));
        }
        assert_eq!(sent(&mut outbox, 10), [1, 2, 3, 4]);
        let mut busy = Error::new(ErrorCode::ChatBusy, "");
        busy.retry_after_ms = Some(60_000);
        assert!(!answer(&mut outbox, 10, Some(busy)));
        assert!(answer(&mut outbox, 11, None));
        assert_eq!(sent(&mut outbox, 20), [0_u128; 0]);
        assert!(outbox.wakes(Instant::now()).is_some());
    }

    #[tokio::test]
    async fn everything_unanswered_is_sent_again_on_the_next_connection() {
        let mut outbox = Outbox::new(true);
        for number in 1..=3 {
            outbox.push(message(1, number));
        }
        assert_eq!(sent(&mut outbox, 2), [1, 2, 3]);
        assert!(answer(&mut outbox, 3, None));
        outbox.disconnected();
        assert_eq!(sent(&mut outbox, 2), [1, 3]);
        assert_eq!(outbox.retries, 2);
        assert!(answer(&mut outbox, 2, Some(Error::new(ErrorCode::NotFound, ""))));
        assert_eq!(outbox.len(), 1);
    }
}
