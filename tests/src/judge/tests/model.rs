//! A tiny system that keeps every promise, and breaks one when it is asked to.

mod chats;
mod devices;

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
