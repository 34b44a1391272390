//! A tiny system that keeps every promise, and breaks one when it is asked to.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tidings_protocol::{ErrorCode, Operation, Received, Registration, Reply, ServerFrame};

use super::forge::{Asked, Forge};
use crate::history::{Run, What};
use crate::judge::Kind;

const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
const CHATS: u64 = 3;

/// An event.
#[derive(Clone, Debug)]
struct Entry {
    seq: u64,
    chat: u64,
    what: Happened,
}

#[derive(Clone, Debug)]
enum Happened {
    Message {
        from: String,
        number: u64,
    },
    Update {
        version: u64,
        change: Vec<String>,
        participants: Vec<String>,
    },
}

/// An entry in an inbox.
#[derive(Clone, Debug)]
struct Kept {
    entry: Entry,
    shown: bool,
    confirm_sent: bool,
}

#[derive(Clone, Debug, Default)]
struct Device {
    online: bool,
    /// It has been caught up once. Before, what is sent may come or not.
    registered: bool,
    removed: bool,
    /// It must be there at the end.
    protected: bool,
    inbox: Vec<Kept>,
    /// Of the inbox, what was delivered on this connection: (delivery, seq).
    outstanding: Vec<(u64, u64)>,
    told_out: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default)]
struct Chat {
    version: u64,
    participants: Vec<String>,
    ever: BTreeSet<String>,
}

/// A message whose sender does not know what became of it.
#[derive(Clone, Debug)]
struct Unknown {
    device: String,
    chat: u64,
    number: u64,
    seq: Option<u64>,
}

/// The system.
pub(super) struct Model {
    forge: Forge,
    rng: StdRng,
    seq: u64,
    numbers: u64,
    chats: BTreeMap<u64, Chat>,
    devices: BTreeMap<String, Device>,
    /// What waits for the first client of a user.
    first: BTreeMap<String, Vec<Entry>>,
    unknown: Vec<Unknown>,
    sabotage: Option<Kind>,
    countdown: u32,
}

fn user_of(device: &str) -> String {
    device.split('.').next().expect("split gives one").to_owned()
}

impl Model {
    /// The history of a seed. With a kind it is broken once; absent if no occasion came.
    pub(super) fn run(seed: u64, steps: u32, sabotage: Option<Kind>) -> Option<Run> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut model = Self {
            forge: Forge::default(),
            seq: 0,
            numbers: 0,
            chats: BTreeMap::new(),
            devices: BTreeMap::new(),
            first: BTreeMap::new(),
            unknown: Vec::new(),
            countdown: rng.random_range(0..4),
            sabotage,
            rng,
        };
        for user in &USERS[..3] {
            model.new_device(user);
        }
        for number in 1..=CHATS {
            model.create(number);
        }
        for _ in 0..steps {
            model.step();
        }
        model.end();
        model.sabotage.is_none().then_some(model.forge.run)
    }

    /// Whether this is the occasion to break this promise.
    fn breaks(&mut self, kind: Kind) -> bool {
        if self.sabotage != Some(kind) {
            return false;
        }
        if self.countdown > 0 {
            self.countdown -= 1;
            return false;
        }
        self.sabotage = None;
        true
    }

    fn step(&mut self) {
        let pause = self.rng.random_range(0..500);
        self.forge.later(pause);
        match self.rng.random_range(0..20) {
            0..6 => self.send(),
            6 | 7 => self.change(),
            8 => self.retry(),
            9 | 10 => self.toggle(),
            11..16 => self.read_some(),
            16..18 => self.confirm(),
            18 => {
                let user = *USERS.choose(&mut self.rng).expect("there are four");
                self.new_device(user);
            }
            _ => self.remove(),
        }
    }

    fn online(&mut self) -> Option<String> {
        let online: Vec<&String> = self
            .devices
            .iter()
            .filter(|(_, device)| device.online && device.registered)
            .map(|(name, _)| name)
            .collect();
        online.choose(&mut self.rng).map(|name| (*name).clone())
    }

    /// A chat that the device's user is in.
    fn chat_of(&mut self, device: &str) -> Option<u64> {
        let user = user_of(device);
        let chats: Vec<u64> = self
            .chats
            .iter()
            .filter(|(_, chat)| chat.participants.contains(&user))
            .map(|(number, _)| *number)
            .collect();
        chats.choose(&mut self.rng).copied()
    }

    fn create(&mut self, number: u64) {
        let others = if number == 1 {
            vec!["bob", "dave"]
        } else {
            vec!["bob", "carol", "dave"]
        };
        self.seq += 1;
        self.forge.create("alice.0", number, &others, self.seq);
        let participants: Vec<String> = ["alice"].into_iter().chain(others).map(str::to_owned).collect();
        let chat = Chat {
            version: 1,
            ever: participants.iter().cloned().collect(),
            participants: participants.clone(),
        };
        self.chats.insert(number, chat);
        let change = participants.iter().map(|name| format!("+{name}")).collect();
        let entry = Entry {
            seq: self.seq,
            chat: number,
            what: Happened::Update {
                version: 1,
                change,
                participants: participants.clone(),
            },
        };
        self.store(&entry, &participants);
    }

    /// Into the inboxes of these users.
    fn store(&mut self, entry: &Entry, users: &[String]) {
        let sender = match &entry.what {
            Happened::Message { from, .. } => Some(from.clone()),
            Happened::Update { .. } => None,
        };
        let names: Vec<String> = self.devices.keys().cloned().collect();
        for user in users {
            if !names.iter().any(|name| user_of(name) == *user) {
                self.first.entry(user.clone()).or_default().push(entry.clone());
            }
        }
        for name in names {
            let user = user_of(&name);
            let known = &self.devices[&name];
            let (registered, removed) = (known.registered, known.removed);
            let told_out = known.told_out.contains(&entry.chat);
            let is_in = users.contains(&user);
            let own = sender.as_ref() == Some(&name);
            let gets = if removed {
                false
            } else if own {
                self.breaks(Kind::OwnCopy)
            } else if !is_in && sender.is_some() && told_out {
                self.breaks(Kind::AfterRemoved)
            } else if !is_in && sender.is_some() && !self.chats[&entry.chat].ever.contains(&user) {
                self.breaks(Kind::NotAParticipant)
            } else if is_in && registered && self.breaks(Kind::Missing) {
                self.devices.get_mut(&name).expect("it is one of them").protected = true;
                false
            } else {
                is_in && (registered || self.rng.random_bool(0.5))
            };
            if gets {
                let device = self.devices.get_mut(&name).expect("it is one of them");
                device.inbox.push(Kept {
                    entry: entry.clone(),
                    shown: false,
                    confirm_sent: false,
                });
                // Whoever is told what is not theirs must be there to hear it.
                device.protected |= !is_in || own;
            }
        }
    }

    fn accept(&mut self, chat: u64, from: &str, number: u64) -> u64 {
        self.seq += self.rng.random_range(1..3);
        let entry = Entry {
            seq: self.seq,
            chat,
            what: Happened::Message {
                from: from.to_owned(),
                number,
            },
        };
        let users = self.chats[&chat].participants.clone();
        self.store(&entry, &users);
        self.seq
    }

    fn send(&mut self) {
        let Some(device) = self.online() else { return };
        let Some(chat) = self.chat_of(&device) else { return };
        self.numbers += 1;
        let number = self.numbers;
        if self.breaks(Kind::Phantom) {
            self.accept(chat, &device, number);
            return;
        }
        let asked = self.forge.send(&device, chat, number);
        match self.rng.random_range(0..10) {
            0 => self.forge.refuse(&asked, ErrorCode::ChatBusy),
            outcome @ 1..4 => {
                let done = self.rng.random_bool(0.5);
                let seq = done.then(|| self.accept(chat, &device, number));
                if outcome == 1 {
                    self.disconnect(&device);
                } else {
                    self.forge.refuse(&asked, ErrorCode::Unavailable);
                }
                self.unknown.push(Unknown {
                    device,
                    chat,
                    number,
                    seq,
                });
            }
            _ => {
                let seq = self.accept(chat, &device, number);
                self.forge.accept(&asked, seq, false);
            }
        }
    }

    /// Somebody asks again.
    fn retry(&mut self) {
        let may: Vec<usize> = (0..self.unknown.len())
            .filter(|index| self.devices[&self.unknown[*index].device].online)
            .collect();
        let Some(index) = may.choose(&mut self.rng).copied() else {
            return;
        };
        let unknown = self.unknown.remove(index);
        let user = user_of(&unknown.device);
        let asked = self.forge.send(&unknown.device, unknown.chat, unknown.number);
        match unknown.seq {
            Some(_) if self.breaks(Kind::DoneTwice) => {
                let seq = self.accept(unknown.chat, &unknown.device, unknown.number);
                self.forge.accept(&asked, seq, false);
            }
            Some(seq) => self.forge.accept(&asked, seq, true),
            None if self.chats[&unknown.chat].participants.contains(&user) => {
                let seq = self.accept(unknown.chat, &unknown.device, unknown.number);
                self.forge.accept(&asked, seq, false);
            }
            None => self.forge.refuse(&asked, ErrorCode::NotAParticipant),
        }
    }

    /// alice, who is everybody's admin, adds or removes somebody.
    fn change(&mut self) {
        let number = self.rng.random_range(1..=CHATS);
        let user = USERS[self.rng.random_range(1..4)].to_owned();
        let Some(device) = self.alice() else { return };
        let chat = self.chats.get_mut(&number).expect("all were made");
        let is_in = chat.participants.contains(&user);
        // Chat 1 is never carol's, so that there is a stranger.
        if number == 1 && user == "carol" {
            return;
        }
        let mut users = chat.participants.clone();
        let (sign, operation) = if is_in {
            chat.participants.retain(|name| *name != user);
            ('-', Operation::Remove)
        } else {
            chat.participants.push(user.clone());
            chat.ever.insert(user.clone());
            users.push(user.clone());
            ('+', Operation::Add)
        };
        chat.version += 1;
        let (version, participants) = (chat.version, chat.participants.clone());
        self.seq += 1;
        let entry = Entry {
            seq: self.seq,
            chat: number,
            what: Happened::Update {
                version,
                change: vec![format!("{sign}{user}")],
                participants,
            },
        };
        let asked: Asked = self.forge.modify(&device, number, &user, operation);
        self.store(&entry, &users);
        if self.rng.random_bool(0.8) {
            self.forge.changed(&asked, entry.seq);
        } else {
            self.forge.refuse(&asked, ErrorCode::Unavailable);
        }
    }

    fn alice(&self) -> Option<String> {
        let mut devices = self.devices.iter();
        devices
            .find(|(name, device)| name.starts_with("alice") && device.online && device.registered)
            .map(|(name, _)| name.clone())
    }

    fn read_some(&mut self) {
        let Some(device) = self.online() else { return };
        let entries = self.rng.random_range(1..6);
        self.read(&device, entries);
    }

    /// Delivers up to so many entries that this connection has not shown.
    fn read(&mut self, name: &str, entries: usize) {
        for _ in 0..entries {
            let device = &self.devices[name];
            let shown: BTreeSet<u64> = device.outstanding.iter().map(|(_, seq)| *seq).collect();
            let waiting: Vec<&Kept> = device
                .inbox
                .iter()
                .filter(|kept| !shown.contains(&kept.entry.seq))
                .collect();
            let Some(next) = waiting.first().map(|kept| kept.entry.clone()) else {
                return;
            };
            let after = waiting.get(1).map(|kept| kept.entry.clone());
            if let Some(after) = after.filter(|after| after.chat == next.chat)
                && self.breaks(Kind::OrderBroken)
            {
                self.show(name, &after);
            }
            self.show(name, &next);
            if self.breaks(Kind::TwiceOnConnection) {
                self.show(name, &next);
            }
        }
    }

    fn show(&mut self, name: &str, entry: &Entry) {
        if self.breaks(Kind::ProtocolBroken) {
            self.forge.next_delivery(name);
        }
        match &entry.what {
            Happened::Message { from, number } => {
                self.forge.deliver(name, entry.chat, entry.seq, from, *number);
                if self.breaks(Kind::Disagreement) {
                    self.forge_words();
                }
            }
            Happened::Update {
                version,
                change,
                participants,
            } => {
                let change: Vec<&str> = change.iter().map(String::as_str).collect();
                let participants: Vec<&str> = participants.iter().map(String::as_str).collect();
                let version = (entry.seq, *version);
                self.forge
                    .update(name, entry.chat, version, "alice", &change, &participants);
            }
        }
        let delivery = self.forge.last_delivery(name);
        let user = user_of(name);
        let device = self.devices.get_mut(name).expect("it is connected");
        device.outstanding.push((delivery, entry.seq));
        if let Happened::Update { participants, .. } = &entry.what {
            if participants.contains(&user) {
                device.told_out.remove(&entry.chat);
            } else {
                device.told_out.insert(entry.chat);
            }
        }
        for kept in &mut device.inbox {
            kept.shown |= kept.entry.seq == entry.seq;
        }
    }

    fn forge_words(&mut self) {
        let last = self.forge.run.records.last_mut().expect("it was just written");
        if let What::Received(frame) = &mut last.what
            && let ServerFrame::NewMessage(message) = &mut **frame
        {
            message.message.push_str(", forged");
        }
    }

    fn confirm(&mut self) {
        let Some(name) = self.online() else { return };
        let device = self.devices.get_mut(&name).expect("it is online");
        let one = self.rng.random_bool(0.3);
        let lost = self.rng.random_bool(0.2);
        let Some((last, _)) = device.outstanding.choose(&mut self.rng).copied() else {
            return;
        };
        let covered: Vec<u64> = device
            .outstanding
            .iter()
            .filter(|(delivery, _)| if one { *delivery == last } else { *delivery <= last })
            .map(|(_, seq)| *seq)
            .collect();
        let kept: Vec<Entry> = device
            .inbox
            .iter()
            .filter(|kept| covered.contains(&kept.entry.seq))
            .map(|kept| kept.entry.clone())
            .collect();
        let received = Received {
            delivery: one.then_some(last),
            through: (!one).then_some(last),
        };
        self.forge.sent(&name, received);
        if lost {
            for kept in &mut device.inbox {
                kept.confirm_sent |= covered.contains(&kept.entry.seq);
            }
            self.disconnect(&name);
            return;
        }
        device.inbox.retain(|kept| !covered.contains(&kept.entry.seq));
        if let Some(again) = kept.first()
            && self.breaks(Kind::ShownAfterConfirm)
        {
            self.forge.later(11_000);
            self.disconnect(&name);
            let device = self.devices.get_mut(&name).expect("it was online");
            device.inbox.insert(
                0,
                Kept {
                    entry: again.clone(),
                    shown: true,
                    confirm_sent: true,
                },
            );
            self.come_back(&name);
        }
    }

    fn disconnect(&mut self, name: &str) {
        self.forge.close(name);
        let device = self.devices.get_mut(name).expect("it was online");
        device.online = false;
        device.outstanding.clear();
    }

    fn come_back(&mut self, name: &str) {
        self.forge.back(name);
        let gone = {
            let inbox = &self.devices[name].inbox;
            inbox.iter().position(|kept| kept.shown && !kept.confirm_sent)
        };
        if let Some(index) = gone
            && self.breaks(Kind::UnconfirmedGone)
        {
            self.devices
                .get_mut(name)
                .expect("it is known")
                .inbox
                .remove(index);
        }
        self.devices.get_mut(name).expect("it is known").online = true;
        self.read(name, usize::MAX);
        self.forge.caught_up(name);
        self.devices.get_mut(name).expect("it is known").registered = true;
    }

    /// Somebody goes, or comes back.
    fn toggle(&mut self) {
        let known: Vec<String> = self
            .devices
            .iter()
            .filter(|(_, device)| !device.removed)
            .map(|(name, _)| name.clone())
            .collect();
        let Some(name) = known.choose(&mut self.rng) else {
            return;
        };
        if self.devices[name].online {
            self.disconnect(name);
        } else {
            self.come_back(name);
        }
    }

    fn new_device(&mut self, user: &str) {
        let of_user = |(name, _): &(&String, &Device)| user_of(name) == *user;
        let number = self.devices.iter().filter(of_user).count();
        let active = self
            .devices
            .iter()
            .filter(of_user)
            .filter(|(_, device)| !device.removed)
            .count();
        if active >= 3 {
            return;
        }
        let name = format!("{user}.{number}");
        self.forge.hello(&name, None);
        self.forge.welcome(&name, Registration::New);
        let mut device = Device {
            online: true,
            // The first one's inbox is complete from the beginning.
            registered: number == 0,
            ..Device::default()
        };
        if number == 0 {
            let waiting = self.first.remove(user).unwrap_or_default();
            device.inbox.extend(waiting.into_iter().map(|entry| Kept {
                entry,
                shown: false,
                confirm_sent: false,
            }));
        }
        self.devices.insert(name.clone(), device);
        // Others go on meanwhile.
        for _ in 0..self.rng.random_range(0..3) {
            self.send();
        }
        if self.devices[&name].online {
            self.read(&name, usize::MAX);
            self.forge.caught_up(&name);
            self.devices.get_mut(&name).expect("it was just made").registered = true;
        }
    }

    /// A device removes another one of its user.
    fn remove(&mut self) {
        let Some(name) = self.online() else { return };
        let other = self.devices.iter().find(|(other, device)| {
            **other != name && user_of(other) == user_of(&name) && !device.removed && !device.protected
        });
        let Some(other) = other.map(|(other, _)| other.clone()) else {
            return;
        };
        let asked = self.forge.remove(&name, &other);
        if self.devices[&other].online {
            self.disconnect(&other);
        }
        let device = self.devices.get_mut(&other).expect("it was found");
        device.removed = true;
        device.inbox.clear();
        self.forge.answer(&asked, Reply::success(asked.id));
        self.unknown.retain(|unknown| unknown.device != other);
        if self.breaks(Kind::RemovedReturned) {
            self.forge.back(&other);
            self.forge.close(&other);
        }
    }

    fn end(&mut self) {
        self.new_device("dave");
        let names: Vec<String> = self
            .devices
            .iter()
            .filter(|(_, device)| !device.removed)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &names {
            if !self.devices[name].online {
                self.come_back(name);
            }
        }
        while !self.unknown.is_empty() {
            self.retry();
        }
        self.forge.run.stored = Some(Vec::new());
        for name in &names {
            self.read(name, usize::MAX);
            self.forge.confirm(name);
            if self.breaks(Kind::ConfirmedButStored) {
                let (_, seq) = self.devices[name].outstanding.last().copied().unwrap_or_default();
                let kept = self.devices[name].inbox.iter().find(|kept| kept.entry.seq == seq);
                match kept.map(|kept| kept.entry.chat) {
                    Some(chat) => self.forge.stored(name, chat, seq),
                    None => self.sabotage = Some(Kind::ConfirmedButStored),
                }
            }
            if self.breaks(Kind::StoredButUndelivered) {
                self.forge.stored(name, 1, 1_000_000);
            }
            if self.breaks(Kind::NotAtRest) {
                let connection = self.forge.connection(name);
                let reason = "sabotage".to_owned();
                self.forge.write(&connection, What::NotAtRest { reason });
            } else {
                self.forge.rest(name);
            }
        }
    }
}
