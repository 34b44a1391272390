//! Goes through what one client saw, in the order in which it saw it.

mod delivery;
mod ending;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tidings_protocol::{
    ChatId, ChatUpdate, ClientFrame, ClientId, NewMessage, Received, Role, ServerFrame, UserId, You,
};

use super::chat_log::{Content, key_of};
use super::index::{Client, Index, Key, short};
use super::report::{Focus, Report};
use super::standing::Standing;
use super::verdict::{Figures, Kind};
use super::weather::Weather;
use crate::history::{Moment, What};

/// For how long a connection must have lived on after a confirm, with nothing disturbing the system, before the event
/// may not come again. Deleting is done in the background and takes milliseconds.
const CONFIRM_TAKES: Duration = Duration::from_secs(10);

/// After how long a client that was removed must be disconnected, with nothing disturbing the system.
const REMOVAL_TAKES: Duration = Duration::from_secs(10);
/// The largest hole in a connection's numbers after which counting goes on.
const HOLE_MAX: u64 = 10_000;

/// A place in a chat.
type Place = (ChatId, u64);

/// What became of one event at one client.
#[derive(Clone, Debug, Default)]
struct Shown {
    /// On which connections, when.
    on: Vec<(usize, Moment)>,
    /// The last time that it was confirmed, and on which connection.
    confirmed: Option<(usize, Moment)>,
    again: bool,
}

/// One connection, as far as it was gone through.
#[derive(Default)]
struct Connected {
    /// What was delivered, by `delivery` - 1. Absent: something without a place.
    deliveries: Vec<Option<Place>>,
    /// Those that are not confirmed, by `delivery`.
    unconfirmed: BTreeSet<u64>,
    last: HashMap<ChatId, u64>,
    shown: HashSet<Place>,
    caught_up: bool,
}

/// What one client saw.
pub(super) struct Reader<'a> {
    index: &'a Index<'a>,
    weather: &'a Weather,
    client_id: ClientId,
    client: &'a Client,
    standing: &'a Standing,
    connected: HashMap<usize, Connected>,
    /// The newest connection that has said hello.
    newest: Option<usize>,
    shown: HashMap<Place, Shown>,
    keys: HashSet<Key>,
    /// Of each chat: owed, and perhaps never confirmed.
    outstanding: BTreeMap<ChatId, BTreeSet<u64>>,
    /// Of each chat: from where on it is owed, and up to where `outstanding` was filled.
    filled: HashMap<ChatId, (Option<u64>, u64)>,
    /// What a connection did not show where it had to: the first place where this showed.
    holes: BTreeMap<Place, Hole>,
    /// Of each chat: where the client was told that it is in, or out.
    told: HashMap<ChatId, BTreeMap<u64, bool>>,
    /// It was found to live on after its removal.
    outlived: bool,
    kept: u64,
}

struct Hole {
    position: usize,
    at: Moment,
    because: String,
}

impl<'a> Reader<'a> {
    /// A client that nobody has looked at yet.
    pub(super) fn new(
        index: &'a Index<'a>,
        weather: &'a Weather,
        client_id: ClientId,
        standing: &'a Standing,
    ) -> Self {
        Self {
            index,
            weather,
            client_id,
            client: &index.clients[&client_id],
            standing,
            connected: HashMap::new(),
            newest: None,
            shown: HashMap::new(),
            keys: HashSet::new(),
            outstanding: BTreeMap::new(),
            filled: HashMap::new(),
            holes: BTreeMap::new(),
            told: HashMap::new(),
            outlived: false,
            kept: 0,
        }
    }

    /// Goes through everything.
    pub(super) fn read(&mut self, report: &mut Report, figures: &mut Figures) {
        let mut positions: Vec<(usize, usize)> = self
            .client
            .connections
            .iter()
            .flat_map(|number| {
                let records = &self.index.connections[*number].records;
                records.iter().map(|position| (*position, *number))
            })
            .collect();
        positions.sort_unstable();
        for (position, number) in positions {
            let record = self.index.record_at(position);
            match &record.what {
                What::Sent(frame) => match &**frame {
                    ClientFrame::Hello(_) => self.newest = Some(number),
                    ClientFrame::Received(received) => self.confirm(number, record.at, received),
                    _ => {}
                },
                What::Received(frame) => self.frame(number, position, frame, report, figures),
                What::Unknown {
                    delivery: Some(delivery),
                } => self.number(number, position, *delivery, None, report),
                _ => {}
            }
        }
        self.finish(report);
        figures.kept += self.kept;
    }

    /// Whether the client was shown an event, and whether it confirmed it ever.
    pub(super) fn fate(&self, chat_id: ChatId, seq: u64) -> (bool, bool) {
        self.shown
            .get(&(chat_id, seq))
            .map_or((false, false), |shown| (true, shown.confirmed.is_some()))
    }

    fn frame(
        &mut self,
        number: usize,
        position: usize,
        frame: &ServerFrame,
        report: &mut Report,
        figures: &mut Figures,
    ) {
        match frame {
            ServerFrame::NewMessage(message) => {
                self.message(number, position, message, report);
                figures.deliveries += 1;
                let place = (message.chat_id, message.seq);
                figures.redelivered += u64::from(self.shown[&place].on.len() > 1);
            }
            ServerFrame::ChatUpdate(update) => {
                self.update(number, position, update, report);
                figures.deliveries += 1;
                let place = (update.chat_id, update.seq);
                figures.redelivered += u64::from(self.shown[&place].on.len() > 1);
            }
            ServerFrame::InboxTrimmed(trimmed) => {
                self.number(number, position, trimmed.delivery, None, report);
            }
            ServerFrame::CaughtUp(_) => self.caught_up(number, position, report),
            _ => {}
        }
    }

    fn message(&mut self, number: usize, position: usize, message: &NewMessage, report: &mut Report) {
        let place = (message.chat_id, message.seq);
        let key = key_of(message);
        if message.client_id == self.client_id {
            self.broken(report, Kind::OwnCopy, position, place, &key.to_string());
        }
        self.delivered(number, position, message.delivery, place, report);
        self.keys.insert(key);
    }

    fn update(&mut self, number: usize, position: usize, update: &ChatUpdate, report: &mut Report) {
        let place = (update.chat_id, update.seq);
        let user_id = &self.client.user_id;
        let role = update
            .participants
            .iter()
            .find(|participant| participant.user_id == *user_id)
            .map(|participant| participant.role);
        let truth = match (role, update.added.contains(user_id)) {
            (None, _) => You::Removed,
            (Some(_), true) => You::Added,
            (Some(Role::Admin), false) => You::Admin,
            (Some(Role::Member), false) => You::Member,
        };
        if update.you != truth {
            let what = format!("you is {:?} where the participants say {truth:?}", update.you);
            self.broken(report, Kind::Disagreement, position, place, &what);
        }
        self.delivered(number, position, update.delivery, place, report);
        let told = self.told.entry(update.chat_id).or_default();
        told.insert(update.seq, update.you != You::Removed);
    }

    /// The delivery's number.
    fn number(
        &mut self,
        number: usize,
        position: usize,
        delivery: u64,
        place: Option<Place>,
        report: &mut Report,
    ) {
        let connected = self.connected.entry(number).or_default();
        let expected = connected.deliveries.len() as u64 + 1;
        // One hole in the numbers is one violation: what follows is counted from there.
        if (expected..expected + HOLE_MAX).contains(&delivery) {
            connected.deliveries.resize(delivery as usize - 1, None);
            connected.deliveries.push(place);
            connected.unconfirmed.insert(delivery);
        }
        if delivery == expected {
            return;
        }
        let record = self.index.record_at(position);
        report.found(
            Kind::ProtocolBroken,
            record.at,
            format!(
                "{}: delivery {delivery} where {expected} is next",
                record.connection
            ),
            Focus::client(self.client_id).with(position),
        );
    }

    fn confirm(&mut self, number: usize, at: Moment, received: &Received) {
        let connected = self.connected.entry(number).or_default();
        let confirmed: Vec<u64> = match (received.delivery, received.through) {
            (Some(delivery), _) => connected.unconfirmed.take(&delivery).into_iter().collect(),
            (None, Some(through)) => {
                let rest = connected.unconfirmed.split_off(&(through + 1));
                std::mem::replace(&mut connected.unconfirmed, rest)
                    .into_iter()
                    .collect()
            }
            (None, None) => return,
        };
        for delivery in confirmed {
            let Some(place) = connected.deliveries[delivery as usize - 1] else {
                continue;
            };
            if let Some(outstanding) = self.outstanding.get_mut(&place.0) {
                outstanding.remove(&place.1);
            }
            let shown = self.shown.get_mut(&place).expect("it was delivered");
            shown.confirmed = Some((number, at));
        }
    }

    /// Everything that was stored before has come: what an earlier connection showed and nobody confirmed. Where servers
    /// failed meanwhile it may be stored only now.
    fn caught_up(&mut self, number: usize, position: usize, report: &mut Report) {
        let at = self.index.record_at(position).at;
        let hello = self.index.connections[number].last_hello.unwrap_or_default();
        let connected = self.connected.entry(number).or_default();
        if std::mem::replace(&mut connected.caught_up, true) {
            report.found(
                Kind::ProtocolBroken,
                at,
                format!("{}: a second caughtUp", self.index.connections[number].id),
                Focus::client(self.client_id).with(position),
            );
        }
        if self.newest != Some(number) || at >= self.standing.removed {
            return;
        }
        for (chat_id, outstanding) in &self.outstanding {
            for seq in outstanding {
                let place = (*chat_id, *seq);
                let on = self.shown.get(&place).map_or(&[][..], |shown| &shown.on);
                let last = on
                    .iter()
                    .map(|(_, shown_at)| *shown_at)
                    .filter(|shown_at| *shown_at < hello)
                    .max();
                let before = last.is_some_and(|shown_at| !self.weather.may_be_stored_late(shown_at, at));
                if before && !connected.shown.contains(&place) && !self.holes.contains_key(&place) {
                    let because = format!("caughtUp came on {}", self.index.connections[number].id);
                    let hole = Hole {
                        position,
                        at,
                        because,
                    };
                    self.holes.insert(place, hole);
                }
            }
        }
    }

    fn key(&self, place: Place) -> Option<Key> {
        match &self.index.chats.get(&place.0)?.events.get(&place.1)?.content {
            Content::Message { key, .. } => Some(*key),
            Content::Update(_) => None,
        }
    }

    fn broken(&self, report: &mut Report, kind: Kind, position: usize, place: Place, what: &str) {
        let record = self.index.record_at(position);
        let mut focus = Focus::of(self.client_id, place.0, [place.1]).with(position);
        focus.key = self.key(place);
        let content = self.index.chats[&place.0]
            .events
            .get(&place.1)
            .map_or_else(String::new, |event| format!("{}, ", describe(&event.content)));
        report.found(
            kind,
            record.at,
            format!(
                "{}: {content}seq {} of chat {}: {what}",
                record.connection, place.1, place.0
            ),
            focus,
        );
    }
}

/// An event in a few words.
pub(super) fn describe(content: &Content) -> String {
    match content {
        Content::Message { key, user_id } => {
            format!("{key} of {user_id} ({})", short(key.client_id.0))
        }
        Content::Update(update) => {
            let version = update
                .version
                .map_or_else(|| "a change".to_owned(), |version| format!("version {version}"));
            let list = |sign: &str, users: &BTreeSet<UserId>| {
                users
                    .iter()
                    .take(3)
                    .fold(String::new(), |list, user| format!("{list} {sign}{user}"))
            };
            format!(
                "{version}{}{} by {}",
                list("+", &update.added),
                list("-", &update.removed),
                update.by
            )
        }
    }
}
