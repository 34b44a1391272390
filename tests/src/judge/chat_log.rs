//! What is known to have happened in a chat, and for whom each event was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidings_protocol::{ChatUpdate, NewMessage, Operation, ServerFrame, Timestamp, UserId};

use super::index::{Answer, Ask, Index, Key};
use super::report::{Focus, Report};
use super::verdict::Kind;
use crate::history::{Moment, What};

/// Some users.
pub(super) type Users = Arc<BTreeSet<UserId>>;

/// The events of one chat that are known to exist, by `seq`.
#[derive(Clone, Debug, Default)]
pub(super) struct ChatLog {
    pub(super) events: BTreeMap<u64, Happened>,
    /// Versions that are known to exist because a higher one does, and that nobody saw: between which two events, and
    /// who was certainly in the chat at that time.
    pub(super) unseen: Vec<Unseen>,
}

/// A change that nobody saw.
#[derive(Clone, Debug)]
pub(super) struct Unseen {
    pub(super) version: u64,
    pub(super) after: u64,
    pub(super) before: u64,
    pub(super) known: Moment,
    pub(super) certain: BTreeSet<UserId>,
}

/// An event.
#[derive(Clone, Debug)]
pub(super) struct Happened {
    pub(super) content: Content,
    /// When it was first asked for, where that is known.
    pub(super) requested: Option<Moment>,
    /// Since when it is known to exist.
    pub(super) known: Moment,
    /// When by the servers' clocks, where somebody was told.
    pub(super) sent_at: Option<Timestamp>,
    /// For whom it is; absent where that is not known, since a change nearby was not seen.
    pub(super) audience: Option<Users>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Message { key: Key, user_id: UserId },
    Update(Update),
}

/// A change of the participants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Update {
    /// Absent if nobody saw it and only the reply told of it.
    pub(super) version: Option<u64>,
    pub(super) by: UserId,
    pub(super) added: BTreeSet<UserId>,
    pub(super) removed: BTreeSet<UserId>,
    /// After it. Empty until it is inferred, if nobody saw it.
    pub(super) participants: BTreeSet<UserId>,
}

impl Content {
    fn of_message(message: &NewMessage) -> Self {
        Self::Message {
            key: key_of(message),
            user_id: message.user_id.clone(),
        }
    }

    fn of_update(update: &ChatUpdate) -> Self {
        Self::Update(Update {
            version: Some(update.version),
            by: update.by.clone(),
            added: update.added.iter().cloned().collect(),
            removed: update.removed.iter().cloned().collect(),
            participants: update
                .participants
                .iter()
                .map(|participant| participant.user_id.clone())
                .collect(),
        })
    }
}

/// A message's key.
pub(super) const fn key_of(message: &NewMessage) -> Key {
    Key {
        chat_id: message.chat_id,
        client_id: message.client_id,
        message_id: message.message_id,
    }
}

impl Index<'_> {
    /// Collects the events of all chats, from deliveries and from replies.
    pub(super) fn collect_events(&mut self, report: &mut Report) {
        let run = self.run;
        for (position, record) in run.records.iter().enumerate() {
            let What::Received(frame) = &record.what else {
                continue;
            };
            let (chat_id, seq, content, sent_at) = match &**frame {
                ServerFrame::NewMessage(message) => {
                    let content = Content::of_message(message);
                    (message.chat_id, message.seq, content, message.sent_at)
                }
                ServerFrame::ChatUpdate(update) => {
                    (update.chat_id, update.seq, Content::of_update(update), update.at)
                }
                _ => continue,
            };
            let chat = self.chats.entry(chat_id).or_default();
            if let Some(known) = chat.put(seq, &content, record.at, Some(sent_at)) {
                report.found(
                    Kind::Disagreement,
                    record.at,
                    format!(
                        "{} saw something else at seq {seq} of chat {chat_id} than others did ({known})",
                        record.connection
                    ),
                    Focus::of(record.connection.client_id, chat_id, [seq]).with(position),
                );
            }
        }
        self.collect_accepted_messages(report);
        self.collect_accepted_changes();
        for chat in self.chats.values_mut() {
            chat.find_audiences();
        }
    }

    fn collect_accepted_messages(&mut self, report: &mut Report) {
        for (key, message) in &self.messages {
            for attempt in &message.attempts {
                let Answer::Success(at, reply) = &attempt.answer else {
                    continue;
                };
                let Some(seq) = reply.seq else { continue };
                let content = Content::Message {
                    key: *key,
                    user_id: message.user_id.clone(),
                };
                let chat = self.chats.entry(key.chat_id).or_default();
                if let Some(known) = chat.put(seq, &content, *at, None) {
                    report.found(
                        Kind::Disagreement,
                        *at,
                        format!("{key} was answered seq {seq}, where there is something else ({known})"),
                        Focus::of(key.client_id, key.chat_id, [seq]).of_key(*key),
                    );
                }
            }
        }
        for event in self.chats.values_mut().flat_map(|chat| chat.events.values_mut()) {
            if let Content::Message { key, .. } = &event.content
                && let Some(message) = self.messages.get(key)
            {
                event.requested = message.attempts.first().map(|attempt| attempt.at);
            }
        }
    }

    fn collect_accepted_changes(&mut self) {
        for change in self.changes.values() {
            let requested = change.attempts.first().map(|attempt| attempt.at);
            for attempt in &change.attempts {
                let Answer::Success(at, reply) = &attempt.answer else {
                    continue;
                };
                let done = reply.created == Some(true) || reply.changed == Some(true);
                let chat_id = match &change.ask {
                    Ask::Create { .. } => reply.chat_id,
                    Ask::Modify { chat_id, .. } => Some(*chat_id),
                };
                let (true, Some(chat_id), Some(seq)) = (done, chat_id, reply.seq) else {
                    continue;
                };
                let chat = self.chats.entry(chat_id).or_default();
                let event = chat.events.entry(seq).or_insert_with(|| Happened {
                    content: Content::Update(unseen_update(&change.by, &change.ask)),
                    requested: None,
                    sent_at: None,
                    known: *at,
                    audience: None,
                });
                event.requested = requested;
                event.known = event.known.min(*at);
            }
        }
    }
}

/// An update that is known from its reply alone.
fn unseen_update(by: &UserId, ask: &Ask) -> Update {
    let mut update = Update {
        version: None,
        by: by.clone(),
        added: BTreeSet::new(),
        removed: BTreeSet::new(),
        participants: BTreeSet::new(),
    };
    match ask {
        Ask::Create { participants } => {
            update.version = Some(1);
            update.added = participants.iter().cloned().chain([by.clone()]).collect();
            update.participants = update.added.clone();
        }
        Ask::Modify {
            user_id, operation, ..
        } => {
            match operation {
                Operation::Add => update.added.insert(user_id.clone()),
                Operation::Remove => update.removed.insert(user_id.clone()),
            };
        }
    }
    update
}

impl ChatLog {
    /// Notes an event. Says what stands at its place if that is something else.
    fn put(&mut self, seq: u64, content: &Content, at: Moment, sent_at: Option<Timestamp>) -> Option<String> {
        let known = self.events.entry(seq).or_insert_with(|| Happened {
            content: content.clone(),
            requested: None,
            sent_at,
            known: at,
            audience: None,
        });
        known.known = known.known.min(at);
        (known.content != *content).then(|| match &known.content {
            Content::Message { key, .. } => key.to_string(),
            Content::Update(update) => format!("version {:?}", update.version),
        })
    }

    /// Goes through the events in order and says of each for whom it is.
    fn find_audiences(&mut self) {
        let mut now: Option<(u64, Users)> = None;
        let mut last_update = 0;
        // Messages since the last update: should the next one tell of a version in between, nobody knows who was in.
        let mut since: Vec<u64> = Vec::new();
        let mut doubtful: Vec<u64> = Vec::new();
        let seqs: Vec<u64> = self.events.keys().copied().collect();
        for seq in seqs {
            let event = self.events.get_mut(&seq).expect("it is one of its keys");
            let update = match &mut event.content {
                Content::Message { .. } => {
                    event.audience = now.as_ref().map(|(_, users)| Arc::clone(users));
                    since.push(seq);
                    continue;
                }
                Content::Update(update) => update,
            };
            let known = now.as_ref().map(|(version, _)| *version);
            let version = match (update.version, known) {
                (Some(version), _) => version,
                (None, Some(known)) => {
                    let (_, users) = now.as_ref().expect("a version is known");
                    update.participants = users.union(&update.added).cloned().collect();
                    update.participants.retain(|user| !update.removed.contains(user));
                    known + 1
                }
                (None, None) => continue,
            };
            if known.is_some_and(|known| version <= known) {
                // Published twice; who gets the second copy is nobody's promise.
                continue;
            }
            let expected = known.map_or(1, |known| known + 1);
            if version > expected {
                doubtful.append(&mut since);
                if let Some((known, users)) = &now
                    && version == known + 2
                {
                    self.unseen.push(Unseen {
                        version: known + 1,
                        after: last_update,
                        before: seq,
                        known: event.known,
                        certain: users
                            .iter()
                            .filter(|user| {
                                update.participants.contains(*user) && !update.added.contains(*user)
                            })
                            .cloned()
                            .collect(),
                    });
                }
            }
            since.clear();
            last_update = seq;
            event.audience = Some(Arc::new(
                update.participants.union(&update.removed).cloned().collect(),
            ));
            now = Some((version, Arc::new(update.participants.clone())));
        }
        for seq in doubtful {
            self.events.get_mut(&seq).expect("it is one of its keys").audience = None;
        }
    }
}
