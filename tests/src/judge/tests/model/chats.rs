//! What the model stores: chats, messages, changes of participants.

use super::*;

impl Model {
    pub(super) fn create(&mut self, number: u64) {
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
    pub(super) fn store(&mut self, entry: &Entry, users: &[String]) {
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

    pub(super) fn accept(&mut self, chat: u64, from: &str, number: u64) -> u64 {
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

    pub(super) fn send(&mut self) {
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
    pub(super) fn retry(&mut self) {
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
    pub(super) fn change(&mut self) {
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
}
