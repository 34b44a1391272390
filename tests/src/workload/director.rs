//! Who says when somebody does something.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use tidings_protocol::{ChatId, MessageId, Operation, RequestId, UserId};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::device::Command;
use super::files::{Errand, File};
use super::outbox::{Ask, Outbox};
use super::words::words;
use super::world::State;
use super::{BEGINNING, Shared};

/// Active clients of a user.
const DEVICES_MAX: usize = 3;
/// Chats that are not large have so many people at most.
const GROUP_MAX: usize = 12;
/// How often a file is one that somebody was sent before.
const FORWARDED: f64 = 0.2;
/// A chat is not let become smaller: somebody must be left to see what happened.
const GROUP_MIN: usize = 3;

/// What happens next, and when.
struct Times {
    send: Instant,
    file: Instant,
    change: Instant,
    device: Instant,
    late: Instant,
}

/// The director.
pub(super) struct Director {
    shared: Arc<Shared>,
    rng: StdRng,
    /// Messages told to be sent, so that each has words of its own.
    sent: u64,
    /// Late users who have been told to connect.
    late: usize,
    began: Instant,
}

impl Director {
    pub(super) fn new(shared: Arc<Shared>, rng: StdRng) -> Self {
        Self {
            shared,
            rng,
            sent: 0,
            late: 0,
            began: Instant::now(),
        }
    }

    /// Has the chats made, and waits for them.
    pub(super) async fn make_chats(&mut self) {
        let shared = Arc::clone(&self.shared);
        let options = &shared.options;
        let users = shared.world.lock().users.clone();
        let present = options.users;
        let mut made = 0;
        for _ in 0..options.groups {
            let size = self.rng.random_range(GROUP_MIN..=8).min(users.len());
            made += u64::from(self.make_group(&users, present, size, "group"));
        }
        for _ in 0..options.users / 2 {
            made += u64::from(self.make_direct(&users, present));
        }
        for _ in 0..options.large_groups {
            let mut crowd = users.clone();
            let ghosts = (crowd.len()..100)
                .map(|number| UserId::new(&format!("ghost{number}-{}", self.rng.random::<u64>())));
            crowd.extend(ghosts.map(|ghost| ghost.expect("it is short ASCII")));
            made += u64::from(self.make_group(&crowd, present, 100, "large"));
        }
        shared
            .until(BEGINNING, |state| {
                state.creations >= made && !state.chats.is_empty()
            })
            .await;
    }

    /// Asks for the direct chat of two people, which may be there already.
    fn make_direct(&mut self, users: &[UserId], present: usize) -> bool {
        let creator = users[self.rng.random_range(0..present)].clone();
        let Some(other) = users.choose(&mut self.rng).filter(|other| **other != creator) else {
            return false;
        };
        let ask = Ask::Create {
            request_id: RequestId(Uuid::new_v4()),
            participants: vec![other.clone()],
            name: None,
        };
        self.ask(&creator, ask)
    }

    fn make_group(&mut self, users: &[UserId], present: usize, size: usize, name: &str) -> bool {
        let creator = users[self.rng.random_range(0..present)].clone();
        let mut others: Vec<UserId> = users.iter().filter(|user| **user != creator).cloned().collect();
        others.shuffle(&mut self.rng);
        others.truncate(size - 1);
        let ask = Ask::Create {
            request_id: RequestId(Uuid::new_v4()),
            participants: others,
            name: Some(name.to_owned()),
        };
        self.ask(&creator, ask)
    }

    /// Has a device of a user ask; false if none of them can.
    fn ask(&mut self, user_id: &UserId, ask: Ask) -> bool {
        let state = self.shared.world.lock();
        let devices: Vec<_> = state
            .devices_of(user_id)
            .filter(|(_, device)| device.online && device.unanswered < Outbox::LEN_MAX)
            .collect();
        let Some((_, device)) = devices.choose(&mut self.rng) else {
            return false;
        };
        device.commands.send(Command::Ask(ask)).is_ok()
    }

    /// Directs until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Self {
        self.began = Instant::now();
        let mut times = Times {
            send: self.began,
            file: self.began,
            change: self.began,
            device: self.began,
            late: self.began,
        };
        times.late += self.late_pause();
        loop {
            let next = [times.send, times.file, times.change, times.device, times.late];
            let next = next.into_iter().min().expect("there are five");
            if stop.run_until_cancelled(sleep_until(next)).await.is_none() {
                return self;
            }
            let options = &self.shared.options;
            let (sends, files, changes, devices) = (
                options.sends_per_second,
                options.files_per_minute / 60.0,
                options.changes_per_minute / 60.0,
                options.device_events_per_minute / 60.0,
            );
            if times.send <= next {
                self.send();
                times.send = next + self.pause(sends);
            } else if times.file <= next {
                self.file();
                times.file = next + self.pause(files);
            } else if times.change <= next {
                self.change();
                times.change = next + self.pause(changes);
            } else if times.device <= next {
                self.device_event();
                times.device = next + self.pause(devices);
            } else {
                self.late_user();
                times.late = next + self.late_pause();
            }
        }
    }

    /// The time to the next of something that happens so often a second, at random moments.
    fn pause(&mut self, per_second: f64) -> Duration {
        let unit: f64 = self.rng.random();
        let seconds = -(1.0 - unit).ln() / per_second.max(1e-6);
        Duration::from_secs_f64(seconds.min(3600.0))
    }

    fn late_pause(&self) -> Duration {
        let options = &self.shared.options;
        options.length / (options.late_users as u32 + 2)
    }

    fn send(&mut self) {
        // Somebody who is there and in a chat; who is not is tried in vain, as in life.
        for _ in 0..5 {
            let Some((chat_id, user_id)) = self.somebody() else {
                return;
            };
            let ask = Ask::Send {
                chat_id,
                message_id: MessageId(Uuid::new_v4()),
                text: words(self.sent),
                attachments: Vec::new(),
            };
            // Now and then somebody writes several lines at once.
            if self.ask(&user_id, ask) {
                self.sent += 1;
                return;
            }
        }
    }

    /// Somebody sends a file: a new one, or one that they were sent.
    fn file(&mut self) {
        if self.shared.targets.media.is_empty() {
            return;
        }
        let Some((chat_id, user_id)) = self.somebody() else {
            return;
        };
        let remembered = self.shared.files.remembered(&user_id, &mut self.rng);
        let ask = match remembered.filter(|_| self.rng.random_bool(FORWARDED)) {
            Some(attachment_id) => Ask::Send {
                chat_id,
                message_id: MessageId(Uuid::new_v4()),
                text: "look at this".to_owned(),
                attachments: vec![attachment_id],
            },
            None => Ask::Announce {
                errand: Errand {
                    file: File::choose(&mut self.rng),
                    chat_id,
                },
            },
        };
        self.ask(&user_id, ask);
    }

    fn somebody(&mut self) -> Option<(ChatId, UserId)> {
        let state = self.shared.world.lock();
        let chats: Vec<_> = state.chats.iter().collect();
        let (chat_id, chat) = chats.choose(&mut self.rng)?;
        let user = chat.participants.choose(&mut self.rng)?;
        Some((**chat_id, user.user_id.clone()))
    }

    fn change(&mut self) {
        let users = self.shared.world.lock().users.clone();
        let present = self.shared.options.users;
        match self.rng.random_range(0..20) {
            0 if self.chats() < self.chats_max() => {
                let size = self.rng.random_range(GROUP_MIN..=8).min(users.len());
                self.make_group(&users, present, size, "group");
            }
            1 => {
                self.make_direct(&users, present);
            }
            _ => self.change_participants(),
        }
    }

    fn chats(&self) -> usize {
        self.shared.world.lock().chats.len()
    }

    /// Twice as many as there were at the beginning: more would only spread the messages thinner.
    fn chats_max(&self) -> usize {
        let options = &self.shared.options;
        2 * (options.groups + options.users / 2)
    }

    fn change_participants(&mut self) {
        let asked = {
            let state = self.shared.world.lock();
            let groups: Vec<_> = state
                .chats
                .iter()
                .filter(|(_, chat)| chat.group && chat.participants.len() <= GROUP_MAX)
                .collect();
            groups
                .choose(&mut self.rng)
                .map(|(chat_id, chat)| (**chat_id, (*chat).clone(), state.users.clone()))
        };
        let Some((chat_id, chat, users)) = asked else {
            return;
        };
        let inside = chat.users();
        let outside: Vec<&UserId> = users.iter().filter(|user| !inside.contains(user)).collect();
        let inside: Vec<&UserId> = inside.into_iter().collect();
        let admins: Vec<&UserId> = chat.admins().collect();
        let (by, user_id, operation) = match self.rng.random_range(0..10) {
            0..5 if inside.len() < GROUP_MAX && !outside.is_empty() => {
                let user = outside.choose(&mut self.rng).expect("it is not empty");
                (admins.choose(&mut self.rng), *user, Operation::Add)
            }
            // Leaving.
            5..7 if inside.len() > GROUP_MIN => {
                let user = inside.choose(&mut self.rng).expect("it is not empty");
                (Some(user), *user, Operation::Remove)
            }
            _ if inside.len() > GROUP_MIN => {
                let user = inside.choose(&mut self.rng).expect("it is not empty");
                (admins.choose(&mut self.rng), *user, Operation::Remove)
            }
            _ => return,
        };
        let Some(by) = by else { return };
        let ask = Ask::Modify {
            request_id: RequestId(Uuid::new_v4()),
            chat_id,
            user_id: user_id.clone(),
            operation,
        };
        self.ask(by, ask);
    }

    /// Something happens to a device.
    fn device_event(&mut self) {
        let length = self.shared.options.length;
        let short = Duration::from_millis(self.rng.random_range(200..5000));
        let long = length.mul_f64(self.rng.random_range(0.1..0.4));
        let what = self.rng.random_range(0..20);
        let chosen = {
            let state = self.shared.world.lock();
            let devices: Vec<(usize, UserId)> = state
                .devices
                .iter()
                .enumerate()
                .filter(|(_, device)| device.online && !device.removed)
                .map(|(number, device)| (number, device.identity.user_id.clone()))
                .collect();
            devices.choose(&mut self.rng).cloned()
        };
        let Some((number, user_id)) = chosen else { return };
        match what {
            0..6 => self.tell(number, Command::Away { time: short }),
            6..8 => self.tell(number, Command::Away { time: long }),
            8..12 => self.tell(number, Command::Forget { after: short / 4 }),
            12..15 => self.tell(number, Command::Twice),
            15..17 => self.add(&user_id),
            17..19 => self.replace(number, &user_id),
            _ => self.remove(number, &user_id),
        }
    }

    fn tell(&self, number: usize, command: Command) {
        // A device that is gone hears nothing.
        let _ = self.shared.world.lock().devices[number].commands.send(command);
    }

    /// A new device, if there is room for one.
    fn add(&mut self, user_id: &UserId) {
        if self.may_add(user_id, DEVICES_MAX) {
            let shared = Arc::clone(&self.shared);
            shared.add_device(user_id, None, &mut self.rng);
        }
    }

    fn may_add(&self, user_id: &UserId, below: usize) -> bool {
        let state = self.shared.world.lock();
        // A removal that was asked for and is not answered still takes a place.
        let unanswered = state.devices_of(user_id).any(|(_, device)| device.unanswered > 0);
        let registered = state.devices_of(user_id).any(|(_, device)| device.registered);
        registered && !unanswered && state.devices_of(user_id).count() < below
    }

    /// A new device that takes the place of another one.
    fn replace(&mut self, number: usize, user_id: &UserId) {
        if !self.may_add(user_id, DEVICES_MAX + 1) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let replaced = {
            let mut state = shared.world.lock();
            state.devices[number].removed = true;
            state.devices[number].identity.client_id
        };
        shared.add_device(user_id, Some(replaced), &mut self.rng);
    }

    /// Another device of the user removes it.
    fn remove(&mut self, number: usize, user_id: &UserId) {
        let mut state = self.shared.world.lock();
        let client_id = state.devices[number].identity.client_id;
        let other = state
            .devices_of(user_id)
            .find(|(other, device)| *other != number && device.online && device.registered)
            .map(|(other, _)| other);
        let Some(other) = other else { return };
        let ask = Command::Ask(Ask::Remove { client_id });
        if state.devices[other].commands.send(ask).is_ok() {
            state.devices[number].removed = true;
        }
    }

    /// Somebody who was written to connects for the first time.
    fn late_user(&mut self) {
        let shared = Arc::clone(&self.shared);
        let number = shared.options.users + self.late;
        let user_id = shared.world.lock().users.get(number).cloned();
        if let Some(user_id) = user_id {
            self.late += 1;
            shared.add_device(&user_id, None, &mut self.rng);
        }
    }

    /// Everybody who has not connected yet does.
    pub(super) fn bring_everybody(&mut self) {
        while self.late < self.shared.options.late_users {
            self.late_user();
        }
    }

    /// A message after which nothing follows in its chat, from somebody who is in it, and a question who else is.
    pub(super) fn mark(&mut self, chat_id: ChatId) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.world.lock();
        let Some((device, client_id)) = marking_device(&state, chat_id) else {
            return;
        };
        let message_id = MessageId(Uuid::new_v4());
        let send = Ask::Send {
            chat_id,
            message_id,
            text: "the last words".to_owned(),
            attachments: Vec::new(),
        };
        let commands = state.devices[device].commands.clone();
        let told = commands.send(Command::Ask(send)).is_ok()
            && commands.send(Command::Ask(Ask::Look { chat_id })).is_ok();
        if told {
            let marker = super::world::Marker {
                message_id,
                sender: client_id,
                users: None,
            };
            state.markers.insert(chat_id, marker);
        }
    }
}

/// Who marks a chat: a participant's device that is connected.
fn marking_device(state: &State, chat_id: ChatId) -> Option<(usize, tidings_protocol::ClientId)> {
    let chat = state.chats.get(&chat_id)?;
    chat.participants.iter().find_map(|participant| {
        state
            .devices_of(&participant.user_id)
            .find(|(_, device)| device.online && device.registered)
            .map(|(number, device)| (number, device.identity.client_id))
    })
}
