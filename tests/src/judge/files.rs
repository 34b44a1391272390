//! Looks at attachments: whoever got a message that names one gets its bytes, and nobody else does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidings_protocol::{AttachmentId, ChatId, ClientId, ServerFrame, UserId};

use super::chat_log::{Content, key_of};
use super::index::{Index, Key, Message, short};
use super::report::{Focus, Report};
use super::standing::Standing;
use super::verdict::{Figures, Kind};
use crate::history::{Fetch, Moment, What};

/// Not there, or not for whoever asks.
const NOT_FOUND: u16 = 404;
/// It was there.
const GONE: u16 = 410;

/// A message that names an attachment.
struct Naming<'a> {
    key: &'a Key,
    message: &'a Message,
    seqs: BTreeSet<u64>,
}

impl Index<'_> {
    /// Looks at everything that was asked for over HTTP.
    pub(super) fn check_files(
        &self,
        standings: &BTreeMap<ClientId, Standing>,
        report: &mut Report,
        figures: &mut Figures,
    ) {
        let namings = self.namings();
        let mut told: HashMap<(ClientId, AttachmentId), (ChatId, u64)> = HashMap::new();
        let mut fetched: HashMap<(ClientId, AttachmentId), &Fetch> = HashMap::new();
        for (position, record) in self.run.records.iter().enumerate() {
            let client_id = record.connection.client_id;
            match &record.what {
                What::Received(frame) => {
                    let ServerFrame::NewMessage(message) = &**frame else {
                        continue;
                    };
                    let ids: Vec<AttachmentId> = message
                        .attachments
                        .iter()
                        .map(|file| file.attachment_id)
                        .collect();
                    for id in &ids {
                        told.insert((client_id, *id), (message.chat_id, message.seq));
                    }
                    if let Some(sent) = self.messages.get(&key_of(message))
                        && sent.attachments != ids
                    {
                        let what = format!(
                            "{} got other attachments than {} names",
                            record.connection,
                            key_of(message)
                        );
                        let focus = Focus::of(client_id, message.chat_id, [message.seq]).with(position);
                        report.found(Kind::Disagreement, record.at, what, focus);
                    }
                }
                What::Fetched {
                    attachment_id,
                    outcome,
                } => {
                    let place = told.get(&(client_id, *attachment_id));
                    let focus = || {
                        let focus = place.map_or_else(
                            || Focus::client(client_id),
                            |(chat_id, seq)| Focus::of(client_id, *chat_id, [*seq]),
                        );
                        focus.with(position)
                    };
                    let named = format!(
                        "attachment {}, for {}",
                        short(attachment_id.0),
                        record.connection.device
                    );
                    match outcome {
                        Fetch::Whole => {
                            figures.fetched += 1;
                            let namings = namings.get(attachment_id).map_or(&[][..], Vec::as_slice);
                            if !self.may_read(namings, &record.connection.user_id) {
                                report.found(Kind::FileShown, record.at, named, focus());
                            }
                        }
                        Fetch::Wrong(_) => {
                            report.found(Kind::FileWrong, record.at, format!("{named}: {outcome}"), focus());
                        }
                        Fetch::Refused(NOT_FOUND | GONE) if place.is_some() => {
                            report.found(
                                Kind::FileMissing,
                                record.at,
                                format!("{named}: {outcome}"),
                                focus(),
                            );
                        }
                        Fetch::Refused(_) | Fetch::GaveUp(_) => {}
                    }
                    let kept = fetched.entry((client_id, *attachment_id)).or_insert(outcome);
                    if *kept != &Fetch::Whole {
                        *kept = outcome;
                    }
                }
                _ => {}
            }
        }
        check_told(self, standings, &told, &fetched, report);
    }

    /// Which messages name which attachments.
    fn namings(&self) -> HashMap<AttachmentId, Vec<Naming<'_>>> {
        let mut seqs: HashMap<&Key, BTreeSet<u64>> = HashMap::new();
        for chat in self.chats.values() {
            for (seq, event) in &chat.events {
                if let Content::Message { key, .. } = &event.content {
                    seqs.entry(key).or_default().insert(*seq);
                }
            }
        }
        let mut namings: HashMap<AttachmentId, Vec<Naming<'_>>> = HashMap::new();
        for (key, message) in &self.messages {
            for attachment_id in &message.attachments {
                namings.entry(*attachment_id).or_default().push(Naming {
                    key,
                    message,
                    seqs: seqs.get(key).cloned().unwrap_or_default(),
                });
            }
        }
        namings
    }

    /// Whether a user may have it: for having sent it, or for having been in a chat when it was named there.
    fn may_read(&self, namings: &[Naming<'_>], user_id: &UserId) -> bool {
        namings
            .iter()
            .any(|naming| naming.message.user_id == *user_id || self.was_in(naming, user_id))
    }

    fn was_in(&self, naming: &Naming<'_>, user_id: &UserId) -> bool {
        let Some(chat) = self.chats.get(&naming.key.chat_id) else {
            return false;
        };
        let events = || naming.seqs.iter().filter_map(|seq| chat.events.get(seq));
        if events().any(|event| {
            event
                .audience
                .as_ref()
                .is_none_or(|users| users.contains(user_id))
        }) {
            return true;
        }
        // The right to read is given just before the message gets its place, at each attempt to send it. A change that was
        // made meanwhile may have come before or after that.
        let attempts = &naming.message.attempts;
        let (Some(first), Some(last)) = (attempts.first(), attempts.last()) else {
            return false;
        };
        let known = events().map(|event| event.known).max();
        let until = match last.answer.success().or(known) {
            Some(answered) => answered.max(last.at),
            // It may have been done at any time since.
            None => Moment::NEVER,
        };
        let mut before: Option<&BTreeSet<UserId>> = None;
        chat.events.values().any(|event| {
            let Content::Update(update) = &event.content else {
                return false;
            };
            let meanwhile = event.known >= first.at && event.requested.unwrap_or_default() <= until;
            let involved =
                update.participants.contains(user_id) || before.is_some_and(|users| users.contains(user_id));
            before = Some(&update.participants);
            meanwhile && involved
        })
    }
}

/// Whoever was told of an attachment and was there to the end has it.
fn check_told(
    index: &Index<'_>,
    standings: &BTreeMap<ClientId, Standing>,
    told: &HashMap<(ClientId, AttachmentId), (ChatId, u64)>,
    fetched: &HashMap<(ClientId, AttachmentId), &Fetch>,
    report: &mut Report,
) {
    for ((client_id, attachment_id), (chat_id, seq)) in told {
        let Some(due) = standings.get(client_id).and_then(|standing| standing.due) else {
            continue;
        };
        let outcome = fetched.get(&(*client_id, *attachment_id));
        let reason = match outcome {
            Some(Fetch::Whole | Fetch::Wrong(_) | Fetch::Refused(NOT_FOUND | GONE)) => continue,
            Some(outcome) => outcome.to_string(),
            None => "nobody asked for it".to_owned(),
        };
        let device = index.device(*client_id);
        let what = format!("attachment {}, for {device}: {reason}", short(attachment_id.0));
        report.found(
            Kind::FileMissing,
            due,
            what,
            Focus::of(*client_id, *chat_id, [*seq]),
        );
    }
}
