//! What was found, before it is told.

use std::collections::{BTreeMap, BTreeSet};

use tidings_protocol::{ChatId, ClientId};

use super::index::{Index, Key};
use super::verdict::{Kind, Verdict, Violation};
use super::weather::Weather;
use crate::history::Moment;

/// What a story is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Focus {
    pub(super) client_id: Option<ClientId>,
    pub(super) chat_id: Option<ChatId>,
    /// Events of the chat, the one that it is about first.
    pub(super) seqs: Vec<u64>,
    pub(super) key: Option<Key>,
    /// Records that belong into the story, as positions in the run.
    pub(super) records: BTreeSet<usize>,
}

impl Focus {
    /// A client and some events of a chat.
    pub(super) fn of(client_id: ClientId, chat_id: ChatId, seqs: impl IntoIterator<Item = u64>) -> Self {
        Self {
            client_id: Some(client_id),
            chat_id: Some(chat_id),
            seqs: seqs.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A client.
    pub(super) fn client(client_id: ClientId) -> Self {
        Self {
            client_id: Some(client_id),
            ..Self::default()
        }
    }

    /// And a message.
    pub(super) fn of_key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// And a record.
    pub(super) fn with(mut self, position: usize) -> Self {
        self.records.insert(position);
        self
    }
}

struct Found {
    kind: Kind,
    at: Moment,
    what: String,
    focus: Focus,
}

/// What was found.
#[derive(Default)]
pub(super) struct Report {
    found: Vec<Found>,
}

impl Report {
    /// Notes a violation.
    pub(super) fn found(&mut self, kind: Kind, at: Moment, what: String, focus: Focus) {
        self.found.push(Found {
            kind,
            at,
            what,
            focus,
        });
    }

    /// Tells the stories.
    pub(super) fn tell(mut self, index: &Index<'_>, weather: &Weather) -> Verdict {
        self.found
            .sort_by(|a, b| (a.at, a.kind, &a.what).cmp(&(b.at, b.kind, &b.what)));
        let mut counts = BTreeMap::new();
        let mut violations = Vec::new();
        for found in self.found {
            let count: &mut u64 = counts.entry(found.kind).or_default();
            *count += 1;
            if *count > Verdict::TOLD_MAX as u64 {
                continue;
            }
            violations.push(Violation {
                kind: found.kind,
                at: found.at,
                story: index.story(weather, found.at, &found.focus),
                what: found.what,
            });
        }
        Verdict {
            violations,
            counts,
            ..Verdict::default()
        }
    }
}
