//! What the people of a workload know in common: who has which devices, which chats there are, who is in them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard};

use tidings_protocol::{Chat, ChatId, ChatKind, ChatUpdate, ClientId, MessageId, Participant, Role, UserId};
use tokio::sync::mpsc;

use super::device::Command;
use crate::token::Identity;

/// A device, seen from outside.
#[derive(Debug)]
pub(super) struct DeviceState {
    pub(super) identity: Identity,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    /// It was welcomed at least once: it is registered.
    pub(super) registered: bool,
    /// It is connected now.
    pub(super) online: bool,
    /// Its removal was asked for, or it was told of it.
    pub(super) removed: bool,
    /// Unanswered requests.
    pub(super) unanswered: usize,
    /// It knows that the end is near.
    pub(super) finishing: bool,
    /// Why it could not register, if it never will.
    pub(super) hopeless: bool,
}

/// A chat, as far as anybody knows.
#[derive(Clone, Debug, Default)]
pub(super) struct ChatState {
    pub(super) version: u64,
    pub(super) group: bool,
    pub(super) participants: Vec<Participant>,
}

impl ChatState {
    pub(super) fn users(&self) -> BTreeSet<&UserId> {
        self.participants
            .iter()
            .map(|participant| &participant.user_id)
            .collect()
    }

    pub(super) fn admins(&self) -> impl Iterator<Item = &UserId> {
        self.participants
            .iter()
            .filter(|participant| participant.role == Role::Admin)
            .map(|participant| &participant.user_id)
    }
}

/// The last message of a chat, after which nothing follows.
#[derive(Clone, Debug)]
pub(super) struct Marker {
    pub(super) message_id: MessageId,
    pub(super) sender: ClientId,
    /// Who was in the chat after it was accepted. Absent until somebody was told.
    pub(super) users: Option<BTreeSet<UserId>>,
}

/// The state of it all.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) users: Vec<UserId>,
    pub(super) devices: Vec<DeviceState>,
    pub(super) chats: BTreeMap<ChatId, ChatState>,
    /// createChat requests that were answered, well or not.
    pub(super) creations: u64,
    pub(super) markers: BTreeMap<ChatId, Marker>,
    /// Who has got which marker.
    pub(super) marked: HashSet<(ClientId, MessageId)>,
    pub(super) report: super::WorkloadReport,
}

/// What everybody shares.
#[derive(Debug, Default)]
pub(super) struct World(Mutex<State>);

impl World {
    /// The state. Never held across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of it panics")
    }
}

impl State {
    /// A user's devices that were not removed, by their numbers.
    pub(super) fn devices_of<'a>(
        &'a self,
        user_id: &'a UserId,
    ) -> impl Iterator<Item = (usize, &'a DeviceState)> {
        self.devices
            .iter()
            .enumerate()
            .filter(move |(_, device)| device.identity.user_id == *user_id && !device.removed)
    }

    /// A chat's state as a `chatUpdate` tells it.
    pub(super) fn updated(&mut self, update: &ChatUpdate) {
        let group = update.kind == ChatKind::Group;
        self.put(
            update.chat_id,
            ChatState {
                version: update.version,
                group,
                participants: update.participants.clone(),
            },
        );
    }

    /// A chat's state as `getChat` tells it.
    pub(super) fn looked_up(&mut self, chat: &Chat) {
        let state = ChatState {
            version: chat.version,
            group: chat.kind == ChatKind::Group,
            participants: chat.participants.clone(),
        };
        if let Some(marker) = self.markers.get_mut(&chat.chat_id) {
            let users = state.users().into_iter().cloned().collect();
            marker.users = Some(users);
        }
        self.put(chat.chat_id, state);
    }

    fn put(&mut self, chat_id: ChatId, state: ChatState) {
        let known = self.chats.entry(chat_id).or_default();
        if known.version < state.version {
            *known = state;
        }
    }
}
