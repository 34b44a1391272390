//! Looks at one delivery: may it come, here, now, and did what had to come before?

use std::ops::Bound;

use tidings_protocol::ChatId;

use super::{CONFIRM_TAKES, Hole, Place, REMOVAL_TAKES, Reader};
use crate::history::Moment;
use crate::judge::chat_log::Content;
use crate::judge::report::Report;
use crate::judge::standing::{is_for, is_trimmed};
use crate::judge::verdict::Kind;

impl Reader<'_> {
    /// Whether the client had confirmed it, and the worker that was told so, or NATS, has failed since: whoever went on
    /// did not know, and the client does.
    fn is_known_from_before(&self, place: Place, at: Moment) -> bool {
        let confirmed = self.shown.get(&place).and_then(|shown| shown.confirmed);
        confirmed.is_some_and(|(_, confirmed_at)| self.weather.may_be_stored_late(confirmed_at, at))
    }

    pub(super) fn delivered(
        &mut self,
        number: usize,
        position: usize,
        delivery: u64,
        place: Place,
        report: &mut Report,
    ) {
        let at = self.index.record_at(position).at;
        self.number(number, position, delivery, Some(place), report);
        let connected = self.connected.entry(number).or_default();
        let twice = !connected.shown.insert(place);
        let last = connected.last.entry(place.0).or_default();
        let before = std::mem::replace(last, place.1.max(*last));
        // What is stored in both inboxes of an heir is a repetition like those on other connections.
        if twice && !self.is_of_both_inboxes(place, at) {
            self.broken(report, Kind::TwiceOnConnection, position, place, "it came before");
        } else if !twice && before > place.1 && !self.is_known_from_before(place, at) {
            let what = format!("it came after seq {before}");
            self.broken(report, Kind::OrderBroken, position, place, &what);
            // The hole that the later one left is told by this.
            self.holes.remove(&place);
        }
        self.stranger(position, place, report);
        self.after_removal(position, place, report);
        self.again(number, position, place, report);
        let shown = self.shown.entry(place).or_default();
        shown.on.push((number, at));
        let unconfirmed = shown.confirmed.is_none();
        let event = self.index.chats[&place.0].events.get(&place.1);
        // What was shown is kept until it is confirmed, whether or not it had to be shown.
        if unconfirmed
            && event.is_some_and(|event| {
                is_for(event, &self.client.user_id, self.client_id) != Some(false)
                    && !is_trimmed(&self.client.trims, place.0, event)
            })
        {
            self.outstanding.entry(place.0).or_default().insert(place.1);
        }
        if self.newest == Some(number) && at < self.standing.removed {
            self.holes_below(number, position, place);
        }
    }

    /// Whether it may be stored both in the inbox that the client inherited and in its own: under way while the client
    /// registered, and worked on twice because of a disturbance. A reader that drops known ids shows it once.
    fn is_of_both_inboxes(&self, place: Place, at: Moment) -> bool {
        let event = self.index.chats[&place.0].events.get(&place.1);
        let (Some(event), true) = (event, self.standing.first) else {
            return false;
        };
        let sent = event.requested.unwrap_or(event.known);
        let registered = self.standing.registered.unwrap_or(Moment::NEVER);
        sent < registered && !self.weather.is_calm(sent, at)
    }

    /// Whether it came to somebody whom it was not for.
    fn stranger(&self, position: usize, place: Place, report: &mut Report) {
        let told = self.told.get(&place.0);
        let out = told
            .and_then(|told| told.range(..place.1).next_back())
            .filter(|(_, is_in)| !**is_in);
        let event = self.index.chats[&place.0].events.get(&place.1);
        let Some(event) = event else { return };
        if matches!(&event.content, Content::Message { key, .. } if key.client_id == self.client_id) {
            return;
        }
        let adds_it =
            matches!(&event.content, Content::Update(update) if update.added.contains(&self.client.user_id));
        if let Some((seq, _)) = out
            && !adds_it
        {
            let what = format!("it was told at seq {seq} that it is out");
            self.broken(report, Kind::AfterRemoved, position, place, &what);
        } else if is_for(event, &self.client.user_id, self.client_id) == Some(false) {
            let what = format!("{} was not in the chat", self.client.user_id);
            self.broken(report, Kind::NotAParticipant, position, place, &what);
        }
    }

    /// Whether it came to a client that was removed long before.
    fn after_removal(&mut self, position: usize, place: Place, report: &mut Report) {
        let Some(removed) = self.standing.removal_known.filter(|_| !self.outlived) else {
            return;
        };
        let enough = removed.plus(REMOVAL_TAKES);
        if self.index.record_at(position).at > enough && self.weather.is_calm(removed, enough) {
            self.outlived = true;
            let what = format!("its client was removed at {removed}");
            self.broken(report, Kind::RemovedReturned, position, place, &what);
        }
    }

    /// Whether it came again although that had been ruled out.
    fn again(&mut self, number: usize, position: usize, place: Place, report: &mut Report) {
        let Some(shown) = self.shown.get_mut(&place) else {
            return;
        };
        let Some((on, confirmed)) = shown.confirmed else {
            return;
        };
        if on == number || shown.again {
            // On one connection it is told as that.
            return;
        }
        let enough = confirmed.plus(CONFIRM_TAKES);
        let closed = self.index.connections[on].closed.unwrap_or(Moment::NEVER);
        let hello = self.index.connections[number].last_hello.unwrap_or_default();
        if closed >= enough && hello >= enough && self.weather.is_calm(confirmed, enough) {
            shown.again = true;
            let what = format!(
                "it was confirmed at {confirmed} on {}, which lived on",
                self.index.connections[on].id
            );
            self.broken(report, Kind::ShownAfterConfirm, position, place, &what);
        }
    }

    /// What should have come before this.
    fn holes_below(&mut self, number: usize, position: usize, place: Place) {
        self.fill(place.0, place.1);
        let at = self.index.record_at(position).at;
        let connected = &self.connected[&number];
        let Some(outstanding) = self.outstanding.get(&place.0) else {
            return;
        };
        for seq in outstanding.range(..place.1) {
            let missing = (place.0, *seq);
            if !connected.shown.contains(&missing) && !self.holes.contains_key(&missing) {
                let because = format!("seq {} came on {}", place.1, self.index.connections[number].id);
                let hole = Hole {
                    position,
                    at,
                    because,
                };
                self.holes.insert(missing, hole);
            }
        }
    }

    /// Puts what is owed of a chat up to a `seq` among what is outstanding.
    pub(super) fn fill(&mut self, chat_id: ChatId, to: u64) {
        let Some(chat) = self.index.chats.get(&chat_id) else {
            return;
        };
        let (from, filled) = self
            .filled
            .entry(chat_id)
            .or_insert_with(|| (self.standing.owed_from(chat), 0));
        let Some(from) = *from else { return };
        if *filled >= to {
            return;
        }
        let outstanding = self.outstanding.entry(chat_id).or_default();
        let new = (Bound::Excluded(*filled), Bound::Included(to));
        for (seq, event) in chat.events.range(new) {
            let owed = *seq >= from
                && is_for(event, &self.client.user_id, self.client_id) == Some(true)
                && !is_trimmed(&self.client.trims, chat_id, event);
            let confirmed = self
                .shown
                .get(&(chat_id, *seq))
                .is_some_and(|shown| shown.confirmed.is_some());
            if owed && !confirmed {
                outstanding.insert(*seq);
            }
        }
        *filled = to;
    }
}
