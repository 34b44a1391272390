//! The live lane: what fan-out workers tell gateways over core NATS, on `live.<gateway>`.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_protocol::ClientId;
use uuid::Uuid;

use crate::shard::{Partition, Shard};
use crate::wire::{self, WireError};

/// What a worker tells a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveMessage {
    /// An event was stored in inboxes of clients that are connected there.
    Notice(Notice),
    /// How far the worker is.
    Beacon(Beacon),
    /// An event for clients that are connected there, which is stored for them only if they do not confirm it soon.
    Direct(DirectNotice),
}

impl LiveMessage {
    /// For `live.<gateway>`.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Notice(notice) => wire::encode(&Written::Placed(notice)),
            Self::Beacon(beacon) => wire::encode(&Written::Beacon(beacon)),
            Self::Direct(notice) => wire::encode(&Written::Direct(notice)),
        }
    }

    /// From `live.<gateway>`.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        Ok(match wire::decode(payload)? {
            Read::Unplaced(notice) => Self::Notice(notice.into()),
            Read::Beacon(beacon) => Self::Beacon(beacon),
            Read::Placed(notice) => Self::Notice(notice),
            Read::Direct(notice) => Self::Direct(notice),
        })
    }
}

/// The order is the format.
#[derive(Serialize)]
enum Written<'a> {
    #[expect(dead_code, reason = "only read: workers before lanes were told wrote it")]
    Unplaced,
    Beacon(&'a Beacon),
    Placed(&'a Notice),
    Direct(&'a DirectNotice),
}

#[derive(Deserialize)]
enum Read {
    Unplaced(Unplaced),
    Beacon(Beacon),
    Placed(Notice),
    Direct(DirectNotice),
}

/// A notice of before lanes were told.
#[derive(Serialize, Deserialize)]
struct Unplaced {
    worker: Uuid,
    number: u64,
    entry: Bytes,
    recipients: Vec<(ClientId, u64, Shard, u64)>,
}

impl From<Unplaced> for Notice {
    fn from(unplaced: Unplaced) -> Self {
        let recipients = unplaced.recipients.into_iter();
        Self {
            worker: unplaced.worker,
            number: unplaced.number,
            lane: None,
            entry: unplaced.entry,
            recipients: recipients
                .map(|(client_id, connection, shard, sequence)| Recipient {
                    client_id,
                    connection,
                    shard,
                    sequence,
                    stored_before: false,
                })
                .collect(),
        }
    }
}

/// In which order a notice stands. Within a lane the events of a chat are told one after the other, and none is left
/// out; between lanes nothing is said, and order comes from the stream.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lane {
    /// Whose events.
    pub partition: Partition,
    /// Counts the beginnings of the worker's reader of this partition: each begins with a reset of the consumer,
    /// before which another worker may have read.
    pub generation: u64,
}

/// One event, for all its recipients at one gateway.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice<L = Option<Lane>, R = Recipient> {
    /// The worker's boot id.
    pub worker: Uuid,
    /// Counts this worker's notices to this gateway from 1, direct ones too; a gap casts doubt on every session.
    pub number: u64,
    /// In which order it stands; a worker of before lanes were told does not say.
    pub lane: L,
    /// The entry, as it is stored in the inboxes, or would be.
    pub entry: Bytes,
    /// Who gets it here.
    pub recipients: Vec<R>,
}

/// One event, for all at one gateway who take it directly; its worker is answered on `direct.<worker>`. Only who granted
/// that is sent one, so no gateway of before it must read it.
pub type DirectNotice = Notice<Lane, DirectRecipient>;

/// Without what people wrote.
impl<L: fmt::Debug, R: fmt::Debug> fmt::Debug for Notice<L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notice")
            .field("worker", &self.worker)
            .field("number", &self.number)
            .field("lane", &self.lane)
            .field("entry_bytes", &self.entry.len())
            .field("recipients", &self.recipients)
            .finish()
    }
}

/// A connected client that an entry was stored for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Which.
    pub client_id: ClientId,
    /// On which of its connections; an older or a newer one must not get it.
    pub connection: u64,
    /// In which stream the entry is.
    pub shard: Shard,
    /// Its stream sequence there.
    pub sequence: u64,
    /// It was stored by an earlier try, of this worker or of another. It may be confirmed and gone by now, so the
    /// notice is a reason to read, and not to deliver.
    pub stored_before: bool,
}

/// A connected client that takes events directly.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectRecipient {
    /// Which.
    pub client_id: ClientId,
    /// On which of its connections.
    pub connection: u64,
    /// Its latest grant that the worker knows.
    pub grant: u32,
}

/// Sent every 500 ms to each gateway, and soon after a session's key was applied.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// The worker's boot id.
    pub worker: Uuid,
    /// The number of its last notice to this gateway; 0 before the first.
    pub notices: u64,
    /// Up to which revision of SESSIONS it looks clients up.
    pub sessions_revision: u64,
    /// Up to which sequence of INVALIDATIONS its caches are right.
    pub invalidations_sequence: u64,
}

/// The names of the kinds that are read, as serde knows them.
#[cfg(test)]
pub(crate) fn kinds_read() -> Vec<String> {
    let Err(error) = serde_json::from_str::<Read>(r#""no such variant""#) else {
        panic!("no kind has this name");
    };
    error
        .to_string()
        .split('`')
        .skip(3)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(lane: Option<Lane>, stored_before: bool) -> Notice {
        Notice {
            worker: Uuid::from_u128(1),
            number: 2,
            lane,
            entry: Bytes::from_static(b"entry"),
            recipients: vec![Recipient {
                client_id: ClientId(Uuid::from_u128(3)),
                connection: 4,
                shard: Shard(5),
                sequence: 6,
                stored_before,
            }],
        }
    }

    const WORKER: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const CLIENT: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];

    /// Bytes of the worker's id, then `middle`, then one recipient.
    fn golden(kind: u8, middle: &[u8], end: &[u8]) -> Vec<u8> {
        let mut golden = vec![wire::FORMAT, kind, 16];
        golden.extend(WORKER);
        golden.extend(middle);
        golden.extend([1, 16]);
        golden.extend(CLIENT);
        golden.extend(end);
        golden
    }

    #[test]
    fn the_format_is_held() {
        let lane = Lane {
            partition: Partition(7),
            generation: 300,
        };
        let message = LiveMessage::Notice(notice(Some(lane), true));
        let golden = golden(2, b"\x02\x01\x07\xac\x02\x05entry", &[4, 5, 6, 1]);
        assert_eq!(message.encode(), golden);
        assert_eq!(LiveMessage::decode(&golden), Ok(message));
    }

    #[test]
    fn notices_of_before_lanes_are_read() {
        let golden = golden(0, b"\x02\x05entry", &[4, 5, 6]);
        assert_eq!(
            LiveMessage::decode(&golden),
            Ok(LiveMessage::Notice(notice(None, false)))
        );
    }

    #[test]
    fn the_format_of_direct_notices_is_held() {
        let message = LiveMessage::Direct(DirectNotice {
            worker: Uuid::from_u128(1),
            number: 2,
            lane: Lane {
                partition: Partition(7),
                generation: 300,
            },
            entry: Bytes::from_static(b"entry"),
            recipients: vec![DirectRecipient {
                client_id: ClientId(Uuid::from_u128(3)),
                connection: 4,
                grant: 5,
            }],
        });
        let golden = golden(3, b"\x02\x07\xac\x02\x05entry", &[4, 5]);
        assert_eq!(message.encode(), golden);
        assert_eq!(LiveMessage::decode(&golden), Ok(message));
    }

    #[test]
    fn beacons_are_as_they_were() {
        let beacon = Beacon {
            worker: Uuid::from_u128(1),
            notices: 2,
            sessions_revision: 3,
            invalidations_sequence: 4,
        };
        let golden = [&[wire::FORMAT, 1, 16][..], &WORKER, &[2, 3, 4]].concat();
        assert_eq!(LiveMessage::Beacon(beacon).encode(), golden);
        assert_eq!(LiveMessage::decode(&golden), Ok(LiveMessage::Beacon(beacon)));
    }
}
