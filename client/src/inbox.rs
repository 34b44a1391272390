//! Which deliveries are with the application, and what to tell the server about them. Pure.
//!
//! A delivery's number means something on its connection only, and the same event may come again on the
//! next one while the application still holds the first copy. So what is with the application is kept by
//! what it *is*, and only points at its number on the connection of the moment.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tidings_protocol::{ChatUpdate, InboxTrimmed, NewMessage, Received, Timestamp, TrimReason};
use tokio::time::Instant;

use crate::store::Known;

/// Confirmations are told when there are so many of them,
const BATCH_MAX: usize = 64;
/// or when they weigh a quarter of the window's bytes, lest large messages wait for the clock,
const BATCH_BYTES_MAX: usize = tidings_protocol::WINDOW_BYTES_MAX / 4;
/// or when the first of them is so old.
const BATCH_WAIT: Duration = Duration::from_millis(200);

/// What a delivery is, on whichever connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A message or a change of a chat.
    Known(Known),
    /// A mark of what is missing. It has no id; the same words are the same mark.
    Trimmed(TrimReason, Option<u64>, Timestamp, Timestamp),
}

impl Key {
    pub(crate) fn of_message(message: &NewMessage) -> Self {
        Self::Known(Known::Message {
            chat_id: message.chat_id,
            client_id: message.client_id,
            message_id: message.message_id,
        })
    }

    pub(crate) fn of_update(update: &ChatUpdate) -> Self {
        Self::Known(Known::Update {
            chat_id: update.chat_id,
            version: update.version,
        })
    }

    pub(crate) fn of_trimmed(trimmed: &InboxTrimmed) -> Self {
        Self::Trimmed(trimmed.reason, trimmed.missed, trimmed.since, trimmed.until)
    }
}

/// What to do with a delivery that came.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The application gets it.
    Hand,
    /// The application has it or had it; whatever is to be confirmed will be.
    Drop,
}

/// The deliveries of one client.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// With the application, and their numbers on this connection, if they came on it.
    handed: HashMap<Key, Option<u64>>,
    /// Taken by the application, but perhaps not yet in the store.
    taken: HashSet<Key>,
    /// Came on this connection and not confirmed; with their bytes.
    outstanding: BTreeMap<u64, usize>,
    /// Confirmed and not yet told.
    untold: BTreeMap<u64, usize>,
    untold_since: Option<Instant>,
}

impl Inbox {
    /// A new connection counts from 1 and has confirmed nothing.
    pub(crate) fn connected(&mut self) {
        self.outstanding.clear();
        self.untold.clear();
        self.untold_since = None;
        for number in self.handed.values_mut() {
            *number = None;
        }
    }

    /// A delivery came. `known` is what the store says about it.
    pub(crate) fn arrived(
        &mut self,
        number: u64,
        key: Key,
        bytes: usize,
        known: bool,
        now: Instant,
    ) -> Arrival {
        self.outstanding.insert(number, bytes);
        if let Some(earlier) = self.handed.get_mut(&key) {
            if let Some(other) = earlier.replace(number)
                && other != number
            {
                // The same event twice on one connection: the application confirms the later one.
                self.confirm_number(other, now);
            }
            return Arrival::Drop;
        }
        if known || self.taken.contains(&key) || self.overtaken(key) {
            self.confirm_number(number, now);
            return Arrival::Drop;
        }
        self.handed.insert(key, Some(number));
        Arrival::Hand
    }

    /// A frame of an unknown type with a number.
    pub(crate) fn ignored(&mut self, number: u64, now: Instant) {
        self.outstanding.insert(number, 0);
        self.confirm_number(number, now);
    }

    /// The application has taken it. False if it is not with the application, which is a confirmation too
    /// many.
    pub(crate) fn confirmed(&mut self, key: Key, now: Instant) -> bool {
        let Some(number) = self.handed.remove(&key) else {
            return false;
        };
        self.taken.insert(key);
        if let Some(number) = number {
            self.confirm_number(number, now);
        }
        true
    }

    /// The application let go of it without taking it: it comes again on another connection.
    pub(crate) fn abandoned(&mut self, key: Key) {
        self.handed.remove(&key);
    }

    /// The application has it from elsewhere: it sent it itself.
    pub(crate) fn has(&mut self, known: Known) {
        self.taken.insert(Key::Known(known));
    }

    /// What was taken is in the store now.
    pub(crate) fn stored(&mut self) {
        self.taken.clear();
    }

    /// When the next confirmations are to be told.
    pub(crate) fn due(&self) -> Option<Instant> {
        let since = self.untold_since?;
        let full = self.untold.len() >= BATCH_MAX || self.untold.values().sum::<usize>() >= BATCH_BYTES_MAX;
        Some(if full { since } else { since + BATCH_WAIT })
    }

    /// The confirmations to tell, and from now on told. To be called after the store has what was taken.
    pub(crate) fn tell(&mut self) -> Vec<Received> {
        self.untold_since = None;
        let first_outstanding = self.outstanding.keys().next().copied().unwrap_or(u64::MAX);
        let loose = self.untold.split_off(&first_outstanding);
        let contiguous = std::mem::take(&mut self.untold);
        let through = contiguous.last_key_value().map(|(number, _)| Received {
            delivery: None,
            through: Some(*number),
        });
        let one = |number| Received {
            delivery: Some(number),
            through: None,
        };
        through.into_iter().chain(loose.into_keys().map(one)).collect()
    }

    fn confirm_number(&mut self, number: u64, now: Instant) {
        if let Some(bytes) = self.outstanding.remove(&number) {
            self.untold.insert(number, bytes);
            self.untold_since.get_or_insert(now);
        }
    }

    /// Whether the application has a newer version of the chat.
    fn overtaken(&self, key: Key) -> bool {
        let Key::Known(Known::Update { chat_id, version }) = key else {
            return false;
        };
        self.handed.keys().chain(&self.taken).any(|other| {
            matches!(other, Key::Known(Known::Update { chat_id: chat, version: newer })
                if *chat == chat_id && *newer >= version)
        })
    }
}

#[cfg(test)]
mod tests {
    use tidings_protocol::{ChatId, ClientId, MessageId};
    use uuid::Uuid;

    use super::*;

    fn message(number: u128) -> Key {
        Key::Known(Known::Message {
            chat_id: ChatId(Uuid::from_u128(1)),
            client_id: ClientId(Uuid::from_u128(2)),
            message_id: MessageId(Uuid::from_u128(number)),
        })
    }

    fn update(version: u64) -> Key {
        Key::Known(Known::Update {
            chat_id: ChatId(Uuid::from_u128(1)),
            version,
        })
    }

    /// Runs a script and compares what the server is told at each `tell`. Words: `+3=m7` delivery 3 is
    /// message 7 (`v` for a version, a `!` after it: the store knows it), `c=m7` the application confirms,
    /// `a=m7` abandons, `?9` an unknown frame, `new` a new connection, `stored`, `tell`. The answer lists hand-overs as `m7` and tells as `<3` (through) and `3`.
    fn check(script: &str, expected: &str) {
        let now = Instant::now();
        let mut inbox = Inbox::default();
        let mut answer = Vec::new();
        let key = |text: &str| {
            let (kind, number) = text.split_at(1);
            let number: u64 = number.parse().expect("a number");
            if kind == "m" {
                message(number.into())
            } else {
                update(number)
            }
        };
        for word in script.split_whitespace() {
            if let Some(rest) = word.strip_prefix('+') {
                let known = rest.ends_with('!');
                let (number, what) = rest.trim_end_matches('!').split_once('=').expect("a delivery");
                let number = number.parse().expect("a number");
                if inbox.arrived(number, key(what), 10, known, now) == Arrival::Hand {
                    answer.push(what.to_owned());
                }
            } else if let Some(what) = word.strip_prefix("c=") {
                inbox.confirmed(key(what), now);
            } else if let Some(what) = word.strip_prefix("a=") {
                inbox.abandoned(key(what));
            } else if let Some(number) = word.strip_prefix('?') {
                inbox.ignored(number.parse().expect("a number"), now);
            } else if word == "new" {
                inbox.connected();
            } else if word == "stored" {
                inbox.stored();
            } else {
                assert_eq!(word, "tell");
                let told = inbox.tell();
                answer.extend(
                    told.iter()
                        .map(|received| match (received.through, received.delivery) {
                            (Some(through), _) => format!("<{through}"),
                            (_, delivery) => delivery.expect("one of the two").to_string(),
                        }),
                );
            }
        }
        assert_eq!(answer.join(" "), expected, "{script}");
    }

    #[test]
    fn confirmations_are_told_through_where_nothing_is_missing_and_one_by_one_elsewhere() {
        check("+1=m1 +2=m2 +3=m3 c=m1 c=m2 tell", "m1 m2 m3 <2");
        check(
            "+1=m1 +2=m2 +3=m3 c=m3 tell c=m1 tell c=m2 tell",
            "m1 m2 m3 3 <1 <2",
        );
        check("+1=m1 +2=m2 +3=m3 c=m3 tell c=m2 c=m1 tell tell", "m1 m2 m3 3 <2");
        check(
            "+1=m1 +2=m2 +3=m3 +4=m4 c=m1 c=m3 c=m4 tell",
            "m1 m2 m3 m4 <1 3 4",
        );
        check("tell", "");
    }

    #[test]
    fn what_is_known_is_dropped_and_confirmed() {
        check("+1=m1! +2=m2 tell", "m2 <1");
        check("+1=m1 c=m1 new +1=m1 tell", "m1 <1");
        check("+1=m1 c=m1 c=m1 tell", "m1 <1");
    }

    #[test]
    fn what_the_application_holds_is_not_handed_twice_and_is_confirmed_where_it_came_last() {
        check("+1=m9 +2=m1 new +1=m1 +2=m2 c=m1 tell", "m9 m1 m2 <1");
        check("+1=m1 new c=m1 tell +1=m1 tell", "m1 <1");
        check("+1=m1 +2=m1 tell c=m1 tell", "m1 <1 <2");
        check("+1=m1 +1=m1 tell", "m1");
    }

    #[test]
    fn what_the_application_lets_go_comes_again() {
        check("+1=m1 +2=m2 a=m1 c=m2 tell new +1=m1 c=m1 tell", "m1 m2 2 m1 <1");
        check("+1=m1 a=m1 c=m1 tell", "m1");
    }

    #[test]
    fn lower_and_equal_versions_are_ignored() {
        check("+1=v8 +2=v7 +3=v8 tell c=v8 tell +4=v9", "v8 <2 <3 v9");
        check("+1=v8 c=v8 +2=v7 stored +3=v7! tell", "v8 <3");
    }

    #[test]
    fn unknown_frames_are_confirmed_and_their_gaps_do_not_matter() {
        check("?1 +2=m1 tell c=m1 tell", "m1 <1 <2");
        check("+1=m1 +9=m2 c=m1 c=m2 tell", "m1 m2 <9");
    }

    #[test]
    fn confirmations_wait_for_company_but_not_long() {
        let now = Instant::now();
        let mut inbox = Inbox::default();
        assert_eq!(inbox.due(), None);
        for number in 1..=64 {
            inbox.arrived(number, message(number.into()), 10, false, now);
            inbox.confirmed(message(number.into()), now);
            let wait = if number < 64 { BATCH_WAIT } else { Duration::ZERO };
            assert_eq!(inbox.due(), Some(now + wait));
        }
        inbox.tell();
        assert_eq!(inbox.due(), None);
        inbox.arrived(65, message(65), BATCH_BYTES_MAX, true, now);
        assert_eq!(inbox.due(), Some(now), "large ones do not wait");
    }
}
