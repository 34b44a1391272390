//! One of each thing that travels on the bus or is kept in a bucket, with where it goes and its headers. Every list has
//! something in it, every option is there and is not there, every number needs more than one byte somewhere.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use serde_json::{Value, json};
use tidings_protocol::{
    Attachment, AttachmentId, ChatId, ChatKind, ClientId, MessageId, Participant, Role, Timestamp,
    TrimReason, UserId,
};
use uuid::Uuid;

use super::set::hex;
use crate::{
    BODY_ENTRIES_KIND, Beacon, BodyEntries, ChatUpdate, CloseReason, CloseRequest, DirectAnswer,
    DirectAnswers, DirectNotice, DirectRecipient, Entry, Event, HEADER_GRANTED, HEADER_KIND, HEADER_TRACE,
    Inbox, InboxEntry, Instance, Invalidation, LOST_KIND, Lane, LiveMessage, Lost, Message, Notice,
    Partition, PartitionTrials, Recipient, Reference, SessionKey, Shard, Topology, WireError,
    barrier_subject, body_entries_subject, body_subject, chat_subject, close_subject, dead_letter_subject,
    direct_subject, event_headers, fanout_consumer, inbox_stream, inbox_subject, invalidation_subject,
    live_subject, lost_subject, partition_subjects,
};

/// 2026-11-25T03:33:49.123Z.
const AT: Timestamp = Timestamp(1_795_577_629_123);
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// A boot id in subjects and values.
const GATEWAY: &str = "0199c0de000070008000000000000009";
/// A notice as it was written before lanes were told: the kind 0, which has no lane and nothing of earlier tries.
const UNPLACED: &str = "0100100199c0de0000700080000000000000\
                        11ac0205656e74727901100199c0de0000700080000000000000d188277c0c";

/// One thing.
#[derive(Clone, Debug)]
pub(super) enum Sample {
    Event(Event),
    Entry(Entry),
    Reference(Reference),
    BodyEntries(BodyEntries),
    Lost(Lost),
    Invalidation(Invalidation),
    Close(CloseRequest),
    Live(LiveMessage),
    Direct(DirectAnswers),
    Session(SessionKey),
    Trials(PartitionTrials),
    Instance(Instance),
}

fn uuid(end: u128) -> Uuid {
    Uuid::from_u128(0x0199_c0de_0000_7000_8000_0000_0000_0000 | end)
}

fn user(id: &str) -> UserId {
    UserId::new(id).expect("printable")
}

/// The name of an enum's variant, as serde writes it.
fn variant(value: &Value) -> String {
    match value {
        Value::String(name) => name.clone(),
        Value::Object(fields) => fields.keys().next().expect("a variant has a name").clone(),
        other => panic!("{other} is no variant"),
    }
}

fn json_of(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("bus types have string names")
}

impl Sample {
    /// Type and variant.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Event(event) => format!("event {}", variant(&json_of(event))),
            Self::Entry(entry) => format!("entry {}", variant(&json_of(&entry.event))),
            Self::Reference(_) => "entry Referred".to_owned(),
            Self::BodyEntries(_) => "list of entries".to_owned(),
            Self::Lost(lost) => format!("lost {}", variant(&json_of(&lost.reason))),
            Self::Invalidation(invalidation) => format!("invalidation {}", variant(&json_of(invalidation))),
            Self::Close(request) => format!("close {}", variant(&json_of(&request.reason))),
            Self::Live(LiveMessage::Notice(Notice { lane: None, .. })) => "live Unplaced".to_owned(),
            Self::Live(LiveMessage::Notice(_)) => "live Placed".to_owned(),
            Self::Live(LiveMessage::Beacon(_)) => "live Beacon".to_owned(),
            Self::Live(LiveMessage::Direct(_)) => "live Direct".to_owned(),
            Self::Direct(answers) => format!("direct {}", variant(&json_of(&answers.0[0]))),
            Self::Session(_) => "value of SESSIONS".to_owned(),
            Self::Trials(_) => "value of TRIALS".to_owned(),
            Self::Instance(_) => "value of INSTANCES".to_owned(),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        match self {
            Self::Event(event) => event.encode(),
            Self::Entry(entry) => entry.encode(),
            Self::Reference(reference) => reference.encode(),
            Self::BodyEntries(list) => list.encode(),
            Self::Lost(lost) => lost.encode(),
            Self::Invalidation(invalidation) => invalidation.encode(),
            Self::Close(request) => request.encode(),
            Self::Live(message) => message.encode(),
            Self::Direct(answers) => DirectAnswers::encode(&answers.0),
            Self::Session(key) => key.encode(),
            Self::Trials(trials) => trials.encode(),
            Self::Instance(instance) => instance.encode(),
        }
    }

    /// Reads what is recorded as this kind.
    pub(super) fn decode(kind: &str, payload: &[u8]) -> Result<Self, WireError> {
        let no_json = || WireError::Malformed("not the JSON of this value".to_owned());
        match kind {
            "value of SESSIONS" => SessionKey::decode(payload).map(Self::Session).ok_or_else(no_json),
            "value of TRIALS" => PartitionTrials::decode(payload)
                .map(Self::Trials)
                .ok_or_else(no_json),
            "value of INSTANCES" => Instance::decode(payload).map(Self::Instance).ok_or_else(no_json),
            kind => match kind.split(' ').next() {
                Some("event") => Event::decode(payload).map(Self::Event),
                Some("entry") => InboxEntry::decode(payload).map(|entry| match entry {
                    InboxEntry::Whole(entry) => Self::Entry(entry),
                    InboxEntry::Reference(reference) => Self::Reference(reference),
                }),
                Some("list") => BodyEntries::decode(payload).map(Self::BodyEntries),
                Some("lost") => Lost::decode(payload).map(Self::Lost),
                Some("invalidation") => Invalidation::decode(payload).map(Self::Invalidation),
                Some("close") => CloseRequest::decode(payload).map(Self::Close),
                Some("live") => LiveMessage::decode(payload).map(Self::Live),
                Some("direct") => DirectAnswers::decode(payload).map(Self::Direct),
                _ => Err(WireError::Malformed(format!("nothing is of the kind {kind}"))),
            },
        }
    }

    /// What it says, for people and for comparison.
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Event(event) => json_of(event),
            Self::Entry(entry) => json_of(entry),
            Self::Reference(reference) => json_of(reference),
            Self::BodyEntries(list) => json_of(list),
            Self::Lost(lost) => json_of(lost),
            Self::Invalidation(invalidation) => json_of(invalidation),
            Self::Close(request) => json_of(request),
            Self::Live(LiveMessage::Beacon(beacon)) => json_of(beacon),
            Self::Live(LiveMessage::Notice(notice)) => {
                let mut value = json_of(notice);
                value["entry"] = json!(hex(&notice.entry));
                value
            }
            Self::Live(LiveMessage::Direct(notice)) => {
                let mut value = json_of(notice);
                value["entry"] = json!(hex(&notice.entry));
                value
            }
            Self::Direct(answers) => json_of(answers),
            Self::Session(key) => json_of(key),
            Self::Trials(trials) => json_of(trials),
            Self::Instance(instance) => json_of(instance),
        }
    }

    /// Its subject and its headers.
    pub(super) fn addressed(&self) -> (String, BTreeMap<String, String>) {
        let topology = Topology::default();
        let inbox = || {
            inbox_subject(
                &topology,
                &user("auth0|alice"),
                Inbox::Client(ClientId(uuid(0xd1))),
            )
        };
        let (subject, headers) = match self {
            Self::Event(event) => {
                let mut headers = event_headers(event, &event.message_id());
                if matches!(event, Event::Message(message) if !message.attachments.is_empty()) {
                    headers.insert(HEADER_GRANTED, "300");
                    headers.insert(HEADER_TRACE, TRACE);
                }
                let chat = event.chat_id();
                (chat_subject(topology.partition(chat), chat), headers)
            }
            Self::Entry(entry) => {
                let message_id = Entry::message_id(entry.seq, &uuid(0xd1).to_string());
                (inbox(), event_headers(&entry.event, &message_id))
            }
            Self::Reference(reference) => {
                let message_id = Entry::message_id(reference.seq, &uuid(0xd1).to_string());
                let event = match reference.to.message {
                    Some(_) => message(true),
                    None => update(true),
                };
                (inbox(), event_headers(&event, &message_id))
            }
            Self::BodyEntries(_) => {
                let mut headers = HeaderMap::new();
                headers.insert(HEADER_KIND, BODY_ENTRIES_KIND);
                (body_entries_subject(Partition(48)), headers)
            }
            Self::Lost(_) => {
                let mut headers = HeaderMap::new();
                headers.insert(HEADER_KIND, LOST_KIND);
                (lost_subject(&inbox()), headers)
            }
            Self::Invalidation(invalidation) => (invalidation_subject(invalidation), HeaderMap::new()),
            Self::Close(_) => (close_subject(GATEWAY), HeaderMap::new()),
            Self::Live(_) => (live_subject(GATEWAY), HeaderMap::new()),
            Self::Direct(_) => (direct_subject(&uuid(0xf0).to_string()), HeaderMap::new()),
            Self::Session(_) => (
                format!("$KV.{}.{}", crate::SESSIONS, uuid(0xd1)),
                HeaderMap::new(),
            ),
            Self::Trials(_) => (PartitionTrials::subject(Partition(7)), HeaderMap::new()),
            Self::Instance(_) => (Instance::subject(&format!("gateway.{GATEWAY}")), HeaderMap::new()),
        };
        (subject, text(&headers))
    }
}

fn text(headers: &HeaderMap) -> BTreeMap<String, String> {
    let pairs = headers.iter().flat_map(|(name, values)| {
        let name = name.to_string();
        values
            .iter()
            .map(move |value| (name.clone(), value.as_str().to_owned()))
    });
    pairs.collect()
}

/// Names that are not the subject of one sample.
pub(super) fn names() -> BTreeMap<String, String> {
    let topology = Topology::default();
    let chat = ChatId(uuid(0xc));
    let partition = topology.partition(chat);
    let first = inbox_subject(&topology, &user("bob@example.org"), Inbox::First);
    let names = [
        ("stream of accepted events", crate::CHATS.to_owned()),
        (
            "stream of an inbox",
            inbox_stream(topology.shard(&user("auth0|alice"))),
        ),
        ("stream of large bodies", crate::BODIES.to_owned()),
        ("a large body", body_subject(Partition(48))),
        ("lists of who refers to bodies", crate::BODY_ENTRIES.to_owned()),
        ("stream of invalidations", crate::INVALIDATIONS.to_owned()),
        ("stream of dead letters", crate::DEAD_LETTERS.to_owned()),
        ("bucket of connected clients", crate::SESSIONS.to_owned()),
        ("bucket of processes", crate::INSTANCES.to_owned()),
        ("bucket of trials", crate::TRIALS.to_owned()),
        ("inbox of who has no client", first),
        ("subjects of a partition", partition_subjects(partition)),
        ("consumer of a partition", fanout_consumer(partition)),
        ("group of that consumer", crate::FANOUT_GROUP.to_owned()),
        (
            "a dead letter",
            dead_letter_subject(&chat_subject(partition, chat)),
        ),
        ("barrier of an inboxes' stream", barrier_subject("INBOX_07")),
        ("barrier of a bucket", barrier_subject("KV_SESSIONS")),
        ("header of a deduplication id", NATS_MESSAGE_ID.to_string()),
        ("header of a reason", crate::HEADER_REASON.to_owned()),
        ("header of tries", crate::HEADER_TRIES.to_owned()),
    ];
    names.map(|(what, name)| (what.to_owned(), name)).into()
}

fn message(full: bool) -> Event {
    Event::Message(Message {
        chat_id: ChatId(uuid(0xc)),
        message_id: MessageId(uuid(0x123)),
        user_id: user("auth0|alice"),
        client_id: ClientId(uuid(0xd1)),
        sent_at: AT,
        message: if full { "zoë" } else { "" }.to_owned(),
        attachments: if full {
            vec![attachment(true), attachment(false)]
        } else {
            vec![]
        },
    })
}

fn attachment(named: bool) -> Attachment {
    Attachment {
        attachment_id: AttachmentId(uuid(0xaf)),
        size: 300,
        content_type: "image/png".to_owned(),
        hash: "ab".repeat(32),
        name: named.then(|| "cat.png".to_owned()),
    }
}

fn update(group: bool) -> Event {
    let participant = |id, role| Participant {
        user_id: user(id),
        role,
    };
    Event::ChatUpdate(ChatUpdate {
        chat_id: ChatId(uuid(0xc)),
        version: if group { 300 } else { 1 },
        kind: if group { ChatKind::Group } else { ChatKind::Direct },
        name: group.then(|| "Lunch".to_owned()),
        by: user("auth0|alice"),
        at: AT,
        added: vec![user("bob")],
        removed: if group { vec![user("carol")] } else { vec![] },
        participants: vec![
            participant("auth0|alice", Role::Admin),
            participant("bob", Role::Member),
        ],
    })
}

fn lost(reason: TrimReason, missed: Option<u64>) -> Sample {
    Sample::Lost(Lost {
        reason,
        missed,
        since: AT,
        until: Timestamp(AT.0 + 1),
        chats: missed.map(|_| ChatId(uuid(0xc))).into_iter().collect(),
    })
}

fn close(reason: CloseReason, connection: Option<u64>) -> Sample {
    Sample::Close(CloseRequest {
        client_id: ClientId(uuid(0xd1)),
        connection,
        reason,
    })
}

fn notice(lane: Option<Lane>, stored_before: bool) -> Sample {
    Sample::Live(LiveMessage::Notice(Notice {
        worker: uuid(0x11),
        number: 300,
        lane,
        entry: Bytes::from_static(b"entry"),
        recipients: vec![Recipient {
            client_id: ClientId(uuid(0xd1)),
            connection: 5_000,
            shard: Shard(0x7c),
            sequence: 12,
            stored_before,
        }],
    }))
}

fn direct() -> Sample {
    Sample::Live(LiveMessage::Direct(DirectNotice {
        worker: uuid(0x11),
        number: 300,
        lane: Lane {
            partition: Partition(31),
            generation: 300,
        },
        entry: Bytes::from_static(b"entry"),
        recipients: vec![DirectRecipient {
            client_id: ClientId(uuid(0xd1)),
            connection: 5_000,
            grant: 300,
        }],
    }))
}

fn answer(answer: DirectAnswer) -> Sample {
    Sample::Direct(DirectAnswers(vec![answer]))
}

fn large_bodies() -> [(&'static str, Sample); 3] {
    [
        (
            "of a message",
            Sample::Reference(Reference::new(70_000, &message(true), 300, 70_000)),
        ),
        (
            "of a group",
            Sample::Reference(Reference::new(70_000, &update(true), 300, 70_000)),
        ),
        (
            "in two shards",
            Sample::BodyEntries(BodyEntries {
                seq: 70_000,
                body: 300,
                entries: vec![(Shard(7), 70_000), (Shard(63), 300)],
            }),
        ),
    ]
}

/// A name, the thing, and the bytes of what is only read.
pub(super) fn samples() -> Vec<(&'static str, Sample, Option<&'static str>)> {
    let entry = |event| Sample::Entry(Entry { seq: 70_000, event });
    let lane = Some(Lane {
        partition: Partition(31),
        generation: 300,
    });
    let beacon = Beacon {
        worker: uuid(0x11),
        notices: 300,
        sessions_revision: 70_000,
        invalidations_sequence: u64::MAX,
    };
    let instance = |address: Option<&str>| Instance {
        service: "gateway".to_owned(),
        address: address.map(str::to_owned),
        version: "0.1.0".to_owned(),
        started: AT,
    };
    let written = [
        ("with files", Sample::Event(message(true))),
        ("empty", Sample::Event(message(false))),
        ("of a group", Sample::Event(update(true))),
        ("of a direct chat", Sample::Event(update(false))),
        ("with files", entry(message(true))),
        ("of a group", entry(update(true))),
        ("full", lost(TrimReason::Full, Some(300))),
        ("expired", lost(TrimReason::Expired, Some(1))),
        ("nobody knows how many", lost(TrimReason::Inactive, None)),
        (
            "a user's clients",
            Sample::Invalidation(Invalidation::User {
                user_id: user("auth0|alice"),
            }),
        ),
        (
            "a chat's participants",
            Sample::Invalidation(Invalidation::Chat {
                chat_id: ChatId(uuid(0xc)),
                version: 300,
            }),
        ),
        ("one connection", close(CloseReason::Replaced, Some(u64::MAX))),
        ("any connection", close(CloseReason::Removed, None)),
        ("any connection", close(CloseReason::Suspended, None)),
        ("any connection", close(CloseReason::Kicked, None)),
        ("stored before", notice(lane, true)),
        ("just stored", notice(lane, false)),
        ("a beacon", Sample::Live(LiveMessage::Beacon(beacon))),
        ("before it is stored", direct()),
        (
            "a connection",
            answer(DirectAnswer::Granted {
                client_id: ClientId(uuid(0xd1)),
                connection: u64::MAX,
                grant: 300,
            }),
        ),
        (
            "an event",
            answer(DirectAnswer::Confirmed {
                event: 70_000,
                client_id: ClientId(uuid(0xd1)),
            }),
        ),
        (
            "an event",
            answer(DirectAnswer::Refused {
                event: 70_000,
                client_id: ClientId(uuid(0xd1)),
            }),
        ),
        (
            "a connection",
            Sample::Session(SessionKey {
                gateway: GATEWAY.to_owned(),
                connection: u64::MAX,
                user_id: user("auth0|alice"),
                since: AT,
            }),
        ),
        (
            "tried, and died of",
            Sample::Trials(PartitionTrials {
                trying: BTreeMap::from([(41, GATEWAY.to_owned())]),
                deaths: BTreeMap::from([(41, 2)]),
            }),
        ),
        (
            "with an address",
            Sample::Instance(instance(Some("127.0.0.1:8080"))),
        ),
        ("without an address", Sample::Instance(instance(None))),
    ];
    let written = written.into_iter().chain(large_bodies());
    let mut samples: Vec<_> = written.map(|(name, sample)| (name, sample, None)).collect();
    samples.push(("before lanes were told", notice(None, false), Some(UNPLACED)));
    samples
}
