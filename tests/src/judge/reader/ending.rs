//! What a client never got, told when everything is known.

use tidings_protocol::ChatId;

use super::{Reader, describe};
use crate::judge::chat_log::{Content, Happened};
use crate::judge::report::{Focus, Report};
use crate::judge::standing::is_for;
use crate::judge::verdict::Kind;

impl Reader<'_> {
    /// What is still missing at the end, and what the holes were.
    pub(super) fn finish(&mut self, report: &mut Report) {
        for (place, hole) in std::mem::take(&mut self.holes) {
            let shown = self.shown.get(&place).map_or(&[][..], |shown| &shown.on);
            let key = self.key(place);
            if shown.is_empty() && key.is_some_and(|key| self.keys.contains(&key)) {
                continue;
            }
            let (kind, what) = match (shown.first(), shown.iter().find(|(_, at)| *at > hole.at)) {
                (None, _) => (Kind::Missing, "it never came".to_owned()),
                (_, Some((on, at))) => (
                    Kind::OrderBroken,
                    format!("it came only at {at} on {}", self.index.connections[*on].id),
                ),
                (Some((on, at)), None) => (
                    Kind::UnconfirmedGone,
                    format!(
                        "it came at {at} on {} and not again",
                        self.index.connections[*on].id
                    ),
                ),
            };
            if kind == Kind::Missing && self.standing.due.is_some() {
                // Told below, once.
                continue;
            }
            let what = format!("{what}, but {}", hole.because);
            self.broken(report, kind, hole.position, place, &what);
        }
        let chats: Vec<ChatId> = self.index.chats.keys().copied().collect();
        for chat_id in chats {
            if self.standing.due.is_some() {
                self.fill(chat_id, u64::MAX);
            }
            self.count_kept(chat_id);
            let Some(due) = self.standing.due else { continue };
            let outstanding = self.outstanding.remove(&chat_id).unwrap_or_default();
            for seq in outstanding {
                let place = (chat_id, seq);
                let seen = self.key(place).is_some_and(|key| self.keys.contains(&key));
                if self.shown.contains_key(&place) || seen {
                    continue;
                }
                let event = &self.index.chats[&chat_id].events[&seq];
                let what = format!(
                    "{}, {} of chat {chat_id} at seq {seq}, never came to {}, which was at rest at {due}",
                    self.said(event),
                    describe(&event.content),
                    self.client.device,
                );
                let mut focus = Focus::of(self.client_id, chat_id, [seq]);
                focus.key = self.key(place);
                report.found(Kind::Missing, event.known, what, focus);
            }
        }
    }

    fn count_kept(&mut self, chat_id: ChatId) {
        let chat = &self.index.chats[&chat_id];
        let Some(from) = self.standing.owed_from(chat) else {
            return;
        };
        let kept = chat.events.range(from..).filter(|(seq, event)| {
            self.shown.contains_key(&(chat_id, **seq))
                && is_for(event, &self.client.user_id, self.client_id) == Some(true)
        });
        self.kept += kept.count() as u64;
    }

    fn said(&self, event: &Happened) -> &'static str {
        let accepted = match &event.content {
            Content::Message { key, .. } => self.index.messages.get(key).is_some_and(|message| {
                message
                    .attempts
                    .iter()
                    .any(|attempt| attempt.answer.success().is_some())
            }),
            Content::Update(_) => event.requested.is_some(),
        };
        if accepted {
            "accepted"
        } else {
            "revealed by others who got it"
        }
    }
}
