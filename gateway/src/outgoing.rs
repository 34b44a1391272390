//! What waits to be written to a client that does not read as fast as it comes.
//!
//! Deliveries and answers wait apart and are written in turn: a client with a slow link has its answers before a full
//! window is through, and one who asks without end has its deliveries.

use std::collections::VecDeque;
use std::time::Duration;

use tidings_protocol::{CaughtUp, Codec, EncodedFrame, Timestamp, UserId};
use tidings_service::{Span, clock};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::delivery::Body;
use crate::metrics::{DELIVERY_SECONDS, deliveries};

/// Bytes of answers that wait before nothing more is read from who asks: the answers to hundreds of messages, so that
/// a client may send a great deal before it reads, and few enough to hold for many that never do. What is under way
/// then is answered all the same, so that nothing which was begun is held up.
const ANSWERS_BYTES_MAX: usize = 64 * 1024;

/// What comes from the inbox, in its order. Made into a frame only when it can be written: until then many connections
/// share an entry.
#[derive(Debug)]
pub(crate) enum FromInbox {
    Delivery {
        number: u64,
        body: Body,
        reader: UserId,
        /// Of one that is traced, until it is written.
        span: Option<Span>,
    },
    CaughtUp,
}

impl FromInbox {
    pub(crate) fn encode(&self, codec: Codec) -> EncodedFrame {
        match self {
            Self::Delivery {
                number, body, reader, ..
            } => body.encode(codec, *number, reader),
            Self::CaughtUp => codec.encode_server(&CaughtUp {}.into()),
        }
    }
}

/// What is to be written next.
#[derive(Debug)]
pub(crate) enum Next {
    /// This.
    Answer(Message),
    /// This, which is yet to be encoded.
    FromInbox(FromInbox),
}

/// See the module. The window bounds the deliveries; who adds answers asks [`Self::is_choked`] before reading more.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Answers, notices, pings.
    answers: VecDeque<Message>,
    answers_bytes: usize,
    from_inbox: VecDeque<FromInbox>,
    /// The last one was an answer.
    answered: bool,
    /// The last delivery that was taken to be written.
    delivered: u64,
    /// One delivery that is not confirmed yet, and since when: as TCP times one packet at a time, so that a connection
    /// holds no more than this for it.
    timed: Option<(u64, Instant)>,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.from_inbox.is_empty()
    }

    /// Whether there are so many answers that nothing more may be asked.
    pub(crate) fn is_choked(&self) -> bool {
        self.answers_bytes >= ANSWERS_BYTES_MAX
    }

    /// The number of the last delivery that was taken to be written; 0 before the first.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The client has confirmed a delivery, or everything up to it: how long that took, if it is the one that was timed.
    /// One that the client passes over is given up, and the next one timed.
    pub(crate) fn confirmed(&mut self, delivery: u64, and_before: bool) -> Option<Duration> {
        let (timed, since) = self.timed.take_if(|(timed, _)| *timed <= delivery)?;
        (timed == delivery || and_before).then(|| since.elapsed())
    }

    pub(crate) fn answer(&mut self, answer: Message) {
        self.answers_bytes += bytes(&answer);
        self.answers.push_back(answer);
    }

    pub(crate) fn deliver(&mut self, number: u64, body: Body, reader: UserId, span: Option<Span>) {
        self.from_inbox.push_back(FromInbox::Delivery {
            number,
            body,
            reader,
            span,
        });
    }

    pub(crate) fn caught_up(&mut self) {
        self.from_inbox.push_back(FromInbox::CaughtUp);
    }

    /// Forgets what is from the inbox, where it is still.
    pub(crate) fn forget_deliveries(&mut self) {
        for forgotten in std::mem::take(&mut self.from_inbox) {
            if let FromInbox::Delivery {
                span: Some(mut span), ..
            } = forgotten
            {
                span.fail("not written: the connection was closed");
            }
        }
    }

    /// Takes what is to be written next.
    pub(crate) fn next(&mut self) -> Option<Next> {
        let answer = !self.answers.is_empty() && (!self.answered || self.from_inbox.is_empty());
        self.answered = answer;
        let next = if answer {
            let answer = self.answers.pop_front()?;
            self.answers_bytes -= bytes(&answer);
            Next::Answer(answer)
        } else {
            let mut next = self.from_inbox.pop_front()?;
            if let FromInbox::Delivery {
                number, body, span, ..
            } = &mut next
            {
                self.delivered = *number;
                self.timed.get_or_insert_with(|| (*number, Instant::now()));
                count(body, clock::now());
                if let Some(span) = span {
                    span.set("delivery", *number as i64);
                }
            }
            Next::FromInbox(next)
        };
        // Most connections have nothing to say at any moment.
        if self.answers.is_empty() {
            self.answers = VecDeque::new();
        }
        if self.from_inbox.is_empty() {
            self.from_inbox = VecDeque::new();
        }
        Some(next)
    }
}

fn count(body: &Body, now: Timestamp) {
    deliveries(body.way()).increment(1);
    if let Some(accepted_at) = body.accepted_at() {
        // By the clocks of two gateways, perhaps.
        let milliseconds = now.0.saturating_sub(accepted_at.0).max(0);
        DELIVERY_SECONDS.record(milliseconds as f64 / 1000.0);
    }
}

/// What an answer costs.
fn bytes(answer: &Message) -> usize {
    let payload = match answer {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) | Message::Frame(_) => 0,
    };
    size_of::<Message>() + payload
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidings_nats::Lost;
    use tidings_protocol::{Timestamp, TrimReason};

    use super::*;

    fn deliver(outgoing: &mut Outgoing, number: u64) {
        let lost = Lost {
            reason: TrimReason::Inactive,
            missed: None,
            since: Timestamp(0),
            until: Timestamp(1),
            chats: Vec::new(),
        };
        let reader = UserId::new("alice").expect("a user id");
        outgoing.deliver(number, Body::Lost(Arc::new(lost)), reader, None);
    }

    /// What is written next, in a word.
    fn next(outgoing: &mut Outgoing) -> Option<String> {
        outgoing.next().map(|next| match next {
            Next::Answer(Message::Text(text)) => text.to_string(),
            Next::FromInbox(FromInbox::Delivery { number, .. }) => number.to_string(),
            Next::FromInbox(FromInbox::CaughtUp) => "caught up".to_owned(),
            other => panic!("nobody wrote {other:?}"),
        })
    }

    #[test]
    fn answers_and_deliveries_take_turns_and_each_keep_their_order() {
        let mut outgoing = Outgoing::default();
        for number in 1..=3 {
            deliver(&mut outgoing, number);
        }
        outgoing.caught_up();
        assert_eq!(next(&mut outgoing).as_deref(), Some("1"));
        for answer in ["a", "b"] {
            outgoing.answer(Message::Text(answer.into()));
        }
        let order = std::iter::from_fn(|| next(&mut outgoing)).collect::<Vec<_>>();
        assert_eq!(order, ["a", "2", "b", "3", "caught up"]);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn only_what_was_taken_counts_as_delivered() {
        let mut outgoing = Outgoing::default();
        assert_eq!(outgoing.delivered(), 0);
        for number in 1..=2 {
            deliver(&mut outgoing, number);
        }
        next(&mut outgoing);
        assert_eq!(outgoing.delivered(), 1);
        outgoing.forget_deliveries();
        assert!(outgoing.is_empty());
        assert_eq!(outgoing.delivered(), 1);
    }

    #[test]
    fn one_delivery_at_a_time_is_timed_until_it_is_confirmed() {
        let mut outgoing = Outgoing::default();
        for number in 1..=4 {
            deliver(&mut outgoing, number);
        }
        assert_eq!(outgoing.confirmed(1, true), None, "it has not left");
        next(&mut outgoing);
        next(&mut outgoing);
        assert!(outgoing.confirmed(2, true).is_some());
        assert_eq!(outgoing.confirmed(2, true), None, "once");
        next(&mut outgoing);
        next(&mut outgoing);
        assert_eq!(outgoing.confirmed(4, false), None, "the third one is timed");
        deliver(&mut outgoing, 5);
        next(&mut outgoing);
        assert!(
            outgoing.confirmed(5, false).is_some(),
            "the third one was given up"
        );
    }

    #[test]
    fn answers_choke_whoever_does_not_take_them_and_deliveries_do_not() {
        let mut outgoing = Outgoing::default();
        for number in 1..=1000 {
            deliver(&mut outgoing, number);
        }
        assert!(!outgoing.is_choked());
        let mut answers = 0;
        while !outgoing.is_choked() {
            outgoing.answer(Message::Text("x".repeat(150).into()));
            answers += 1;
        }
        assert!((200..1000).contains(&answers), "{answers}");
        // One answer leaves after at most one delivery.
        next(&mut outgoing);
        next(&mut outgoing);
        assert!(!outgoing.is_choked());
        while outgoing.next().is_some() {}
        assert_eq!(outgoing.answers_bytes, 0);
    }
}
