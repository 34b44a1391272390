//! What became of a message for one client whose inbox does not have it. Nothing writes that down, so it follows from
//! what was never the case and from what was left behind; where several things may have happened, it says so.

use serde::Serialize;
use tidings_nats::Lost;
use tidings_protocol::{ChatId, Timestamp, TrimReason};

use super::CLOCKS_DIFFER;

/// A connected client is noted hourly, a minute after it comes or goes; a gateway that was killed noted some of that
/// never.
const SEEN_LAG: i64 = 2 * 3_600_000;
/// Entries older than this may have expired; the inbox workers may be told to be stricter, which leaves marks.
const RETENTION: i64 = 30 * 24 * 3_600_000;

/// What became of a message for a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Fate {
    /// It is in CHATS, and not yet in this inbox.
    Pending,
    /// It is in the inbox.
    Stored {
        stream: String,
        sequence: u64,
        stored_at: Timestamp,
        /// Whether in the inbox `first`, which this client inherits.
        first: bool,
    },
    /// It was stored, and has left the inbox because the client has confirmed it. With its sequence in the inbox's stream
    /// where that is remembered, which it is for two minutes; without, a full inbox may have refused it, the client having
    /// confirmed the mark of that instead.
    Confirmed { sequence: Option<u64> },
    /// The inbox was full, and a mark says that something of that moment and chat was refused.
    Refused,
    /// A mark says that something of that moment and chat was too old.
    Expired,
    /// A mark says that the client was away for too long.
    Swept,
    /// It is not there, and more than one thing may have happened.
    Gone { why: Gone },
    /// It was given up before it was stored here: a dead letter.
    GivenUp,
    /// It was never for this client.
    NotForIt { why: NotForIt },
    /// The inbox was not looked through.
    NotKnown { why: &'static str },
}

/// Why one cannot tell.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Gone {
    /// The client was not seen since, so it has hardly confirmed it.
    NotSeenSince,
    /// As old as this, entries expire.
    Old,
    /// The client registered at about that moment.
    JustRegistered,
    /// The client registered later and inherits what had waited for a first client.
    Inherited,
    /// The user has no active client, and nothing waits for a first one.
    NoClient,
}

/// Why it was never for a client.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NotForIt {
    /// It sent it.
    Own,
    /// It registered later.
    RegisteredLater,
    /// The user was not in the chat at that place of it.
    NotInTheChat,
}

/// What is known of a client.
#[derive(Copy, Clone, Debug)]
pub(super) struct Client {
    pub(super) registered_at: Timestamp,
    /// When it was connected last; now, if it is.
    pub(super) seen_at: Timestamp,
    pub(super) heir: bool,
}

/// What is known of the message.
#[derive(Copy, Clone, Debug)]
pub(super) struct Sent {
    pub(super) chat_id: ChatId,
    /// It was accepted between these moments.
    pub(super) accepted: (Timestamp, Timestamp),
    pub(super) now: Timestamp,
}

/// Of a client that has not sent it, whose inbox does not have it, after it was fanned out. `sequence` is where in the
/// inbox's stream it is remembered to have been.
pub(super) fn of_absent(client: Client, sent: &Sent, marks: &[Lost], sequence: Option<u64>) -> Fate {
    if sequence.is_some() {
        return match marked(marks, sent) {
            // What was stored lately has not expired.
            Some(Fate::Swept) => Fate::Swept,
            _ => Fate::Confirmed { sequence },
        };
    }
    let (from, to) = sent.accepted;
    if client.registered_at.0 > to.0 + CLOCKS_DIFFER {
        return if client.heir {
            Fate::Gone { why: Gone::Inherited }
        } else {
            Fate::NotForIt {
                why: NotForIt::RegisteredLater,
            }
        };
    }
    if let Some(marked) = marked(marks, sent) {
        return marked;
    }
    let why = if client.registered_at.0 > from.0 - CLOCKS_DIFFER {
        Gone::JustRegistered
    } else if client.seen_at.0 + SEEN_LAG < from.0 {
        Gone::NotSeenSince
    } else if sent.now.0 - from.0 > RETENTION {
        Gone::Old
    } else {
        return Fate::Confirmed { sequence: None };
    };
    Fate::Gone { why }
}

/// What a mark says of that moment and chat.
pub(super) fn marked(marks: &[Lost], sent: &Sent) -> Option<Fate> {
    let (from, to) = sent.accepted;
    let mark = marks.iter().find(|mark| {
        // Times of marks are those of the messages that they count, except where a client was away.
        let slack = match mark.reason {
            TrimReason::Full | TrimReason::Expired => 0,
            TrimReason::Inactive => CLOCKS_DIFFER,
        };
        mark.since.0 - slack <= to.0
            && from.0 <= mark.until.0 + slack
            && (mark.chats.is_empty() || mark.chats.contains(&sent.chat_id))
    })?;
    Some(match mark.reason {
        TrimReason::Full => Fate::Refused,
        TrimReason::Expired => Fate::Expired,
        TrimReason::Inactive => Fate::Swept,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    /// When it was sent.
    const THEN: i64 = 100 * DAY;

    fn chat(id: u128) -> ChatId {
        ChatId(Uuid::from_u128(id))
    }

    fn sent(age: i64) -> Sent {
        Sent {
            chat_id: chat(1),
            accepted: (Timestamp(THEN), Timestamp(THEN)),
            now: Timestamp(THEN + age),
        }
    }

    /// Registered and seen so long after the message was sent.
    fn client(registered: i64, seen: i64) -> Client {
        Client {
            registered_at: Timestamp(THEN + registered),
            seen_at: Timestamp(THEN + seen),
            heir: false,
        }
    }

    fn mark(reason: TrimReason, since: i64, until: i64, chats: &[u128]) -> Lost {
        Lost {
            reason,
            missed: Some(1),
            since: Timestamp(THEN + since),
            until: Timestamp(THEN + until),
            chats: chats.iter().copied().map(chat).collect(),
        }
    }

    const CONFIRMED: Fate = Fate::Confirmed { sequence: None };

    #[test]
    fn what_nothing_speaks_against_was_confirmed() {
        assert_eq!(of_absent(client(-DAY, HOUR), &sent(DAY), &[], None), CONFIRMED);
        // It was connected all the time, and that is noted every hour.
        assert_eq!(of_absent(client(-DAY, -HOUR), &sent(HOUR), &[], None), CONFIRMED);
        assert_eq!(
            of_absent(client(-DAY, -DAY), &sent(MINUTE), &[], Some(7)),
            Fate::Confirmed { sequence: Some(7) }
        );
    }

    #[test]
    fn where_it_is_not_known_it_is_not_said() {
        for (client, age, why) in [
            (client(-2 * DAY, -DAY), HOUR, Gone::NotSeenSince),
            (client(-DAY, 31 * DAY), 31 * DAY, Gone::Old),
            (client(MINUTE / 2, HOUR), HOUR, Gone::JustRegistered),
            (client(-MINUTE / 2, HOUR), HOUR, Gone::JustRegistered),
            (
                Client {
                    heir: true,
                    ..client(HOUR, HOUR)
                },
                2 * HOUR,
                Gone::Inherited,
            ),
        ] {
            assert_eq!(of_absent(client, &sent(age), &[], None), Fate::Gone { why });
        }
    }

    #[test]
    fn who_registered_later_gets_nothing_of_before() {
        let why = NotForIt::RegisteredLater;
        assert_eq!(
            of_absent(client(HOUR, HOUR), &sent(DAY), &[], None),
            Fate::NotForIt { why }
        );
    }

    #[test]
    fn marks_are_believed_of_their_moment_and_chat() {
        use TrimReason::{Expired, Full, Inactive};
        let fate = |mark: Lost| of_absent(client(-DAY, HOUR), &sent(DAY), &[mark], None);
        assert_eq!(fate(mark(Full, 0, 0, &[1])), Fate::Refused);
        assert_eq!(fate(mark(Full, -HOUR, HOUR, &[2, 1])), Fate::Refused);
        assert_eq!(fate(mark(Expired, -HOUR, 0, &[])), Fate::Expired);
        assert_eq!(fate(mark(Inactive, MINUTE, HOUR, &[])), Fate::Swept);
        assert_eq!(fate(mark(Full, -HOUR, HOUR, &[2])), CONFIRMED);
        assert_eq!(fate(mark(Full, 1, HOUR, &[1])), CONFIRMED);
        assert_eq!(fate(mark(Expired, -HOUR, -1, &[])), CONFIRMED);
    }
}
