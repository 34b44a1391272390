//! What a payload is: told by its subject, or by what accounts for every byte of it.

use anyhow::bail;
use tidings_nats::{
    BodyEntries, CloseRequest, DirectAnswers, Entry, Event, InboxEntry, Instance, Invalidation, LiveMessage,
    Lost, SessionKey, WireError,
};
use tidings_protocol::Timestamp;

/// 2020-01-01: no Tidings is older.
const EARLIEST: Timestamp = Timestamp(1_577_836_800_000);
/// 2100-01-01: no clock is as wrong as that.
const LATEST: Timestamp = Timestamp(4_102_444_800_000);

/// A type of what travels on the bus.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// What happened in a chat: CHATS and `DEAD_LETTERS`.
    Event,
    /// An event in an inbox, or where it is; a large body in BODIES.
    Entry,
    /// The list of the entries that refer to a large body.
    BodyEntries,
    /// The mark of what is missing from an inbox.
    Lost,
    /// What gateways and workers must forget.
    Invalidation,
    /// A notice or beacon from a fan-out worker to a gateway.
    Live,
    /// What a gateway answers a fan-out worker about direct deliveries.
    Answers,
    /// The request to close a connection.
    Close,
    /// A value of the bucket SESSIONS.
    Session,
    /// A value of the bucket INSTANCES.
    Instance,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Event,
        Self::Entry,
        Self::BodyEntries,
        Self::Lost,
        Self::Invalidation,
        Self::Live,
        Self::Answers,
        Self::Close,
        Self::Session,
        Self::Instance,
    ];

    /// What is on a subject.
    pub(crate) fn on(subject: &str) -> Option<Self> {
        let mut tokens = subject.split('.');
        let is_mark = tokens.clone().count() == 5 && tokens.clone().next_back() == Some("lost");
        Some(match tokens.next()? {
            "chat" | "dead" => Self::Event,
            "inbox" if is_mark => Self::Lost,
            "body" if subject.ends_with(".entries") => Self::BodyEntries,
            "inbox" | "body" => Self::Entry,
            "invalidation" => Self::Invalidation,
            "live" => Self::Live,
            "direct" => Self::Answers,
            "close" => Self::Close,
            "$KV" => match tokens.next()? {
                "SESSIONS" => Self::Session,
                "INSTANCES" => Self::Instance,
                _ => return None,
            },
            _ => return None,
        })
    }

    /// Whether the payload can be this: every byte is accounted for, and its times are of this century.
    fn fits(self, payload: &[u8]) -> bool {
        match self {
            Self::Event => Event::decode(payload).is_ok_and(|event| plausible(&event)),
            Self::Entry => match InboxEntry::decode(payload) {
                Ok(InboxEntry::Whole(entry)) => plausible(&entry.event),
                Ok(InboxEntry::Reference(reference)) => lately(reference.to.at),
                Err(_) => false,
            },
            Self::BodyEntries => BodyEntries::decode(payload).is_ok_and(|list| list.entries.is_sorted()),
            Self::Lost => Lost::decode(payload).is_ok_and(|lost| lately(lost.since) && lately(lost.until)),
            Self::Invalidation => Invalidation::decode(payload).is_ok(),
            Self::Live => match LiveMessage::decode(payload) {
                Ok(LiveMessage::Notice(notice)) => Entry::decode(&notice.entry).is_ok(),
                Ok(LiveMessage::Direct(notice)) => Entry::decode(&notice.entry).is_ok(),
                Ok(LiveMessage::Beacon(_)) => true,
                Err(_) => false,
            },
            // None is ever empty.
            Self::Answers => DirectAnswers::decode(payload).is_ok_and(|answers| !answers.0.is_empty()),
            Self::Close => CloseRequest::decode(payload).is_ok(),
            Self::Session => SessionKey::decode(payload).is_some(),
            Self::Instance => Instance::decode(payload).is_some(),
        }
    }
}

/// The one type that fits.
pub(crate) fn guess(payload: &[u8]) -> anyhow::Result<Kind> {
    let fitting: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.fits(payload)).collect();
    match fitting[..] {
        [kind] => Ok(kind),
        [] => match Event::decode(payload) {
            // Where a text begins is no format that will ever be.
            Err(error @ WireError::Newer(..=0x1f)) => {
                bail!("{error}: use the `tidings` of that version")
            }
            _ => bail!("these {} bytes are no payload of Tidings", payload.len()),
        },
        [first, second, ..] => {
            bail!(
                "this could be {first:?} or {second:?}: say which with --as, or where it was with --subject"
            )
        }
    }
}

fn plausible(event: &Event) -> bool {
    match event {
        Event::Message(message) => lately(message.sent_at),
        Event::ChatUpdate(update) => lately(update.at),
    }
}

fn lately(moment: Timestamp) -> bool {
    (EARLIEST..LATEST).contains(&moment)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidings_nats::{
        Beacon, ChatUpdate, CloseReason, DirectAnswer, DirectNotice, DirectRecipient, Lane, Message, Notice,
        Partition, Recipient, Reference, Shard,
    };
    use tidings_protocol::{ChatId, ChatKind, ClientId, MessageId, TrimReason, UserId};
    use uuid::Uuid;

    use super::*;

    fn event(chat: u128, text: &str) -> Event {
        Event::Message(Message {
            chat_id: ChatId(Uuid::from_u128(chat)),
            message_id: MessageId(Uuid::from_u128(!chat)),
            user_id: UserId::new("alice").expect("printable"),
            client_id: ClientId(Uuid::from_u128(chat)),
            sent_at: Timestamp(1_795_575_600_123),
            message: text.to_owned(),
            attachments: vec![],
        })
    }

    /// One of each type, with ids and numbers that look like something else where the formats allow it.
    /// Of direct delivery.
    fn direct_samples(uuid: Uuid, seq: u64, entry: &Entry) -> Vec<(Kind, Bytes)> {
        let client_id = ClientId(uuid);
        let direct = LiveMessage::Direct(DirectNotice {
            worker: uuid,
            number: seq,
            lane: Lane {
                partition: Partition(1),
                generation: 1,
            },
            entry: entry.encode(),
            recipients: vec![DirectRecipient {
                client_id,
                connection: 1,
                grant: 1,
            }],
        });
        let answers = [
            DirectAnswer::Granted {
                client_id,
                connection: seq,
                grant: 1,
            },
            DirectAnswer::Confirmed {
                event: seq,
                client_id,
            },
            DirectAnswer::Refused {
                event: seq,
                client_id,
            },
        ];
        let mut samples = vec![(Kind::Live, direct.encode())];
        samples.extend(answers.map(|answer| (Kind::Answers, DirectAnswers::encode(&[answer]))));
        samples
    }

    fn samples() -> Vec<(Kind, Bytes)> {
        let mut samples = Vec::new();
        for number in [0, 1, 16, 0x10 << 120, 1 << 120, u128::MAX] {
            let (uuid, at) = (Uuid::from_u128(number), Timestamp(1_795_575_600_123));
            let user_id = UserId::new("alice").expect("printable");
            let update = Event::ChatUpdate(ChatUpdate {
                chat_id: ChatId(uuid),
                version: 1,
                kind: ChatKind::Direct,
                name: None,
                by: user_id.clone(),
                at,
                added: vec![user_id.clone()],
                removed: vec![],
                participants: vec![],
            });
            for event in [event(number, ""), event(number, "hi"), update] {
                for seq in [1, 16, 300, u64::MAX] {
                    let entry = Entry {
                        seq,
                        event: event.clone(),
                    };
                    samples.push((Kind::Entry, entry.encode()));
                    let reference = Reference::new(seq, &event, seq, 5_000);
                    samples.push((Kind::Entry, reference.encode()));
                    for entries in [vec![], vec![(Shard(16), seq), (Shard(63), 16)]] {
                        let list = BodyEntries {
                            seq,
                            body: seq,
                            entries,
                        };
                        samples.push((Kind::BodyEntries, list.encode()));
                    }
                    let recipient = Recipient {
                        client_id: ClientId(uuid),
                        connection: 1,
                        shard: Shard(16),
                        sequence: 1,
                        stored_before: false,
                    };
                    let notice = LiveMessage::Notice(Notice {
                        worker: uuid,
                        number: seq,
                        lane: None,
                        entry: entry.encode(),
                        recipients: vec![recipient],
                    });
                    samples.push((Kind::Live, notice.encode()));
                    samples.extend(direct_samples(uuid, seq, &entry));
                }
                samples.push((Kind::Event, event.encode()));
            }
            for missed in [None, Some(16)] {
                let lost = Lost {
                    reason: TrimReason::Expired,
                    missed,
                    since: at,
                    until: at,
                    chats: vec![ChatId(uuid)],
                };
                samples.push((Kind::Lost, lost.encode()));
            }
            let chat = Invalidation::Chat {
                chat_id: ChatId(uuid),
                version: 16,
            };
            samples.push((Kind::Invalidation, chat.encode()));
            for connection in [None, Some(1), Some(u64::MAX)] {
                let close = CloseRequest {
                    client_id: ClientId(uuid),
                    connection,
                    reason: CloseReason::Replaced,
                };
                samples.push((Kind::Close, close.encode()));
            }
            let beacon = LiveMessage::Beacon(Beacon {
                worker: uuid,
                notices: 0,
                sessions_revision: 16,
                invalidations_sequence: 1,
            });
            samples.push((Kind::Live, beacon.encode()));
            let session = SessionKey {
                gateway: uuid.simple().to_string(),
                connection: 1,
                user_id,
                since: at,
            };
            samples.push((Kind::Session, session.encode()));
        }
        let user_id = UserId::new("a").expect("printable");
        samples.push((Kind::Invalidation, Invalidation::User { user_id }.encode()));
        samples
    }

    #[test]
    fn every_payload_is_told_by_its_bytes() {
        for (kind, payload) in samples() {
            assert_eq!(guess(&payload).ok(), Some(kind), "{payload:?}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for (payload, reason) in [
            (&b"hello"[..], "no payload"),
            (b"{}", "no payload"),
            (b"\x01", "no payload"),
            (b"\x00\x00", "no payload"),
            (b"\x02\x00", "format 2 is newer"),
        ] {
            let error = guess(payload).expect_err("not a payload").to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn subjects_tell_the_type() {
        let client = Uuid::from_u128(1);
        for (subject, kind) in [
            (format!("chat.03.{client}"), Some(Kind::Event)),
            (format!("dead.03.{client}"), Some(Kind::Event)),
            (format!("inbox.07.alice.{client}"), Some(Kind::Entry)),
            ("body.07".to_owned(), Some(Kind::Entry)),
            ("body.07.entries".to_owned(), Some(Kind::BodyEntries)),
            ("inbox.07.lost".to_owned(), Some(Kind::Entry)),
            (format!("inbox.07.alice.{client}.lost"), Some(Kind::Lost)),
            ("invalidation.user.alice".to_owned(), Some(Kind::Invalidation)),
            ("live.x".to_owned(), Some(Kind::Live)),
            ("direct.x".to_owned(), Some(Kind::Answers)),
            ("close.x".to_owned(), Some(Kind::Close)),
            (format!("$KV.SESSIONS.{client}"), Some(Kind::Session)),
            ("$KV.INSTANCES.gateway.x".to_owned(), Some(Kind::Instance)),
            ("$KV.OTHER.x".to_owned(), None),
            ("orders".to_owned(), None),
        ] {
            assert_eq!(Kind::on(&subject), kind, "{subject}");
        }
    }
}
