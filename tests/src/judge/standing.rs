//! What a client is owed: from when on, until when.

use std::collections::{BTreeMap, HashMap};

use tidings_protocol::{ChatId, ClientId, InboxTrimmed, Registration, Timestamp, UserId};

use super::chat_log::{ChatLog, Content, Happened};
use super::index::{Client, Index};
use crate::history::Moment;

/// A client's standing.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// The first client that its user ever had: it finds what was written to the user before.
    pub(super) first: bool,
    /// From here on it gets what is sent: its first `caughtUp`, or that after its reactivation.
    pub(super) registered: Option<Moment>,
    /// Since when nothing is owed to it any more, because it was or may have been removed.
    pub(super) removed: Moment,
    /// When it was said to be removed.
    pub(super) removal_known: Option<Moment>,
    /// When it was at rest, or should have been and was connected and caught up: whatever is owed must have come by then.
    pub(super) due: Option<Moment>,
}

impl Index<'_> {
    /// Finds out every client's standing.
    pub(super) fn standings(&self) -> BTreeMap<ClientId, Standing> {
        let firsts = self.first_clients();
        self.clients
            .iter()
            .map(|(client_id, client)| {
                let first = firsts.get(&client.user_id) == Some(client_id);
                (*client_id, self.standing(*client_id, client, first))
            })
            .collect()
    }

    /// The first client of each user, where it is beyond doubt: it was welcomed before another one said hello.
    fn first_clients(&self) -> HashMap<UserId, ClientId> {
        let mut of_users: HashMap<&UserId, Vec<(Moment, Moment, ClientId)>> = HashMap::new();
        for (client_id, client) in &self.clients {
            let connections = || client.connections.iter().map(|number| &self.connections[*number]);
            let hello = connections()
                .filter_map(|connection| connection.first_hello)
                .min();
            let welcome = connections()
                .filter_map(|connection| connection.welcome)
                .map(|(at, _)| at)
                .min();
            if let Some(hello) = hello {
                let welcome = welcome.unwrap_or(Moment::NEVER);
                let clients = of_users.entry(&client.user_id).or_default();
                clients.push((hello, welcome, *client_id));
            }
        }
        of_users
            .into_iter()
            .filter_map(|(user_id, mut clients)| {
                clients.sort();
                let (_, welcome, first) = *clients.first()?;
                let alone = clients.get(1).is_none_or(|(hello, ..)| welcome <= *hello);
                alone.then(|| (user_id.clone(), first))
            })
            .collect()
    }

    fn standing(&self, client_id: ClientId, client: &Client, first: bool) -> Standing {
        let connections = || client.connections.iter().map(|number| &self.connections[*number]);
        let reactivated = connections()
            .filter_map(|connection| connection.welcome)
            .filter(|(_, registration)| *registration == Registration::Reactivated)
            .map(|(at, _)| at)
            .max();
        let registered = connections()
            .filter_map(|connection| connection.caught_up)
            .filter(|at| reactivated.is_none_or(|reactivated| *at > reactivated))
            .min();
        let at_rest = connections().filter_map(|connection| connection.at_rest).max();
        let waited = connections()
            .filter(|connection| connection.caught_up.is_some() && connection.closed.is_none())
            .filter_map(|connection| connection.not_at_rest.as_ref())
            .map(|(at, _)| *at)
            .max();
        let due = at_rest.or(waited);
        let (removed, removal_known) = self.removal_of(client_id, due.is_some());
        Standing {
            first: first && reactivated.is_none(),
            registered,
            removed,
            removal_known,
            due: due.filter(|at| *at < removed),
        }
    }

    /// From when on the client may have been removed, and when somebody was told so. One that is there at the end was
    /// not removed by a request of which nobody knows.
    fn removal_of(&self, client_id: ClientId, there_at_the_end: bool) -> (Moment, Option<Moment>) {
        let attempts = || {
            self.removals
                .iter()
                .filter(|removal| removal.target == client_id && !removal.attempt.answer.is_refused())
                .map(|removal| &removal.attempt)
        };
        let known = attempts().filter_map(|attempt| attempt.answer.success()).min();
        let from = attempts().map(|attempt| attempt.at).min();
        match (from, known) {
            (Some(from), Some(known)) => (from, Some(known)),
            (Some(from), None) if !there_at_the_end => (from, None),
            _ => (Moment::NEVER, None),
        }
    }
}

impl Standing {
    /// From which `seq` of a chat on the client is owed what is for its user; absent if nothing is.
    pub(super) fn owed_from(&self, chat: &ChatLog) -> Option<u64> {
        if self.first {
            return Some(0);
        }
        let registered = self.registered?;
        // What was asked for after the client was registered came into the chat after it, and so did all that follows.
        chat.events
            .iter()
            .find(|(_, event)| event.requested.is_some_and(|at| at > registered))
            .map(|(seq, _)| *seq)
    }
}

/// Whether an event is for a client of a user, by the chat's participants alone. Absent where that is not known.
pub(super) fn is_for(event: &Happened, user_id: &UserId, client_id: ClientId) -> Option<bool> {
    if let Content::Message { key, .. } = &event.content
        && key.client_id == client_id
    {
        return Some(false);
    }
    event.audience.as_ref().map(|users| users.contains(user_id))
}

/// How far the clocks of a run's servers may be apart.
const CLOCKS_MS: i64 = 5_000;

/// Whether a client was told that something of a chat, at the time of an event, is gone from its inbox.
pub(super) fn is_trimmed(trims: &[InboxTrimmed], chat_id: ChatId, event: &Happened) -> bool {
    trims.iter().any(|trimmed| {
        let chat = trimmed.chats.is_empty() || trimmed.chats.contains(&chat_id);
        let time = event.sent_at.is_none_or(|Timestamp(at)| {
            (trimmed.since.0 - CLOCKS_MS..=trimmed.until.0 + CLOCKS_MS).contains(&at)
        });
        chat && time
    })
}
