//! Looks at what was asked for: was it done once, in order, and only if it was not refused.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tidings_protocol::{ChatId, ClientFrame, Operation, RETRY_WINDOW_SECONDS, ServerFrame, UserId};

use super::chat_log::{Content, Update};
use super::index::{Answer, Ask, Index, Key};
use super::reader::describe;
use super::report::{Focus, Report};
use super::verdict::{Figures, Kind};
use super::weather::Weather;
use crate::history::{Moment, What};

/// In which a message is recognised. Ten seconds less than what is promised, since the server counts from when the
/// first attempt arrived.
const WINDOW: Duration = Duration::from_secs(RETRY_WINDOW_SECONDS - 10);

/// Where each message stands, in the order of `seq`.
type Seqs<'a> = HashMap<&'a Key, BTreeSet<u64>>;

impl Index<'_> {
    /// Looks at everything that was asked for.
    pub(super) fn check_sends(&self, weather: &Weather, report: &mut Report, figures: &mut Figures) {
        let mut seqs: Seqs<'_> = HashMap::new();
        for chat in self.chats.values() {
            for (seq, event) in &chat.events {
                if let Content::Message { key, .. } = &event.content {
                    seqs.entry(key).or_default().insert(*seq);
                }
            }
        }
        self.check_once(weather, &seqs, report);
        self.check_changes_once(report);
        self.check_send_order(&seqs, report);
        self.check_phantoms(report);
        for position in &self.second_replies {
            let record = self.record_at(*position);
            report.found(
                Kind::ProtocolBroken,
                record.at,
                format!("{}: a second reply to one request", record.connection),
                Focus::client(record.connection.client_id).with(*position),
            );
        }
        for (key, message) in &self.messages {
            let accepted = message
                .attempts
                .iter()
                .any(|attempt| attempt.answer.success().is_some());
            let refused = message.attempts.iter().all(|attempt| attempt.answer.is_refused());
            figures.accepted += u64::from(accepted);
            figures.revealed += u64::from(!accepted && seqs.contains_key(key));
            figures.unknown += u64::from(!accepted && !refused && !seqs.contains_key(key));
            figures.retries += message.attempts.len() as u64 - 1;
        }
    }

    /// A message stands at one place, however often it was sent inside the retry window.
    fn check_once(&self, weather: &Weather, seqs: &Seqs<'_>, report: &mut Report) {
        for (key, seqs) in seqs.iter().filter(|(_, seqs)| seqs.len() > 1) {
            let Some(message) = self.messages.get(key) else {
                continue;
            };
            let (Some(first), Some(last)) = (message.attempts.first(), message.attempts.last()) else {
                continue;
            };
            if last.at.since(first.at) > WINDOW || weather.may_have_forgotten(first.at, last.at) {
                continue;
            }
            let seqs: Vec<u64> = seqs.iter().copied().collect();
            let mut focus = Focus::of(key.client_id, key.chat_id, seqs.clone()).of_key(**key);
            focus.client_id = None;
            report.found(
                Kind::DoneTwice,
                last.at,
                format!(
                    "{key} of {} in chat {} stands at {seqs:?}",
                    message.user_id, key.chat_id
                ),
                focus,
            );
        }
    }

    /// A `createChat` makes one chat, however often it is asked for.
    fn check_changes_once(&self, report: &mut Report) {
        for change in self.changes.values() {
            let answers: BTreeSet<(ChatId, Option<bool>)> = change
                .attempts
                .iter()
                .filter_map(|attempt| match &attempt.answer {
                    Answer::Success(_, reply) => reply.chat_id.map(|chat_id| (chat_id, reply.created)),
                    _ => None,
                })
                .collect();
            if answers.len() > 1 {
                let at = change
                    .attempts
                    .last()
                    .map_or(Moment::default(), |attempt| attempt.at);
                let what = format!("one createChat of {} was answered {answers:?}", change.by);
                report.found(Kind::DoneTwice, at, what, Focus::default());
            }
        }
    }

    /// What one connection sent to one chat stands there in the order of sending, as far as it was done by these sends.
    fn check_send_order(&self, seqs: &Seqs<'_>, report: &mut Report) {
        for (number, connection) in self.connections.iter().enumerate() {
            let mut last: HashMap<ChatId, (u64, Key)> = HashMap::new();
            for position in &connection.records {
                let What::Sent(frame) = &self.record_at(*position).what else {
                    continue;
                };
                let ClientFrame::SendMessage(send) = &**frame else {
                    continue;
                };
                let key = Key {
                    chat_id: send.chat_id,
                    client_id: connection.id.client_id,
                    message_id: send.message_id,
                };
                let at = self.record_at(*position).at;
                let Some(seq) = self.seq_by(&key, number, at, seqs) else {
                    continue;
                };
                match last.get(&key.chat_id) {
                    Some((before, other)) if *before > seq => {
                        let what = format!(
                            "{}: {key} was sent after {other} and stands before it in chat {}, at {seq} and {before}",
                            connection.id, key.chat_id
                        );
                        let focus = Focus::of(key.client_id, key.chat_id, [seq, *before])
                            .of_key(key)
                            .with(*position);
                        report.found(Kind::OrderBroken, at, what, focus);
                    }
                    _ => {
                        last.insert(key.chat_id, (seq, key));
                    }
                }
            }
        }
    }

    /// The place that a message got by being sent on this connection at this moment, where that is certain.
    fn seq_by(&self, key: &Key, connection: usize, at: Moment, seqs: &Seqs<'_>) -> Option<u64> {
        let attempts = &self.messages.get(key)?.attempts;
        let attempt = attempts
            .iter()
            .find(|attempt| attempt.connection == connection && attempt.at == at)?;
        match &attempt.answer {
            Answer::Success(_, reply) if reply.duplicate != Some(true) => reply.seq,
            Answer::None if attempts.len() == 1 => seqs.get(key)?.first().copied(),
            _ => None,
        }
    }

    /// What readers saw was asked for, with these words, and not refused.
    fn check_phantoms(&self, report: &mut Report) {
        let mut texts_told = BTreeSet::new();
        for (position, record) in self.run.records.iter().enumerate() {
            let What::Received(frame) = &record.what else {
                continue;
            };
            let ServerFrame::NewMessage(message) = &**frame else {
                continue;
            };
            let key = super::chat_log::key_of(message);
            if let Some(sent) = self.messages.get(&key)
                && (sent.text != message.message || sent.user_id != message.user_id)
                && texts_told.insert(key)
            {
                report.found(
                    Kind::Disagreement,
                    record.at,
                    format!(
                        "{} got other words or another sender than {key} was sent with",
                        record.connection
                    ),
                    Focus::of(record.connection.client_id, key.chat_id, [message.seq])
                        .of_key(key)
                        .with(position),
                );
            }
        }
        for (chat_id, chat) in &self.chats {
            let mut before: Option<&Update> = None;
            for (seq, event) in &chat.events {
                let complaint = match &event.content {
                    Content::Message { key, .. } => self.message_complaint(key),
                    Content::Update(update) => {
                        let complaint = self.update_complaint(*chat_id, update);
                        if let Some(reason) = untrue(before, update) {
                            let what = format!(
                                "{} of chat {chat_id} at {seq}: {reason}",
                                describe(&event.content)
                            );
                            let focus = Focus {
                                chat_id: Some(*chat_id),
                                seqs: vec![*seq],
                                ..Focus::default()
                            };
                            report.found(Kind::Disagreement, event.known, what, focus);
                        }
                        before = Some(update);
                        complaint
                    }
                };
                if let Some(reason) = complaint {
                    let focus = Focus {
                        chat_id: Some(*chat_id),
                        seqs: vec![*seq],
                        key: match &event.content {
                            Content::Message { key, .. } => Some(*key),
                            Content::Update(_) => None,
                        },
                        ..Focus::default()
                    };
                    report.found(
                        Kind::Phantom,
                        event.known,
                        format!(
                            "{} of chat {chat_id} at {seq}: {reason}",
                            describe(&event.content)
                        ),
                        focus,
                    );
                }
            }
        }
    }

    fn message_complaint(&self, key: &Key) -> Option<&'static str> {
        match self.messages.get(key) {
            None => Some("nobody sent it"),
            Some(message) => message
                .attempts
                .iter()
                .all(|attempt| attempt.answer.is_refused())
                .then_some("every attempt to send it was refused"),
        }
    }

    fn update_complaint(&self, chat_id: ChatId, update: &Update) -> Option<&'static str> {
        // The first version is the creation, which names no chat until it is answered.
        if update.version == Some(1) {
            return None;
        }
        let asked = |user: &UserId, wanted: Operation| {
            self.changes.values().any(|change| {
                let this = match &change.ask {
                    Ask::Modify {
                        chat_id: of,
                        user_id,
                        operation,
                    } => *of == chat_id && user_id == user && *operation == wanted,
                    Ask::Create { .. } => false,
                };
                this && change.by == update.by
                    && !change.attempts.iter().all(|attempt| attempt.answer.is_refused())
            })
        };
        let added = update.added.iter().all(|user| asked(user, Operation::Add));
        let removed = update.removed.iter().all(|user| asked(user, Operation::Remove));
        (!added || !removed).then_some("nobody asked for it, or it was refused")
    }
}

/// What is wrong with a change, given the one before it.
fn untrue(before: Option<&Update>, update: &Update) -> Option<String> {
    let (before, version) = (before?, update.version?);
    let known = before.version?;
    if version < known {
        return Some(format!("it stands behind version {known}"));
    }
    if version != known + 1 {
        return None;
    }
    let mut expected: BTreeSet<UserId> = before.participants.union(&update.added).cloned().collect();
    expected.retain(|user| !update.removed.contains(user));
    (expected != update.participants).then(|| {
        format!(
            "its participants do not follow from version {known}: {:?} instead of {expected:?}",
            update.participants
        )
    })
}
