//! Events that were told directly, and to whom: each is held until every one of those has confirmed it, or until it is
//! stored for who has not (adr/0021). It is in CHATS meanwhile, so a worker that dies loses nothing.

mod admission;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use parking_lot::Mutex;
use tidings_nats::{Event, Lane, Shard};
use tidings_protocol::{ChatId, ClientId, UserId};
use tidings_service::TraceContext;
use tokio::sync::Notify;

use crate::large_body::LargeBody;

/// Events that are held at once: what a worker tells in a second at its fastest. Beyond, events are stored at once, as
/// they are without direct delivery.
const EVENTS_MAX: usize = 8_192;
/// Bytes of their entries, and of who was told. An event costs about twice its entry.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// What it costs that somebody was told: names and places in three maps.
const TAKER_BYTES: usize = 256;

/// Of one chat: a fifth of what CHATS takes of it before it says that it is busy (`max_msgs_per_subject`), so that who
/// confirms late makes nobody else wait to be accepted.
const EVENTS_OF_CHAT_MAX: usize = 100;

/// An event that is held.
#[derive(Debug)]
pub(crate) struct Hold {
    /// Its sequence in CHATS.
    pub(crate) sequence: u64,
    /// In which order it was told.
    pub(crate) lane: Lane,
    /// What would be stored.
    pub(crate) entry: Bytes,
    /// What it says.
    pub(crate) event: Event,
    /// What goes with its entries, if it is traced.
    pub(crate) trace: Option<TraceContext>,
    /// The body that its entries may refer to, if it is large.
    pub(crate) large: Option<Arc<LargeBody>>,
    /// Something has become of it.
    pub(crate) changed: Notify,
}

/// Who was told of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taker {
    /// Which client.
    pub(crate) client_id: ClientId,
    /// Whose.
    pub(crate) user_id: UserId,
    /// On which connection.
    pub(crate) connection: u64,
    /// Under which grant.
    pub(crate) grant: u32,
}

/// What is to be done about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing: everybody has it.
    Nothing,
    /// To wait.
    Wait,
    /// To store it for these.
    Store(HashMap<ClientId, UserId>),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    state: Mutex<State>,
    /// Told when a client that has moved has everything stored that it was told elsewhere.
    pub(crate) moved: Notify,
    /// Told when an event has left CHATS.
    gone: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: HashMap<u64, Held>,
    chats: HashMap<ChatId, Chat>,
    /// Whose events are finished and still in CHATS.
    finished: HashMap<u64, ChatId>,
    /// What each client was told and has not answered.
    clients: HashMap<ClientId, BTreeSet<u64>>,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    hold: Arc<Hold>,
    /// What it counts for.
    bytes: usize,
    /// Who has not answered, or has refused.
    open: HashMap<ClientId, Open>,
}

impl Held {
    fn refuse_all(&mut self) {
        self.open.values_mut().for_each(|open| open.refused = true);
        self.hold.changed.notify_one();
    }
}

#[derive(Debug)]
struct Open {
    taker: Taker,
    refused: bool,
}

/// A chat with events that are held.
#[derive(Debug, Default)]
struct Chat {
    /// What a successor of this worker would work on again, and since when it is finished.
    events: BTreeMap<u64, Option<Instant>>,
    /// The clients that each of these was told to, stored for, or sent by.
    known: HashSet<ClientId>,
    /// Whoever stores what is held does so in the order of the chat; where one shard does not answer, only its clients
    /// wait.
    storing: HashMap<Shard, Arc<tokio::sync::Mutex<()>>>,
}

impl Holds {
    /// Whether a client may be told of the chat's next event directly, on this connection and under this grant. Not
    /// while something of the chat is to be stored for it, which would come later.
    pub(crate) fn may_follow(
        &self,
        chat_id: ChatId,
        client_id: ClientId,
        connection: u64,
        grant: u32,
    ) -> bool {
        let state = self.state.lock();
        let Some(events) = state.clients.get(&client_id) else {
            return true;
        };
        events.iter().all(|sequence| {
            let held = &state.events[sequence];
            let open = &held.open[&client_id];
            held.hold.event.chat_id() != chat_id
                || (!open.refused && open.taker.connection == connection && open.taker.grant == grant)
        })
    }

    /// Begins to hold an event, of which these clients have heard in whatever way; false if there is no room.
    pub(crate) fn hold(&self, hold: &Arc<Hold>, takers: Vec<Taker>, known: &HashSet<ClientId>) -> bool {
        let mut state = self.state.lock();
        let bytes = hold.entry.len() + takers.len() * TAKER_BYTES;
        let State { chats, events, .. } = &mut *state;
        let of_chat = chats
            .get(&hold.event.chat_id())
            .map_or(0, |chat| chat.events.len());
        if of_chat >= EVENTS_OF_CHAT_MAX
            && let Some(chat) = chats.get(&hold.event.chat_id())
            && let Some(oldest) = chat.events.keys().find(|sequence| events.contains_key(sequence))
            && let Some(held) = events.get_mut(oldest)
        {
            // Whoever is late with that one makes room, and not everybody.
            held.refuse_all();
        }
        if state.events.len() >= EVENTS_MAX
            || state.bytes + bytes > BYTES_MAX
            || of_chat >= EVENTS_OF_CHAT_MAX
            // A stream that has lost its end has the sequence twice.
            || state.events.contains_key(&hold.sequence)
        {
            metrics::counter!("tidings_fanout_direct_full_total").increment(1);
            return false;
        }
        state.bytes += bytes;
        state.finished.remove(&hold.sequence);
        let chat = state.chats.entry(hold.event.chat_id()).or_default();
        if chat.events.is_empty() {
            chat.known.clone_from(known);
        } else {
            chat.known.retain(|client_id| known.contains(client_id));
        }
        chat.events.insert(hold.sequence, None);
        for taker in &takers {
            let events = state.clients.entry(taker.client_id).or_default();
            events.insert(hold.sequence);
        }
        let open = |taker: Taker| {
            let refused = false;
            (taker.client_id, Open { taker, refused })
        };
        let held = Held {
            hold: hold.clone(),
            bytes,
            open: takers.into_iter().map(open).collect(),
        };
        state.events.insert(hold.sequence, held);
        metrics::gauge!("tidings_fanout_direct_held").set(state.events.len() as f64);
        true
    }

    /// Holds it no longer, whatever is open. One that is finished is remembered until it has left CHATS.
    pub(crate) fn release(&self, sequence: u64, finished: bool) {
        let mut state = self.state.lock();
        let Some(held) = state.events.remove(&sequence) else {
            return;
        };
        state.bytes -= held.bytes;
        for client_id in held.open.keys() {
            state.forget(*client_id, sequence);
        }
        if finished {
            if state.finished.len() >= EVENTS_MAX {
                // So many deletions are never under way: of most of these nobody will ever hear.
                for (sequence, chat_id) in std::mem::take(&mut state.finished) {
                    state.leave(chat_id, sequence);
                }
            }
            state.finished.insert(sequence, held.hold.event.chat_id());
            if let Some(chat) = state.chats.get_mut(&held.hold.event.chat_id()) {
                chat.events.insert(sequence, Some(Instant::now()));
            }
        } else {
            state.leave(held.hold.event.chat_id(), sequence);
        }
        metrics::gauge!("tidings_fanout_direct_held").set(state.events.len() as f64);
    }

    /// Of which chat an event is that was held, is finished, and has not left CHATS.
    pub(crate) fn finished(&self, sequence: u64) -> Option<ChatId> {
        self.state.lock().finished.get(&sequence).copied()
    }

    /// It has left CHATS: nobody works on it again.
    pub(crate) fn gone(&self, sequence: u64) {
        let mut state = self.state.lock();
        if let Some(chat_id) = state.finished.remove(&sequence) {
            state.leave(chat_id, sequence);
        }
        drop(state);
        self.gone.notify_waiters();
    }

    /// A client has confirmed it, or it is stored for it.
    pub(crate) fn settle(&self, sequence: u64, client_id: ClientId) {
        let mut state = self.state.lock();
        let Some(held) = state.events.get_mut(&sequence) else {
            return;
        };
        let Some(open) = held.open.remove(&client_id) else {
            return;
        };
        held.hold.changed.notify_one();
        state.forget(client_id, sequence);
        drop(state);
        if open.refused {
            self.moved.notify_one();
        }
    }

    /// A client will not confirm it.
    pub(crate) fn refuse(&self, sequence: u64, client_id: ClientId) {
        let mut state = self.state.lock();
        if let Some(held) = state.events.get_mut(&sequence)
            && let Some(open) = held.open.get_mut(&client_id)
        {
            open.refused = true;
            held.hold.changed.notify_one();
        }
    }

    /// Nobody has any more time.
    pub(crate) fn refuse_all(&self, sequence: u64) {
        if let Some(held) = self.state.lock().events.get_mut(&sequence) {
            held.refuse_all();
        }
    }

    /// A client is on this connection, or on none: what it was told on another one is to be stored. Says whether there
    /// is any such thing.
    pub(crate) fn is_moving(&self, client_id: ClientId, connection: Option<u64>) -> bool {
        let mut state = self.state.lock();
        let State { events, clients, .. } = &mut *state;
        let mut moving = false;
        for sequence in clients.get(&client_id).into_iter().flatten() {
            let held = events.get_mut(sequence).expect("what is open is held");
            let open = held.open.get_mut(&client_id).expect("it is open");
            if Some(open.taker.connection) != connection {
                moving = true;
                if !std::mem::replace(&mut open.refused, true) {
                    held.hold.changed.notify_one();
                }
            }
        }
        moving
    }

    /// Every client that something is open for.
    pub(crate) fn clients(&self) -> HashSet<ClientId> {
        self.state.lock().clients.keys().copied().collect()
    }

    /// What is to be done about an event.
    pub(crate) fn due(&self, sequence: u64) -> Due {
        let state = self.state.lock();
        let Some(held) = state.events.get(&sequence) else {
            return Due::Nothing;
        };
        if held.open.is_empty() {
            return Due::Nothing;
        }
        let refused = held.open.values().filter(|open| open.refused);
        let clients: HashMap<ClientId, UserId> = refused
            .map(|open| (open.taker.client_id, open.taker.user_id.clone()))
            .collect();
        if clients.is_empty() {
            Due::Wait
        } else {
            Due::Store(clients)
        }
    }

    /// Whoever holds this may store what is held of a chat in a shard; None if nothing is held.
    pub(crate) fn storing(&self, chat_id: ChatId, shard: Shard) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut state = self.state.lock();
        let chat = state.chats.get_mut(&chat_id)?;
        Some(chat.storing.entry(shard).or_default().clone())
    }

    /// What is open of a chat up to an event, for these clients, in order.
    pub(crate) fn open(
        &self,
        chat_id: ChatId,
        through: u64,
        clients: &HashSet<ClientId>,
    ) -> Vec<(Arc<Hold>, Vec<Taker>)> {
        let state = self.state.lock();
        let Some(chat) = state.chats.get(&chat_id) else {
            return Vec::new();
        };
        let events = chat.events.range(..=through);
        let events = events.filter_map(|(sequence, _)| state.events.get(sequence));
        let open = events.map(|held| {
            let takers = held.open.values().map(|open| &open.taker);
            let takers = takers.filter(|taker| clients.contains(&taker.client_id));
            (held.hold.clone(), takers.cloned().collect::<Vec<_>>())
        });
        open.filter(|(_, takers)| !takers.is_empty()).collect()
    }
}

impl State {
    fn leave(&mut self, chat_id: ChatId, sequence: u64) {
        if let Some(chat) = self.chats.get_mut(&chat_id) {
            chat.events.remove(&sequence);
            if chat.events.is_empty() {
                self.chats.remove(&chat_id);
            }
        }
    }

    fn forget(&mut self, client_id: ClientId, sequence: u64) {
        if let Some(events) = self.clients.get_mut(&client_id) {
            events.remove(&sequence);
            if events.is_empty() {
                self.clients.remove(&client_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_nats::{Message, Partition};
    use tidings_protocol::{MessageId, Timestamp};
    use uuid::Uuid;

    use super::*;

    pub(super) fn client(number: u128) -> ClientId {
        ClientId(Uuid::from_u128(number))
    }

    pub(super) fn chat(number: u128) -> ChatId {
        ChatId(Uuid::from_u128(number))
    }

    pub(super) fn taker(number: u128, connection: u64, grant: u32) -> Taker {
        Taker {
            client_id: client(number),
            user_id: UserId::new("alice").expect("a user id"),
            connection,
            grant,
        }
    }

    fn event(sequence: u64, of: u128) -> Arc<Hold> {
        Arc::new(Hold {
            sequence,
            lane: Lane {
                partition: Partition(0),
                generation: 1,
            },
            entry: Bytes::from_static(b"entry"),
            event: Event::Message(Message {
                chat_id: chat(of),
                message_id: MessageId(Uuid::nil()),
                user_id: UserId::new("bob").expect("a user id"),
                client_id: client(99),
                sent_at: Timestamp(0),
                message: String::new(),
                attachments: vec![],
            }),
            trace: None,
            large: None,
            changed: Notify::new(),
        })
    }

    pub(super) fn held(holds: &Holds, sequence: u64, of: u128, takers: Vec<Taker>) -> bool {
        let known = takers.iter().map(|taker| taker.client_id).collect();
        holds.hold(&event(sequence, of), takers, &known)
    }

    pub(super) fn to_store(holds: &Holds, sequence: u64) -> Vec<ClientId> {
        let Due::Store(clients) = holds.due(sequence) else {
            panic!("something is to be stored");
        };
        let mut clients: Vec<ClientId> = clients.into_keys().collect();
        clients.sort_unstable();
        clients
    }

    #[test]
    fn an_event_is_held_until_all_have_answered() {
        let holds = Holds::default();
        assert!(held(&holds, 5, 1, vec![taker(1, 10, 1), taker(2, 20, 1)]));
        assert_eq!(holds.due(5), Due::Wait);
        holds.settle(5, client(1));
        holds.settle(5, client(1));
        holds.settle(6, client(1));
        assert_eq!(holds.due(5), Due::Wait);
        holds.refuse(5, client(2));
        assert_eq!(to_store(&holds, 5), [client(2)]);
        holds.settle(5, client(2));
        assert_eq!(holds.due(5), Due::Nothing);
        holds.release(5, true);
        holds.gone(5);
        let state = holds.state.lock();
        assert!(state.events.is_empty() && state.chats.is_empty() && state.clients.is_empty());
        assert!(state.finished.is_empty());
        assert_eq!(state.bytes, 0);
    }

    #[test]
    fn nobody_is_told_directly_before_what_is_to_be_stored() {
        let holds = Holds::default();
        held(&holds, 5, 1, vec![taker(1, 10, 1)]);
        assert!(holds.may_follow(chat(1), client(1), 10, 1));
        assert!(
            !holds.may_follow(chat(1), client(1), 10, 2),
            "under another grant"
        );
        assert!(
            !holds.may_follow(chat(1), client(1), 11, 1),
            "on another connection"
        );
        assert!(holds.may_follow(chat(2), client(1), 11, 1), "in another chat");
        holds.refuse(5, client(1));
        assert!(!holds.may_follow(chat(1), client(1), 10, 1));
        holds.settle(5, client(1));
        assert!(holds.may_follow(chat(1), client(1), 10, 2));
    }

    #[test]
    fn what_was_told_on_a_connection_that_is_gone_is_stored() {
        let holds = Holds::default();
        held(&holds, 5, 1, vec![taker(1, 10, 1), taker(2, 20, 1)]);
        assert!(!holds.is_moving(client(1), Some(10)) && !holds.is_moving(client(3), None));
        assert!(holds.is_moving(client(1), Some(11)));
        assert_eq!(to_store(&holds, 5), [client(1)]);
        assert!(holds.is_moving(client(2), None));
        assert_eq!(to_store(&holds, 5), [client(1), client(2)]);
        holds.settle(5, client(1));
        assert!(!holds.is_moving(client(1), Some(11)));
    }

    #[test]
    fn what_is_open_is_stored_in_order() {
        let holds = Holds::default();
        for sequence in [7, 5, 6] {
            held(&holds, sequence, 1, vec![taker(1, 10, 1), taker(2, 20, 1)]);
        }
        held(&holds, 4, 2, vec![taker(1, 10, 1)]);
        holds.settle(5, client(1));
        let open = |through, number| {
            let open = holds.open(chat(1), through, &HashSet::from_iter([client(number)]));
            open.iter().map(|(hold, _)| hold.sequence).collect::<Vec<_>>()
        };
        assert_eq!(open(6, 1), [6]);
        assert_eq!(open(7, 2), [5, 6, 7]);
        assert_eq!(open(4, 2), [0; 0]);
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let holds = Holds::default();
        let mut sequence = 0;
        for of in 1.. {
            for place in 0..=EVENTS_OF_CHAT_MAX {
                let fits = place < EVENTS_OF_CHAT_MAX && sequence < EVENTS_MAX as u64;
                assert_eq!(held(&holds, sequence, of, vec![taker(1, 10, 1)]), fits);
                sequence += u64::from(fits);
            }
            if sequence == EVENTS_MAX as u64 {
                return;
            }
        }
    }
}
