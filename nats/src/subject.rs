//! Names on the bus: subjects, streams, consumers. Written and read here only.

use std::fmt::Write as _;

use tidings_protocol::{ChatId, ClientId, UserId};

use crate::shard::{Partition, Shard, Topology};

/// The reserved client of a user who has not registered one yet. Not a UUID, so it cannot be anybody's.
pub const FIRST: &str = "first";

/// See [`barrier_subject`].
const BARRIER: &str = "barrier";

/// Writes a user id as one subject token: what is not `[A-Za-z0-9_-]` becomes `=` and two upper-case hex
/// digits. `=` itself is escaped, so the way back is unambiguous.
pub fn escape_user(user_id: &UserId) -> String {
    let mut token = String::with_capacity(user_id.as_str().len());
    for byte in user_id.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            token.push(char::from(byte));
        } else {
            write!(token, "={byte:02X}").expect("a String takes everything");
        }
    }
    token
}

/// Reads a token written by [`escape_user`]. None for anything else.
pub fn unescape_user(token: &str) -> Option<UserId> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let user_id = UserId::new(std::str::from_utf8(&bytes).ok()?).ok()?;
    (escape_user(&user_id) == token).then_some(user_id)
}

/// `chat.<partition>.<chat>`: where the events of a chat go.
pub fn chat_subject(partition: Partition, chat_id: ChatId) -> String {
    format!("chat.{partition}.{chat_id}")
}

/// `chat.<partition>.*`: the events of a partition.
pub fn partition_subjects(partition: Partition) -> String {
    format!("chat.{partition}.*")
}

/// `fanout-<partition>`: the durable that reads a partition.
pub fn fanout_consumer(partition: Partition) -> String {
    format!("fanout-{partition}")
}

/// `INBOX_<shard>`: the stream of a shard.
pub fn inbox_stream(shard: Shard) -> String {
    format!("INBOX_{shard}")
}

/// Whose inbox: a client's, or the one that waits for the user's first client.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Inbox {
    /// Of a registered client.
    Client(ClientId),
    /// Of the client that will register first.
    First,
}

/// `inbox.<shard>.<user>.<client>`: where the entries of a client go.
pub fn inbox_subject(topology: &Topology, user_id: &UserId, inbox: Inbox) -> String {
    let shard = topology.shard(user_id);
    let user = escape_user(user_id);
    match inbox {
        Inbox::Client(client_id) => format!("inbox.{shard}.{user}.{client_id}"),
        Inbox::First => format!("inbox.{shard}.{user}.{FIRST}"),
    }
}

/// The inbox's second subject, on which it is marked what is missing from it.
pub fn lost_subject(inbox_subject: &str) -> String {
    format!("{inbox_subject}.lost")
}

/// Whether a subject in an inbox's stream is one of marks: `inbox.<shard>.<user>.<client>.lost`.
pub fn is_mark(subject: &str) -> bool {
    subject.split('.').nth(4) == Some("lost")
}

/// Where a barrier goes: `inbox.<shard>.barrier` in `INBOX_<shard>`, `$KV.<bucket>.barrier` in `KV_<bucket>`. No
/// inbox, client, process or partition has that name.
pub fn barrier_subject(stream: &str) -> String {
    match (stream.strip_prefix("INBOX_"), stream.strip_prefix("KV_")) {
        (Some(shard), _) => format!("inbox.{shard}.{BARRIER}"),
        (_, Some(bucket)) => format!("$KV.{bucket}.{BARRIER}"),
        (None, None) => unreachable!("{stream} takes no barriers"),
    }
}

/// Whether [`barrier_subject`] has a subject for this stream.
pub(crate) fn takes_barriers(stream: &str) -> bool {
    stream.starts_with("INBOX_") || stream.starts_with("KV_")
}

/// Whether a subject in an inboxes' stream is that of barriers.
pub fn is_barrier(subject: &str) -> bool {
    subject.split('.').count() == 3 && subject.ends_with(BARRIER)
}

/// Lists of the entries that refer to bodies, all of them.
pub const BODY_ENTRIES: &str = "body.*.entries";

/// `body.<partition>`: large bodies of a partition's events. Each is found by its sequence; a subject for each would be
/// more of them than a stream can have.
pub fn body_subject(partition: Partition) -> String {
    format!("body.{partition}")
}

/// `body.<partition>.entries`: the lists of the entries that refer to them.
pub fn body_entries_subject(partition: Partition) -> String {
    format!("body.{partition}.entries")
}

/// `live.<gateway>`: notices and beacons for one gateway process.
pub fn live_subject(gateway: &str) -> String {
    format!("live.{gateway}")
}

/// `direct.<worker>`: what gateways answer one fan-out worker.
pub fn direct_subject(worker: &str) -> String {
    format!("direct.{worker}")
}

/// `close.<gateway>`: requests to close a connection there.
pub fn close_subject(gateway: &str) -> String {
    format!("close.{gateway}")
}

/// `invalidation.user.<user>` or `invalidation.chat.<chat>`.
pub fn invalidation_subject(invalidation: &crate::Invalidation) -> String {
    match invalidation {
        crate::Invalidation::User { user_id } => format!("invalidation.user.{}", escape_user(user_id)),
        crate::Invalidation::Chat { chat_id, .. } => format!("invalidation.chat.{chat_id}"),
    }
}

/// `dead.<partition>.<chat token>`: where an event goes that cannot be processed.
pub fn dead_letter_subject(chat_subject: &str) -> String {
    let rest = chat_subject.strip_prefix("chat.").unwrap_or(chat_subject);
    format!("dead.{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::new(id).expect("a user id")
    }

    #[test]
    fn users_of_real_login_services_are_one_token_and_come_back() {
        for (id, token) in [
            ("alice", "alice"),
            ("auth0|5f7c", "auth0=7C5f7c"),
            ("bob@example.org", "bob=40example=2Eorg"),
            ("a b*>.", "a=20b=2A=3E=2E"),
            ("=7C", "=3D7C"),
        ] {
            assert_eq!(escape_user(&user(id)), token);
            assert_eq!(unescape_user(token), Some(user(id)));
        }
    }

    #[test]
    fn tokens_that_nobody_writes_are_not_read() {
        for token in ["", "=", "=4", "=zz", "=61", "=7c", "a.b", "*"] {
            assert_eq!(unescape_user(token), None, "{token}");
        }
    }

    #[test]
    fn subjects_are_spelled_as_the_design_says() {
        let topology = Topology::default();
        let client: ClientId = "018f4e2a-7c3b-7a10-8000-000000000002".parse().expect("a UUID");
        let subject = inbox_subject(&topology, &user("alice"), Inbox::Client(client));
        let shard = topology.shard(&user("alice"));
        assert_eq!(
            subject,
            format!("inbox.{shard}.alice.018f4e2a-7c3b-7a10-8000-000000000002")
        );
        assert_eq!(lost_subject(&subject), format!("{subject}.lost"));
        assert!(is_mark(&lost_subject(&subject)) && !is_mark(&subject));
        assert!(!is_mark("inbox.07.lost.first"));
        assert_eq!(barrier_subject("INBOX_07"), "inbox.07.barrier");
        assert_eq!(barrier_subject("KV_SESSIONS"), "$KV.SESSIONS.barrier");
        assert!(is_barrier("inbox.07.barrier") && !is_barrier("inbox.07.barrier.first"));
        assert_eq!(inbox_stream(Shard(7)), "INBOX_07");
        assert_eq!(fanout_consumer(Partition(31)), "fanout-31");
        assert_eq!(body_subject(Partition(7)), "body.07");
        assert_eq!(body_entries_subject(Partition(7)), "body.07.entries");
        assert_eq!(
            chat_subject(Partition(3), ChatId(client.0)),
            "chat.03.018f4e2a-7c3b-7a10-8000-000000000002"
        );
    }
}
