//! Who is in a chat, as far as the events of one partition have told since its last fresh start.

use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;
use tidings_metadata::{DatabaseError, Metadata, OutboxKey, ParticipantsAt};
use tidings_nats::{Bus, ChatUpdate, Topology};
use tidings_protocol::{ChatId, UserId};
use tidings_service::outbox::{self, FlushError};

/// Users in the cache of one partition, over all chats: a few MiB. A full cache is emptied.
const USERS_MAX: usize = 30_000;

/// The participants of a chat after one of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Participants {
    /// Which version.
    pub(crate) version: u64,
    /// Who.
    pub(crate) users: Arc<[UserId]>,
}

/// The chats that were seen. Right for the next event of each chat, because events of a chat come in order, and
/// each change of its participants is one of them.
///
/// Only if a chat's first entry is its newest version at that time: an event may come again after later ones of its
/// chat were deleted, its own deletion having been lost, and then a change among these does not come any more. Whatever is
/// committed after the look at Postgres does.
#[derive(Debug, Default)]
pub(crate) struct ParticipantsCache {
    chats: Mutex<Chats>,
}

#[derive(Debug, Default)]
struct Chats {
    known: HashMap<ChatId, Participants>,
    users: usize,
}

/// Why it is not known who is in a chat.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParticipantsError {
    /// Postgres has no such chat.
    #[error("no such chat")]
    Unknown,
    /// Time will tell.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Time will tell.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// Somebody changes the chat again and again.
    #[error("the chat's changes are being published")]
    Unsent,
}

impl ParticipantsCache {
    /// What is known of a chat.
    pub(crate) fn get(&self, chat_id: ChatId) -> Option<Participants> {
        self.chats.lock().known.get(&chat_id).cloned()
    }

    /// Replaces what is known of a chat.
    pub(crate) fn put(&self, chat_id: ChatId, participants: Participants) {
        let mut chats = self.chats.lock();
        if chats.users + participants.users.len() > USERS_MAX {
            *chats = Chats::default();
        }
        chats.users += participants.users.len();
        if let Some(old) = chats.known.insert(chat_id, participants) {
            chats.users -= old.users.len();
        }
    }

    /// After a change: goes on from the version before it, or forgets the chat if that is not known.
    pub(crate) fn follow(&self, chat_id: ChatId, now: Participants) {
        let follows = self
            .get(chat_id)
            .is_some_and(|known| known.version + 1 >= now.version);
        if follows {
            self.put(chat_id, now);
        } else {
            self.forget(chat_id);
        }
    }

    /// Forgets a chat.
    pub(crate) fn forget(&self, chat_id: ChatId) {
        let mut chats = self.chats.lock();
        if let Some(old) = chats.known.remove(&chat_id) {
            chats.users -= old.users.len();
        }
    }
}

impl Participants {
    /// What an event says.
    pub(crate) fn of(update: &ChatUpdate) -> Self {
        Self {
            version: update.version,
            users: update
                .participants
                .iter()
                .map(|participant| participant.user_id.clone())
                .collect(),
        }
    }

    /// Who was in the chat when CHATS gave out `seq`, from Postgres, and whether no later change was known then.
    /// Changes whose sequences are not known are published first, so that all are.
    pub(crate) async fn load(
        metadata: &Metadata,
        bus: &Bus,
        topology: &Topology,
        chat_id: ChatId,
        seq: u64,
    ) -> Result<(Self, bool), ParticipantsError> {
        let newest = metadata.chat(chat_id).await?.map(|record| record.chat.version);
        let mut answer = metadata.participants_at(chat_id, seq).await?;
        if answer == ParticipantsAt::Unsent {
            match outbox::flush(metadata, bus, topology, OutboxKey::Chat(chat_id)).await {
                Ok(_) => answer = metadata.participants_at(chat_id, seq).await?,
                // The subject is full of what we are here to take away: what could not be published now was not
                // before either, or it would have been answered as a duplicate. So it will be above `seq`.
                Err(FlushError::ChatBusy) => {
                    answer = metadata.published_participants_at(chat_id, seq).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        match answer {
            ParticipantsAt::Known(change) => {
                let is_newest = newest.is_some_and(|newest| change.version >= newest);
                let users = change
                    .participants
                    .into_iter()
                    .map(|participant| participant.user_id)
                    .collect();
                let version = change.version;
                Ok((Self { version, users }, is_newest))
            }
            ParticipantsAt::Unsent => Err(ParticipantsError::Unsent),
            ParticipantsAt::Unknown => Err(ParticipantsError::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn participants(version: u64, count: usize) -> Participants {
        let user = UserId::new("alice").expect("a user id");
        Participants {
            version,
            users: vec![user; count].into(),
        }
    }

    #[test]
    fn a_change_is_kept_only_after_the_one_before() {
        let cache = ParticipantsCache::default();
        let chat = ChatId(Uuid::from_u128(1));
        cache.follow(chat, participants(4, 3));
        assert_eq!(cache.get(chat), None, "5 may be deleted already");
        cache.put(chat, participants(5, 2));
        cache.follow(chat, participants(6, 1));
        assert_eq!(cache.get(chat), Some(participants(6, 1)));
        cache.follow(chat, participants(8, 1));
        assert_eq!(cache.get(chat), None, "7 was not seen");
    }

    #[test]
    fn the_cache_is_bounded_by_users() {
        let cache = ParticipantsCache::default();
        let chat = |id| ChatId(Uuid::from_u128(id));
        for version in 0..1_000 {
            cache.put(chat(1), participants(version, 100));
        }
        assert_eq!(cache.get(chat(1)), Some(participants(999, 100)));
        for id in 2..=300 {
            cache.put(chat(id), participants(1, 100));
        }
        assert!(cache.get(chat(1)).is_some());
        cache.put(chat(301), participants(1, 100));
        assert!(cache.get(chat(1)).is_none() && cache.get(chat(301)).is_some());
        cache.forget(chat(301));
        assert_eq!(cache.chats.lock().users, 0);
    }
}
