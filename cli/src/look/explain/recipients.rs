//! For whom the message was, and what became of it for each of their clients.

use std::collections::BTreeMap;

use serde::Serialize;
use tidings_metadata::ClientRecord;
use tidings_nats::{Entry, FIRST, Inbox, Lost, inbox_stream, inbox_subject};
use tidings_protocol::{ClientId, UserId};

use super::fate::{self, Client, Fate, Gone, NotForIt, Sent};
use super::inboxes::{Search, UserInboxes};
use super::{FanOut, Known, Look, TIMEOUT, Wanted};
use crate::look::presence::{Gateways, Presence};

/// A client of a user who was in the chat; or the user's inbox `first`; or somebody who was not.
#[derive(Debug, Serialize)]
pub(super) struct Recipient {
    pub(super) user_id: UserId,
    /// None for a user without clients.
    pub(super) client_id: Option<ClientId>,
    pub(super) name: Option<String>,
    /// Whether the client is one of the user's active ones.
    pub(super) active: bool,
    #[serde(flatten)]
    pub(super) fate: Fate,
    /// Where it is connected now.
    pub(super) session: Option<Presence>,
}

/// What all of them have in common.
struct Seeker<'a> {
    look: &'a Look,
    known: &'a Known,
    fan_out: &'a FanOut,
    sent: Sent,
    gateways: Gateways,
}

/// Those who were in the chat, then those who are now and were not.
pub(super) async fn find(
    look: &Look,
    wanted: &Wanted,
    known: &Known,
    fan_out: &FanOut,
    users: &[UserId],
    now_in_it: &[UserId],
    inboxes: &BTreeMap<UserId, UserInboxes>,
) -> anyhow::Result<Vec<Recipient>> {
    if known.seq.is_none() && !matches!(fan_out, FanOut::DeadLetter(_)) {
        return Ok(Vec::new());
    }
    let seeker = Seeker {
        look,
        known,
        fan_out,
        sent: Sent {
            chat_id: wanted.chat,
            accepted: known.accepted(look),
            now: look.now,
        },
        gateways: Gateways::read(look).await?,
    };
    let clients = look.metadata.active_clients(users).await?;
    let (mut found, none) = (Vec::new(), UserInboxes::default());
    for user in users {
        let clients = clients.get(user).map_or(&[][..], Vec::as_slice);
        let inboxes = inboxes.get(user).unwrap_or(&none);
        found.extend(seeker.of_user(user, clients, inboxes).await?);
    }
    let later = now_in_it.iter().filter(|user| !users.contains(user));
    found.extend(later.map(|user| Recipient {
        user_id: user.clone(),
        client_id: None,
        name: None,
        active: true,
        fate: Fate::NotForIt {
            why: NotForIt::NotInTheChat,
        },
        session: None,
    }));
    Ok(found)
}

impl Seeker<'_> {
    async fn of_user(
        &self,
        user: &UserId,
        clients: &[ClientId],
        inboxes: &UserInboxes,
    ) -> anyhow::Result<Vec<Recipient>> {
        let first = inbox_subject(&self.look.topology, user, Inbox::First);
        let (mut found, mut inherited) = (Vec::new(), false);
        for client_id in clients {
            // Gone only if its row was deleted by hand in between.
            let Some(record) = self.look.metadata.client(*client_id).await? else {
                continue;
            };
            inherited |= record.heir;
            let session = self.gateways.presence(self.look, *client_id).await?;
            found.push(Recipient {
                user_id: user.clone(),
                client_id: Some(*client_id),
                fate: self
                    .of_client(user, *client_id, &record, session.as_ref(), inboxes)
                    .await?,
                name: record.name,
                active: true,
                session,
            });
        }
        if !inherited && let Some(fate) = self.of_first(user, clients.is_empty(), &first, inboxes) {
            found.push(Recipient {
                user_id: user.clone(),
                client_id: None,
                name: None,
                active: true,
                fate,
                session: None,
            });
        }
        // Of clients that are not active any more, and whose inboxes are not emptied yet.
        for (subject, search) in &inboxes.found {
            let client_id = subject.rsplit('.').next().and_then(|client| client.parse().ok());
            if let (Some(client_id), Search::Found { .. }) = (client_id, search)
                && !clients.contains(&client_id)
            {
                found.push(Recipient {
                    user_id: user.clone(),
                    client_id: Some(client_id),
                    name: None,
                    active: false,
                    fate: self.stored(user, search, false),
                    session: None,
                });
            }
        }
        Ok(found)
    }

    async fn of_client(
        &self,
        user: &UserId,
        client_id: ClientId,
        record: &ClientRecord,
        session: Option<&Presence>,
        inboxes: &UserInboxes,
    ) -> anyhow::Result<Fate> {
        let own = inbox_subject(&self.look.topology, user, Inbox::Client(client_id));
        let first = inbox_subject(&self.look.topology, user, Inbox::First);
        let mut subjects = vec![&own];
        if record.heir {
            subjects.push(&first);
        }
        let in_them: Vec<(&String, &Search)> = subjects
            .iter()
            .filter_map(|subject| Some((*subject, inboxes.found.get(*subject)?)))
            .collect();
        for (subject, search) in &in_them {
            if let Search::Found { .. } = search {
                return Ok(self.stored(user, search, **subject == first));
            }
        }
        if self.known.client_id == Some(client_id) {
            return Ok(Fate::NotForIt { why: NotForIt::Own });
        }
        for (_, search) in &in_them {
            if let Search::NotKnown(why) = search {
                return Ok(Fate::NotKnown { why });
            }
        }
        if let Some(fate) = self.not_fanned_out() {
            return Ok(fate);
        }
        let marks: Vec<Lost> = subjects
            .iter()
            .filter_map(|subject| inboxes.marks.get(*subject))
            .flatten()
            .cloned()
            .collect();
        let connected = session.is_some_and(|session| session.alive);
        let client = Client {
            registered_at: record.registered_at,
            seen_at: if connected {
                self.look.now
            } else {
                record.last_seen_at
            },
            heir: record.heir,
        };
        let sequence = match self.known.seq {
            Some(seq) => {
                let id = Entry::message_id(seq, &client_id.to_string());
                // Without the answer it is not known, as it is later than two minutes.
                self.look.bus.remembered(&own, &id, TIMEOUT).await.ok().flatten()
            }
            None => None,
        };
        Ok(fate::of_absent(client, &self.sent, &marks, sequence))
    }

    /// Of the inbox that waits for a first client, where nobody inherits it.
    fn of_first(&self, user: &UserId, alone: bool, first: &str, inboxes: &UserInboxes) -> Option<Fate> {
        let search = inboxes.found.get(first);
        if let Some(search @ Search::Found { .. }) = search {
            return Some(self.stored(user, search, true));
        }
        if !alone {
            return None;
        }
        if let Some(Search::NotKnown(why)) = search {
            return Some(Fate::NotKnown { why });
        }
        let marks = inboxes.marks.get(first).map_or(&[][..], Vec::as_slice);
        let gone = Fate::Gone { why: Gone::NoClient };
        Some(
            self.not_fanned_out()
                .or_else(|| fate::marked(marks, &self.sent))
                .unwrap_or(gone),
        )
    }

    fn not_fanned_out(&self) -> Option<Fate> {
        match self.fan_out {
            FanOut::Waiting(_) | FanOut::Working(_) => Some(Fate::Pending),
            FanOut::DeadLetter(_) => Some(Fate::GivenUp),
            FanOut::Done { .. } | FanOut::NoTrace => None,
        }
    }

    fn stored(&self, user: &UserId, search: &Search, first: bool) -> Fate {
        let Search::Found { sequence, stored_at } = search else {
            unreachable!("only what is found is stored");
        };
        Fate::Stored {
            stream: inbox_stream(self.look.topology.shard(user)),
            sequence: *sequence,
            stored_at: *stored_at,
            first,
        }
    }
}

impl Recipient {
    /// How the row calls the client.
    pub(super) fn client(&self) -> String {
        match (self.client_id, &self.fate) {
            (Some(client_id), _) => client_id.to_string(),
            (
                None,
                Fate::NotForIt {
                    why: NotForIt::NotInTheChat,
                },
            ) => "-".to_owned(),
            (None, _) => FIRST.to_owned(),
        }
    }
}
