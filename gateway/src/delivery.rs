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
    /// All, as they are numbered.
    pub(crate) const ALL: [Self; 3] = [Self::Live, Self::Direct, Self::Scan];

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
    /// Of a message: how it is written, in each codec that was asked for.
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

    /// The message of this entry, for as many as speak the codec.
    fn shared(&self, codec: Codec, message: &Message) -> &SharedMessage {
        self.shared[codec as usize].get_or_init(|| {
            let message = NewMessage {
                delivery: 0,
                chat_id: message.chat_id,
                seq: self.entry.seq,
                message_id: message.message_id,
                user_id: message.user_id.clone(),
                client_id: message.client_id,
                sent_at: message.sent_at,
                message: message.message.clone(),
                attachments: message.attachments.clone(),
            };
            SharedMessage::new(codec, message)
        })
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
                Event::Message(message) => entry.shared(codec, message).frame(delivery),
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
    use tidings_protocol::{ChatId, ChatKind, Participant};

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
