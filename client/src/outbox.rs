//! What is to be sent, in which order, and when again. Pure.
//!
//! Requests about one chat go one after the other: the next is sent when the one before has its final
//! answer. Otherwise a message refused for its rate would be overtaken by those behind it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tidings_protocol::{ChatId, ClientFrame, Error, ErrorCode, Reply};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::store::Queued;

/// A wait longer than this is told to the application as a failure: somebody waits for the answer.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// A server that fails at a request so often will not do it.
const INTERNAL_TRIES_MAX: u32 = 5;

/// What to do about a reply.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// The request is through, for better or worse.
    Settled {
        position: u64,
        frame: ClientFrame,
        result: Result<Box<Reply>, Error>,
    },
    /// It will be sent again.
    Again {
        frame: ClientFrame,
        error: Error,
        after: Duration,
    },
    /// Nobody asked.
    Stray,
}

#[derive(Debug)]
enum State {
    Waiting,
    Until(Instant),
    InFlight,
}

#[derive(Debug)]
struct Entry {
    frame: ClientFrame,
    state: State,
    tries: u32,
}

/// The requests that have no final answer yet.
#[derive(Debug)]
pub(crate) struct Outbox {
    entries: BTreeMap<u64, Entry>,
    /// Request number on this connection -> position.
    in_flight: HashMap<u64, u64>,
    next_position: u64,
    max: usize,
    /// Something may have become sendable.
    changed: bool,
}

impl Outbox {
    /// `max` entries at once.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            in_flight: HashMap::new(),
            next_position: 1,
            max,
            changed: false,
        }
    }

    /// Takes what an earlier run left, however much it is.
    pub(crate) fn restore(&mut self, queued: Queued) {
        self.next_position = self.next_position.max(queued.position + 1);
        self.insert(queued.position, queued.frame);
    }

    /// Takes a request; None if there are too many.
    pub(crate) fn queue(&mut self, frame: ClientFrame) -> Option<u64> {
        if self.entries.len() >= self.max {
            return None;
        }
        let position = self.next_position;
        self.next_position += 1;
        self.insert(position, frame);
        Some(position)
    }

    fn insert(&mut self, position: u64, frame: ClientFrame) {
        let state = State::Waiting;
        self.entries.insert(
            position,
            Entry {
                frame,
                state,
                tries: 0,
            },
        );
        self.changed = true;
    }

    /// Nobody waits for this one any more. Its reply, if one comes, is a stray.
    pub(crate) fn cancel(&mut self, position: u64) {
        self.entries.remove(&position);
        self.in_flight.retain(|_, other| *other != position);
        self.changed = true;
    }

    /// What to send now, numbered by `next_id`.
    pub(crate) fn sendable(&mut self, now: Instant, mut next_id: impl FnMut() -> u64) -> Vec<ClientFrame> {
        if !std::mem::take(&mut self.changed) && self.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut busy = HashSet::new();
        let mut frames = Vec::new();
        for (position, entry) in &mut self.entries {
            if let Some(chat_id) = lane(&entry.frame)
                && !busy.insert(chat_id)
            {
                continue;
            }
            match entry.state {
                State::InFlight => continue,
                State::Until(due) if due > now => continue,
                State::Waiting | State::Until(_) => {}
            }
            entry.state = State::InFlight;
            let id = next_id();
            set_id(&mut entry.frame, id);
            self.in_flight.insert(id, *position);
            frames.push(entry.frame.clone());
        }
        frames
    }

    /// A reply came. `jitter` is evenly spread over 0 to 1.
    pub(crate) fn replied(&mut self, reply: Reply, now: Instant, jitter: f64) -> Answer {
        let Some(position) = reply.id.and_then(|id| self.in_flight.remove(&id)) else {
            return Answer::Stray;
        };
        let Some(entry) = self.entries.get_mut(&position) else {
            return Answer::Stray;
        };
        self.changed = true;
        let result = match reply.error {
            None => Ok(Box::new(reply)),
            Some(error) => {
                if let Some(after) = wait_of(&error, entry.tries, jitter) {
                    entry.tries += 1;
                    entry.state = State::Until(now + after);
                    return Answer::Again {
                        frame: entry.frame.clone(),
                        error,
                        after,
                    };
                }
                Err(error)
            }
        };
        let entry = self.entries.remove(&position).expect("it was there above");
        Answer::Settled {
            position,
            frame: entry.frame,
            result,
        }
    }

    /// The connection is gone: what was under way is to be sent again, in its old order.
    pub(crate) fn disconnected(&mut self) {
        self.in_flight.clear();
        self.changed = true;
        for entry in self.entries.values_mut() {
            if matches!(entry.state, State::InFlight) {
                entry.state = State::Waiting;
            }
        }
    }

    /// When the next one becomes sendable by waiting.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = |entry: &Entry| match entry.state {
            State::Until(due) => Some(due),
            State::Waiting | State::InFlight => None,
        };
        self.entries.values().filter_map(due).min()
    }

    /// The positions of all that wait, in order.
    pub(crate) fn positions(&self) -> impl Iterator<Item = u64> {
        self.entries.keys().copied()
    }

    /// The requests that wait, in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &ClientFrame> {
        self.entries.values().map(|entry| &entry.frame)
    }
}

/// Requests about the same chat keep their order; others have nothing to keep.
fn lane(frame: &ClientFrame) -> Option<ChatId> {
    match frame {
        ClientFrame::SendMessage(frame) => Some(frame.chat_id),
        ClientFrame::ModifyChatParticipants(frame) => Some(frame.chat_id),
        _ => None,
    }
}

/// Whether the library itself tries again, and when.
fn wait_of(error: &Error, tries: u32, jitter: f64) -> Option<Duration> {
    match error.code {
        ErrorCode::Unavailable | ErrorCode::RateLimited | ErrorCode::ChatBusy => {}
        ErrorCode::Internal if tries + 1 < INTERNAL_TRIES_MAX => {}
        // An attachment that is not ready is the application's to upload.
        _ => return None,
    }
    let backoff = Backoff::REQUEST.delay(tries, jitter);
    let Some(asked) = error.retry_after_ms.map(Duration::from_millis) else {
        return Some(backoff);
    };
    // A little more than what was asked for, so that those who asked together do not come together.
    (asked <= WAIT_MAX).then(|| asked + asked.mul_f64(jitter / 10.0))
}

fn set_id(frame: &mut ClientFrame, id: u64) {
    use tidings_protocol as protocol;
    match frame {
        ClientFrame::Hello(protocol::Hello { id: field, .. })
        | ClientFrame::CreateChat(protocol::CreateChat { id: field, .. })
        | ClientFrame::SendMessage(protocol::SendMessage { id: field, .. })
        | ClientFrame::ModifyChatParticipants(protocol::ModifyChatParticipants { id: field, .. })
        | ClientFrame::CreateAttachment(protocol::CreateAttachment { id: field, .. })
        | ClientFrame::ListChats(protocol::ListChats { id: field, .. })
        | ClientFrame::GetChat(protocol::GetChat { id: field, .. })
        | ClientFrame::ListClients(protocol::ListClients { id: field })
        | ClientFrame::RemoveClient(protocol::RemoveClient { id: field, .. })
        | ClientFrame::RenewToken(protocol::RenewToken { id: field, .. })
        | ClientFrame::Ping(protocol::Ping { id: field }) => *field = id,
        ClientFrame::Received(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use tidings_protocol::{CreateChat, MessageId, RequestId, SendMessage};
    use uuid::Uuid;

    use super::*;

    fn message(chat: char, text: &str) -> ClientFrame {
        ClientFrame::SendMessage(SendMessage {
            id: 0,
            chat_id: ChatId(Uuid::from_u128(chat as u128)),
            message_id: MessageId(Uuid::from_u128(1)),
            message: text.to_owned(),
            attachments: Vec::new(),
        })
    }

    fn create() -> ClientFrame {
        ClientFrame::CreateChat(CreateChat {
            id: 0,
            request_id: RequestId(Uuid::from_u128(1)),
            participants: Vec::new(),
            name: None,
        })
    }

    /// Runs a script and compares what happens. Words: `a1` queues message 1 to chat a, `new` queues a
    /// `createChat`, `send` sends what can be sent, `+500` lets milliseconds pass, `ok:3` answers request 3,
    /// `busy:3:200` tells it to wait, `bad:3` refuses it, `broken:3` is an internal error, `lost` breaks the
    /// connection. The answer: what was sent, as `text#id`, then what became of it.
    fn check(script: &str, expected: &str) {
        let mut now = Instant::now();
        let mut outbox = Outbox::new(8);
        let mut id = 0;
        let mut answer = Vec::new();
        for word in script.split_whitespace() {
            let parts: Vec<&str> = word.split(':').collect();
            match parts[0] {
                "send" => {
                    for frame in outbox.sendable(now, || {
                        id += 1;
                        id
                    }) {
                        let text = match &frame {
                            ClientFrame::SendMessage(frame) => frame.message.as_str(),
                            _ => "new",
                        };
                        answer.push(format!("{text}#{}", frame.id().expect("numbered")));
                    }
                }
                "lost" => outbox.disconnected(),
                "new" => {
                    outbox.queue(create());
                }
                "ok" | "busy" | "bad" | "broken" => {
                    let number = parts[1].parse().expect("a number");
                    let failed = |error| Reply::failure(Some(number), error);
                    let reply = match parts[0] {
                        "ok" => Reply::success(number),
                        "busy" => failed(
                            Error::new(ErrorCode::ChatBusy, "")
                                .retry_after_ms(parts[2].parse().expect("milliseconds")),
                        ),
                        "bad" => failed(Error::new(ErrorCode::NotAParticipant, "")),
                        _ => failed(Error::new(ErrorCode::Internal, "")),
                    };
                    answer.push(match outbox.replied(reply, now, 0.0) {
                        Answer::Settled { result: Ok(_), .. } => "ok".to_owned(),
                        Answer::Settled {
                            result: Err(error), ..
                        } => error.code.to_string(),
                        Answer::Again { after, .. } => format!("again+{}", after.as_millis()),
                        Answer::Stray => "stray".to_owned(),
                    });
                }
                word if word.starts_with('+') => {
                    now += Duration::from_millis(word[1..].parse().expect("milliseconds"));
                }
                word => {
                    let chat = word.chars().next().expect("a chat");
                    if outbox.queue(message(chat, word)).is_none() {
                        answer.push("full".to_owned());
                    }
                }
            }
        }
        assert_eq!(answer.join(" "), expected, "{script}");
    }

    #[test]
    fn a_chat_is_sent_one_by_one_and_chats_side_by_side() {
        check(
            "a1 a2 b1 new send send ok:1 send ok:4",
            "a1#1 b1#2 new#3 ok a2#4 ok",
        );
    }

    #[test]
    fn what_is_told_to_wait_is_not_overtaken_in_its_chat() {
        check(
            "a1 a2 b1 send busy:1:200 send +199 send ok:2 +1 send ok:3 send",
            "a1#1 b1#2 again+200 ok a1#3 ok a2#4",
        );
    }

    #[test]
    fn what_was_under_way_is_sent_again_first() {
        check("a1 a2 send lost send ok:1 ok:2 send", "a1#1 a1#2 stray ok a2#3");
    }

    #[test]
    fn what_is_refused_lets_the_next_one_go() {
        check("a1 a2 send bad:1 send", "a1#1 not_a_participant a2#2");
    }

    #[test]
    fn a_server_that_keeps_failing_is_believed_at_last() {
        check(
            "a1 send broken:1 send broken:2 send broken:3 send broken:4 send broken:5",
            "a1#1 again+0 a1#2 again+0 a1#3 again+0 a1#4 again+0 a1#5 internal",
        );
    }

    #[test]
    fn a_wait_of_minutes_is_told() {
        check(
            "new send busy:1:60000 +60000 send busy:2:60001",
            "new#1 again+60000 new#2 chat_busy",
        );
    }

    #[test]
    fn it_is_bounded() {
        check("a1 a2 a3 a4 a5 a6 a7 a8 a9 send ok:1 a9 a10", "full a1#1 ok full");
    }

    #[test]
    fn what_is_restored_comes_first() {
        let mut outbox = Outbox::new(1);
        for position in [7, 9] {
            let frame = message('a', &position.to_string());
            outbox.restore(Queued { position, frame });
        }
        assert_eq!(outbox.queue(message('a', "x")), None);
        outbox.cancel(9);
        outbox.cancel(7);
        assert_eq!(outbox.queue(message('a', "x")), Some(10));
    }
}
