//! What an inbox holds, as a frame for one connection.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tidings_nats::{ChatUpdate, Entry, Event, Lost, Message};
use tidings_protocol::{
    self as protocol, ClientId, Codec, EncodedFrame, InboxTrimmed, NewMessage, Role, ServerFrame,
    SharedMessage, Timestamp, UserId, You,
};
use tidings_service::{Kind, Span, TraceContext, clock};

/// How the gateway came to know of an entry.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By a notice.
    Live,
    /// By a direct notice: it is not stored.
    Direct,
    /// By reading the inbox.
    Scan,
}

impl Way {
    /// For metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Direct => "direct",
            Self::Scan => "scan",
        }
    }
}

/// An entry as it came to this gateway.
#[derive(Debug)]
pub(crate) struct Arrived {
    entry: Entry,
    /// Of an entry that is traced: what comes before, and when it came.
    trace: Option<(TraceContext, SystemTime)>,
    /// Of a message that several connections are sent: how it is written, in each codec that was asked for. It goes with
    /// the entry, when the last of them has been sent it. Usually as much again as the entry in each codec; JSON needs six
    /// bytes for a control character.
    shared: [OnceLock<SharedMessage>; Codec::ALL.len()],
}

impl Arrived {
    pub(crate) fn new(entry: Entry, trace: Option<TraceContext>) -> Self {
        Self {
            entry,
            trace: trace.map(|trace| (trace, clock::precise())),
            shared: Default::default(),
        }
    }

    /// The frame of a message of this entry, which is `alone` where nobody else will be sent it: then nothing is kept.
    fn frame(&self, message: &Message, codec: Codec, delivery: u64, alone: bool) -> EncodedFrame {
        let shared = &self.shared[codec as usize];
        if alone && shared.get().is_none() {
            return codec.encode_server(&new_message(message, self.entry.seq, delivery).into());
        }
        shared
            .get_or_init(|| SharedMessage::new(codec, new_message(message, self.entry.seq, 0)))
            .frame(delivery)
    }
}

impl Deref for Arrived {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// What is stored in an inbox under one sequence.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// An event.
    Entry(Arc<Arrived>, Way),
    /// A mark of what is missing.
    Lost(Arc<Lost>),
}

impl Body {
    /// The sequence in CHATS of the event, if it is one.
    pub(crate) fn event(&self) -> Option<u64> {
        match self {
            Self::Entry(entry, _) => Some(entry.seq),
            Self::Lost(_) => None,
        }
    }

    /// How the gateway came to know of it. Marks are only ever read.
    pub(crate) const fn way(&self) -> Way {
        match self {
            Self::Entry(_, way) => *way,
            Self::Lost(_) => Way::Scan,
        }
    }

    /// The frame with the delivery's number, for this reader.
    pub(crate) fn encode(&self, codec: Codec, delivery: u64, reader: &UserId) -> EncodedFrame {
        match self {
            Self::Entry(entry, _) => match &entry.event {
                Event::Message(message) => {
                    // Where others let go of it at this moment, a copy is made that nobody needs, and nothing else.
                    let alone = Arc::strong_count(entry) == 1;
                    entry.frame(message, codec, delivery, alone)
                }
                Event::ChatUpdate(update) => {
                    codec.encode_server(&change(update, entry.seq, delivery, reader))
                }
            },
            Self::Lost(lost) => codec.encode_server(&trimmed(lost, delivery)),
        }
    }

    /// The span of a delivery to a client, since the entry came to this gateway, if it is traced.
    pub(crate) fn span(&self, client_id: ClientId) -> Option<Span> {
        let Self::Entry(entry, way) = self else {
            return None;
        };
        let (trace, since) = entry.trace?;
        let mut span = Span::child_since(trace, "deliver", Kind::Consumer, since)?;
        span.set("client.id", client_id.to_string());
        span.set("way", way.as_str());
        Some(span)
    }

    /// When a message was accepted, that a notice told of: it is on its way for so long. What is read may have waited
    /// for its client for days.
    pub(crate) fn accepted_at(&self) -> Option<Timestamp> {
        match self {
            Self::Entry(entry, Way::Live | Way::Direct) => match &entry.event {
                Event::Message(message) => Some(message.sent_at),
                Event::ChatUpdate(_) => None,
            },
            Self::Entry(_, Way::Scan) | Self::Lost(_) => None,
        }
    }
}

fn new_message(message: &Message, seq: u64, delivery: u64) -> NewMessage {
    NewMessage {
        delivery,
        chat_id: message.chat_id,
        seq,
        message_id: message.message_id,
        user_id: message.user_id.clone(),
        client_id: message.client_id,
        sent_at: message.sent_at,
        message: message.message.clone(),
        attachments: message.attachments.clone(),
    }
}

fn change(update: &ChatUpdate, seq: u64, delivery: u64, reader: &UserId) -> ServerFrame {
    ServerFrame::ChatUpdate(protocol::ChatUpdate {
        delivery,
        chat_id: update.chat_id,
        seq,
        version: update.version,
        at: update.at,
        by: update.by.clone(),
        kind: update.kind,
        name: update.name.clone(),
        you: you(update, reader),
        added: update.added.clone(),
        removed: update.removed.clone(),
        participants: update.participants.clone(),
    })
}

fn trimmed(lost: &Lost, delivery: u64) -> ServerFrame {
    ServerFrame::InboxTrimmed(InboxTrimmed {
        delivery,
        reason: lost.reason,
        missed: lost.missed,
        since: lost.since,
        until: lost.until,
        chats: lost.chats.clone(),
    })
}

/// What a change means for one who reads it.
fn you(update: &ChatUpdate, reader: &UserId) -> You {
    if update.removed.contains(reader) {
        return You::Removed;
    }
    if update.added.contains(reader) {
        return You::Added;
    }
    let role = update
        .participants
        .iter()
        .find(|participant| participant.user_id == *reader);
    match role.map(|participant| participant.role) {
        Some(Role::Admin) => You::Admin,
        Some(Role::Member) => You::Member,
        // Only participants and those who were removed get the entry.
        None => You::Removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_protocol::{ChatId, ChatKind, MessageId, Participant};
    use uuid::Uuid;

    #[test]
    fn each_is_sent_the_message_under_the_number_of_its_delivery() {
        let reader = UserId::new("bob").expect("a user id");
        let message = Message {
            chat_id: ChatId(Uuid::from_u128(1)),
            message_id: MessageId(Uuid::from_u128(2)),
            user_id: UserId::new("alice").expect("a user id"),
            client_id: ClientId(Uuid::from_u128(3)),
            sent_at: Timestamp(4),
            message: "\"hello\"\n".to_owned(),
            attachments: Vec::new(),
        };
        let entry = Entry {
            seq: 5,
            event: Event::Message(message.clone()),
        };
        let mut bodies = vec![Body::Entry(Arc::new(Arrived::new(entry, None)), Way::Direct)];
        bodies.extend(vec![bodies[0].clone(); 3]);
        // The last one has it for itself.
        for (codec, delivery) in [
            (Codec::Json, 1),
            (Codec::Postcard, 300),
            (Codec::Json, 300),
            (Codec::Json, 2),
        ] {
            let body = bodies.pop().expect("as many as codecs");
            let alone = codec.encode_server(&new_message(&message, 5, delivery).into());
            assert_eq!(body.encode(codec, delivery, &reader), alone);
        }
    }

    #[test]
    fn a_change_says_what_it_means_for_the_reader() {
        let user = |id: &str| UserId::new(id).expect("a user id");
        let participant = |id: &str, role| Participant {
            user_id: user(id),
            role,
        };
        let update = ChatUpdate {
            chat_id: ChatId(uuid::Uuid::from_u128(1)),
            version: 2,
            kind: ChatKind::Group,
            name: None,
            by: user("alice"),
            at: Timestamp(0),
            added: vec![user("dave")],
            removed: vec![user("carol")],
            participants: vec![
                participant("alice", Role::Admin),
                participant("bob", Role::Member),
                participant("dave", Role::Member),
            ],
        };
        let means = |id: &str| you(&update, &user(id));
        assert_eq!(
            ["alice", "bob", "carol", "dave"].map(means),
            [You::Admin, You::Member, You::Removed, You::Added]
        );
    }
}
