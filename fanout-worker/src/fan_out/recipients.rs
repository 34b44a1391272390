//! Who gets an event: whose inboxes its entries go to.

use tidings_nats::{Accepted, Event, Inbox};
use tidings_protocol::{ChatId, ClientId, UserId};

use super::FanOut;
use super::attempt::{Progress, Stored, Target, in_time};
use crate::metrics::count_lookups;
use crate::participants::{Participants, ParticipantsCache, ParticipantsError};
use crate::tries::Failure;

/// How many chats are looked up at a time. Many more than a worker has connections to Postgres (8, unless set
/// otherwise), so that none is idle; in a backlog of chats that are not known yet the others wait at little cost.
pub(crate) const LOOK_UPS_MAX: usize = 64;

/// Who gets an event.
pub(super) struct Recipients {
    /// Whose inboxes get it.
    pub(super) users: Vec<UserId>,
    /// The version of the chat that says so.
    pub(super) version: u64,
}

impl From<Participants> for Recipients {
    fn from(participants: Participants) -> Self {
        Self {
            users: participants.users.to_vec(),
            version: participants.version,
        }
    }
}

impl FanOut {
    /// Whose inboxes get it; nobody's, if it is a change that a later one has overtaken.
    pub(super) async fn recipients(
        &self,
        event: &Event,
        sequence: u64,
        participants: &ParticipantsCache,
        progress: &Progress,
    ) -> Result<Option<Recipients>, Failure> {
        let chat_id = event.chat_id();
        let known = participants.get(chat_id);
        match event {
            Event::ChatUpdate(update) => {
                if known.is_some_and(|known| known.version > update.version) {
                    return Ok(None);
                }
                let now = Participants::of(update);
                let mut users = now.users.to_vec();
                users.extend(
                    update
                        .removed
                        .iter()
                        .filter(|user| !now.users.contains(user))
                        .cloned(),
                );
                participants.follow(chat_id, now);
                Ok(Some(Recipients {
                    users,
                    version: update.version,
                }))
            }
            Event::Message(_) => {
                if let Some(known) = known {
                    count_lookups("participants", 1, 0);
                    return Ok(Some(known.into()));
                }
                count_lookups("participants", 0, 1);
                let _place = if progress.on_trial {
                    None
                } else {
                    let place = progress.cancelled.run_until_cancelled(self.look_ups.acquire());
                    let Some(place) = place.await else {
                        return Err(Failure::weather("it is to end"));
                    };
                    Some(place)
                };
                // Boxed, since few events are here at a time and every one has room for this.
                let loaded = Box::pin(in_time(self.load_recipients(chat_id, sequence, participants)));
                Ok(Some(loaded.await?))
            }
        }
    }

    async fn load_recipients(
        &self,
        chat_id: ChatId,
        sequence: u64,
        participants: &ParticipantsCache,
    ) -> Result<Recipients, Failure> {
        let loaded = Participants::load(&self.metadata, &self.bus, &self.topology, chat_id, sequence);
        let (loaded, is_newest) = loaded.await.map_err(|error| participants_failure(&error))?;
        if is_newest {
            participants.put(chat_id, loaded.clone());
        }
        Ok(loaded.into())
    }

    /// The inboxes that do not have it yet.
    pub(super) async fn targets(
        &self,
        event: &Event,
        users: &[UserId],
        progress: &Progress,
    ) -> Result<Vec<Target>, Failure> {
        let sender: Option<ClientId> = match event {
            Event::Message(message) => Some(message.client_id),
            Event::ChatUpdate(_) => None,
        };
        let clients = self
            .clients
            .of(users)
            .await
            .map_err(|error| Failure::Weather(error.to_string()))?;
        let mut targets = Vec::new();
        for user in users {
            let clients: &[ClientId] = clients.get(user).map_or(&[], |clients| clients);
            if clients.is_empty() || progress.first.contains(user) {
                targets.push((user.clone(), Inbox::First));
                continue;
            }
            targets.extend(
                clients
                    .iter()
                    .filter(|client_id| Some(**client_id) != sender)
                    .map(|client_id| (user.clone(), Inbox::Client(*client_id))),
            );
        }
        targets.retain(|target| !progress.stored.contains_key(target) && !progress.is_told(target));
        Ok(targets)
    }

    /// The clients of users whose `first` was written to by more than one try: one of them may have inherited it
    /// and read it between two tries, so it is told to read again.
    pub(super) async fn heirs(
        &self,
        late: &[UserId],
        stored: &Stored,
    ) -> Result<Vec<crate::live_lane::Stored>, Failure> {
        if late.is_empty() {
            return Ok(Vec::new());
        }
        let clients = self
            .clients
            .of(late)
            .await
            .map_err(|error| Failure::Weather(error.to_string()))?;
        let mut heirs = Vec::new();
        for (user_id, clients) in &clients {
            let first = stored.get(&(user_id.clone(), Inbox::First));
            if let Some(Some(accepted)) = first {
                let place = Accepted {
                    duplicate: true,
                    ..*accepted
                };
                heirs.extend(
                    clients
                        .iter()
                        .map(|client| (*client, (self.topology.shard(user_id), place))),
                );
            }
        }
        Ok(heirs)
    }
}

fn participants_failure(error: &ParticipantsError) -> Failure {
    match error {
        ParticipantsError::Unknown => Failure::Poison(error.to_string()),
        _ => Failure::Weather(error.to_string()),
    }
}
