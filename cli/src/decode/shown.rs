//! A payload as JSON, with what people wrote as a length alone.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value};
use tidings_nats::{
    Beacon, BodyEntries, ChatUpdate, CloseRequest, DirectAnswer, DirectAnswers, DirectNotice,
    DirectRecipient, Entry, Event, InboxEntry, Invalidation, Lane, LiveMessage, Lost, Message, Notice,
    Recipient, Reference, Shard,
};
use tidings_protocol::{
    Attachment, AttachmentId, ChatId, ChatKind, ClientId, MessageId, Role, Timestamp, UserId,
};
use uuid::Uuid;

use crate::decode::guess::Kind;

/// A payload, read. Names are those of the fields on the bus.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Shown {
    Event(ShownEvent),
    Entry(ShownEntry),
    /// An entry that says where its event is.
    Reference {
        seq: u64,
        kind: &'static str,
        /// In BODIES.
        body: u64,
        bytes: u32,
        chat_id: ChatId,
        from: UserId,
        at: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<ClientId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<MessageId>,
    },
    #[serde(rename = "bodyEntries")]
    BodyEntries {
        seq: u64,
        body: u64,
        entries: Vec<(Shard, u64)>,
    },
    Lost(Lost),
    Invalidation(ShownInvalidation),
    Notice {
        worker: Uuid,
        number: u64,
        lane: Option<Lane>,
        entry: ShownEntry,
        recipients: Vec<Recipient>,
    },
    Direct {
        worker: Uuid,
        number: u64,
        lane: Lane,
        entry: ShownEntry,
        recipients: Vec<DirectRecipient>,
    },
    Beacon(Beacon),
    Answers {
        answers: Vec<DirectAnswer>,
    },
    Close(CloseRequest),
    Session(Map<String, Value>),
    Instance(Map<String, Value>),
}

#[derive(Debug, Serialize)]
pub(crate) struct ShownEntry {
    seq: u64,
    event: ShownEvent,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(crate) enum ShownEvent {
    Message(ShownMessage),
    ChatUpdate(ShownChatUpdate),
}

#[derive(Debug, Serialize)]
pub(crate) struct ShownMessage {
    chat_id: ChatId,
    message_id: MessageId,
    user_id: UserId,
    client_id: ClientId,
    sent_at: Timestamp,
    message_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    attachments: Vec<ShownAttachment>,
}

#[derive(Debug, Serialize)]
struct ShownAttachment {
    attachment_id: AttachmentId,
    size: u64,
    content_type: String,
    hash: String,
    /// Of what people wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ShownChatUpdate {
    chat_id: ChatId,
    version: u64,
    chat_kind: ChatKind,
    name: Option<String>,
    by: UserId,
    at: Timestamp,
    added: Vec<UserId>,
    removed: Vec<UserId>,
    participants: Vec<ShownParticipant>,
}

#[derive(Debug, Serialize)]
struct ShownParticipant {
    user_id: UserId,
    role: Role,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum ShownInvalidation {
    User { user_id: UserId },
    Chat { chat_id: ChatId, version: u64 },
}

/// Reads the payload as what it is said to be.
pub(crate) fn shown(kind: Kind, payload: &[u8], show_body: bool) -> anyhow::Result<Shown> {
    let what = || format!("not {}", named(kind));
    Ok(match kind {
        Kind::Event => Shown::Event(event(Event::decode(payload).with_context(what)?, show_body)),
        Kind::Entry => match InboxEntry::decode(payload).with_context(what)? {
            InboxEntry::Whole(entry) => Shown::Entry(self::entry(entry, show_body)),
            InboxEntry::Reference(reference) => self::reference(reference),
        },
        Kind::BodyEntries => {
            let BodyEntries { seq, body, entries } = BodyEntries::decode(payload).with_context(what)?;
            Shown::BodyEntries { seq, body, entries }
        }
        Kind::Lost => Shown::Lost(Lost::decode(payload).with_context(what)?),
        Kind::Invalidation => {
            Shown::Invalidation(match Invalidation::decode(payload).with_context(what)? {
                Invalidation::User { user_id } => ShownInvalidation::User { user_id },
                Invalidation::Chat { chat_id, version } => ShownInvalidation::Chat { chat_id, version },
            })
        }
        Kind::Live => match LiveMessage::decode(payload).with_context(what)? {
            LiveMessage::Beacon(beacon) => Shown::Beacon(beacon),
            LiveMessage::Notice(notice) => self::notice(notice, show_body)?,
            LiveMessage::Direct(notice) => direct(notice, show_body)?,
        },
        Kind::Answers => {
            let DirectAnswers(answers) = DirectAnswers::decode(payload).with_context(what)?;
            Shown::Answers { answers }
        }
        Kind::Close => Shown::Close(CloseRequest::decode(payload).with_context(what)?),
        Kind::Session => Shown::Session(serde_json::from_slice(payload).with_context(what)?),
        Kind::Instance => Shown::Instance(serde_json::from_slice(payload).with_context(what)?),
    })
}

const fn named(kind: Kind) -> &'static str {
    match kind {
        Kind::Event => "an event",
        Kind::Entry => "an entry",
        Kind::BodyEntries => "a list of entries",
        Kind::Lost => "a mark of what is missing",
        Kind::Invalidation => "an invalidation",
        Kind::Live => "a notice or beacon",
        Kind::Answers => "answers about direct deliveries",
        Kind::Close => "a request to close a connection",
        Kind::Session => "a key of SESSIONS",
        Kind::Instance => "a key of INSTANCES",
    }
}

fn reference(reference: Reference) -> Shown {
    let kind = reference.kind();
    let Reference { seq, to } = reference;
    Shown::Reference {
        seq,
        kind,
        body: to.body,
        bytes: to.bytes,
        chat_id: to.chat_id,
        from: to.from,
        at: to.at,
        client_id: to.message.map(|message| message.client_id),
        message_id: to.message.map(|message| message.message_id),
    }
}

fn notice(notice: Notice, show_body: bool) -> anyhow::Result<Shown> {
    let entry = Entry::decode(&notice.entry).context("the notice holds no entry")?;
    Ok(Shown::Notice {
        worker: notice.worker,
        number: notice.number,
        lane: notice.lane,
        entry: self::entry(entry, show_body),
        recipients: notice.recipients,
    })
}

fn direct(notice: DirectNotice, show_body: bool) -> anyhow::Result<Shown> {
    let entry = Entry::decode(&notice.entry).context("the notice holds no entry")?;
    Ok(Shown::Direct {
        worker: notice.worker,
        number: notice.number,
        lane: notice.lane,
        entry: self::entry(entry, show_body),
        recipients: notice.recipients,
    })
}

fn entry(entry: Entry, show_body: bool) -> ShownEntry {
    ShownEntry {
        seq: entry.seq,
        event: event(entry.event, show_body),
    }
}

fn event(event: Event, show_body: bool) -> ShownEvent {
    match event {
        Event::Message(message) => ShownEvent::Message(self::message(message, show_body)),
        Event::ChatUpdate(update) => ShownEvent::ChatUpdate(chat_update(update)),
    }
}

fn message(message: Message, show_body: bool) -> ShownMessage {
    let attachment = |file: Attachment| ShownAttachment {
        attachment_id: file.attachment_id,
        size: file.size,
        content_type: file.content_type,
        hash: file.hash,
        name: file.name.filter(|_| show_body),
    };
    ShownMessage {
        chat_id: message.chat_id,
        message_id: message.message_id,
        user_id: message.user_id,
        client_id: message.client_id,
        sent_at: message.sent_at,
        message_bytes: message.message.len(),
        message: show_body.then_some(message.message),
        attachments: message.attachments.into_iter().map(attachment).collect(),
    }
}

fn chat_update(update: ChatUpdate) -> ShownChatUpdate {
    let participants = update
        .participants
        .into_iter()
        .map(|participant| ShownParticipant {
            user_id: participant.user_id,
            role: participant.role,
        });
    ShownChatUpdate {
        chat_id: update.chat_id,
        version: update.version,
        chat_kind: update.kind,
        name: update.name,
        by: update.by,
        at: update.at,
        added: update.added,
        removed: update.removed,
        participants: participants.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let attachment = Attachment {
            attachment_id: AttachmentId(Uuid::from_u128(4)),
            size: 5,
            content_type: "image/png".to_owned(),
            hash: "00".to_owned(),
            name: Some("private.png".to_owned()),
        };
        let message = Message {
            chat_id: ChatId(Uuid::from_u128(1)),
            message_id: MessageId(Uuid::from_u128(2)),
            user_id: UserId::new("alice").expect("printable"),
            client_id: ClientId(Uuid::from_u128(3)),
            sent_at: Timestamp(0),
            message: "private words".to_owned(),
            attachments: vec![attachment],
        };
        Entry {
            seq: 41,
            event: Event::Message(message),
        }
    }

    fn json(show_body: bool) -> Value {
        let shown = shown(Kind::Entry, &entry().encode(), show_body).expect("an entry");
        serde_json::to_value(shown).expect("plain data")
    }

    #[test]
    fn what_people_wrote_is_a_length() {
        let shown = json(false);
        assert_eq!(shown["seq"], 41);
        assert_eq!(shown["event"]["message_bytes"], 13);
        assert!(!shown.to_string().contains("private"), "{shown}");
    }

    #[test]
    fn a_reference_says_where_its_event_is() {
        let reference = Reference::new(41, &entry().event, 7, 5_000);
        let shown = shown(Kind::Entry, &reference.encode(), false).expect("an entry");
        let shown = serde_json::to_value(shown).expect("plain data");
        let expected = serde_json::json!({
            "type": "reference",
            "seq": 41,
            "kind": "message",
            "body": 7,
            "bytes": 5_000,
            "from": "alice",
        });
        for (key, value) in expected.as_object().expect("an object") {
            assert_eq!(shown[key], *value, "{key}");
        }
    }

    #[test]
    fn it_is_shown_to_whoever_insists() {
        let shown = json(true);
        assert_eq!(shown["event"]["message"], "private words");
        assert_eq!(shown["event"]["attachments"][0]["name"], "private.png");
    }

    #[test]
    fn what_is_something_else_is_refused_by_name() {
        let error = shown(Kind::Lost, &entry().encode(), false).expect_err("not one");
        assert!(format!("{error:#}").starts_with("not a mark of what is missing: malformed"));
    }
}
