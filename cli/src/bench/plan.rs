//! Who sends what to whom: drawn from a seed, so that nothing that happens while the load runs has a say in it.

use std::collections::VecDeque;

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::seq::{SliceRandom as _, index};
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tidings_protocol::{MessageId, PARTICIPANTS_MAX};
use uuid::Builder;

/// The shape of the load.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Shape {
    /// Clients online: a whole number of users with all their devices.
    pub(crate) clients: u32,
    /// Clients of each user.
    pub(crate) devices: u32,
    /// Chats among the users.
    pub(crate) chats: u32,
    /// Users in each chat.
    pub(crate) members: u32,
    /// The same seed is the same plan.
    pub(crate) seed: u64,
}

/// See the module. Clients are numbered user by user: those of user `u` are `u * devices` and what follows.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Of each chat the users in it, in order. The first of them makes the chat.
    pub(crate) chats: Vec<Vec<u32>>,
    /// Users in each chat.
    pub(crate) members: u32,
    /// Clients of each user.
    pub(crate) devices: u32,
    /// Clients in all, whether they are in a chat or not.
    pub(crate) clients: u32,
    /// Of the messages.
    seed: u64,
}

/// A message to send.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Send {
    /// Index into [`Plan::chats`].
    pub(crate) chat: u32,
    /// The sender among the clients of the chat's members, in their order.
    pub(crate) position: u32,
}

/// Messages without an end.
#[derive(Debug)]
pub(crate) struct Sends {
    rng: StdRng,
    chats: u32,
    seats: u32,
}

impl Plan {
    /// Members, chats and senders are drawn evenly.
    pub(crate) fn new(shape: &Shape) -> anyhow::Result<Self> {
        let Shape {
            clients,
            devices,
            chats,
            members,
            seed,
        } = *shape;
        ensure!(
            clients.is_multiple_of(devices),
            "--clients {clients} must be a multiple of --devices {devices}"
        );
        let users = clients / devices;
        ensure!(chats >= 1, "--chats must be at least 1");
        ensure!(
            (2..=PARTICIPANTS_MAX as u32).contains(&members),
            "--members must be 2 to {PARTICIPANTS_MAX}"
        );
        ensure!(
            members <= users,
            "{members} members need at least as many users, and these --clients are of {users}"
        );
        let mut rng = StdRng::seed_from_u64(seed);
        let chats: Vec<Vec<u32>> = (0..chats)
            .map(|_| {
                let mut chosen: Vec<u32> = index::sample(&mut rng, users as usize, members as usize)
                    .into_iter()
                    .map(|user| user as u32)
                    .collect();
                chosen.sort_unstable();
                chosen
            })
            .collect();
        Ok(Self {
            chats,
            members,
            devices,
            clients,
            seed: rng.random(),
        })
    }

    /// Each chat has one of `senders` further users, who come before those of the shape, and of all others each is in about
    /// as many chats.
    pub(crate) fn with_senders(shape: &Shape, senders: u32) -> anyhow::Result<Self> {
        let all = Shape {
            clients: shape.clients + senders * shape.devices,
            ..*shape
        };
        let mut plan = Self::new(&all)?;
        let users = all.clients / all.devices;
        ensure!(
            all.members - 1 <= users - senders,
            "{} members need at least as many users but one, and these --clients are of {}",
            all.members,
            users - senders
        );
        let mut rng = StdRng::seed_from_u64(all.seed);
        let mut line = VecDeque::new();
        for (chat, members) in plan.chats.iter_mut().enumerate() {
            members.clear();
            members.push(chat as u32 % senders);
            while members.len() < all.members as usize {
                // Those that are in this chat already stay where they stand, for the next one.
                let next = line.iter().position(|user| !members.contains(user));
                if let Some(user) = next.and_then(|next| line.remove(next)) {
                    members.push(user);
                } else {
                    let mut round: Vec<u32> = (senders..users).collect();
                    round.shuffle(&mut rng);
                    line.extend(round);
                }
            }
            members.sort_unstable();
        }
        Ok(plan)
    }

    /// All messages, always the same.
    pub(crate) fn sends(&self) -> Sends {
        Sends {
            rng: StdRng::seed_from_u64(self.seed),
            chats: self.chats.len() as u32,
            seats: self.seats(),
        }
    }

    /// How many clients each chat has.
    pub(crate) const fn seats(&self) -> u32 {
        self.members * self.devices
    }

    /// Which client sends a message.
    pub(crate) fn sender(&self, send: Send) -> u32 {
        let member = self.chats[send.chat as usize][(send.position / self.devices) as usize];
        member * self.devices + send.position % self.devices
    }

    /// Where a client stands among the clients of a chat.
    pub(crate) fn position(&self, chat: u32, client: u32) -> Option<usize> {
        let member = self.chats[chat as usize].binary_search(&(client / self.devices));
        Some(member.ok()? * self.devices as usize + (client % self.devices) as usize)
    }

    /// How many clients are in any chat.
    pub(crate) fn senders(&self) -> usize {
        let mut users: Vec<u32> = self.chats.iter().flatten().copied().collect();
        users.sort_unstable();
        users.dedup();
        users.len() * self.devices as usize
    }
}

impl Sends {
    /// The next one.
    pub(crate) fn draw(&mut self) -> Send {
        Send {
            chat: self.rng.random_range(0..self.chats),
            position: self.rng.random_range(0..self.seats),
        }
    }
}

/// One run of the load generator: its messages carry their numbers in their ids.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run([u8; 6]);

impl Run {
    pub(crate) fn new() -> Self {
        Self(rand::random())
    }

    /// The id of a message: a UUID of version 8, the run before the number.
    pub(crate) fn message_id(self, number: usize) -> MessageId {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&self.0);
        bytes[9..].copy_from_slice(&(number as u64).to_be_bytes()[1..]);
        MessageId(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The number of a message; `None` if it is of another run.
    pub(crate) fn number(self, id: MessageId) -> Option<usize> {
        let bytes = id.0.as_bytes();
        let number = u64::from_be_bytes(bytes[8..].try_into().expect("a UUID has 16 bytes"));
        // The first byte of these holds the UUID's variant.
        (bytes[..6] == self.0).then_some((number & (u64::MAX >> 8)) as usize)
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        clients: 20,
        devices: 1,
        chats: 7,
        members: 5,
        seed: 1,
    };

    fn sends(seed: u64) -> Vec<Send> {
        let plan = Plan::new(&Shape { seed, ..SHAPE }).expect("possible");
        let mut sends = plan.sends();
        (0..100).map(|_| sends.draw()).collect()
    }

    #[test]
    fn chats_have_distinct_members_of_whom_each_may_send() {
        let plan = Plan::new(&SHAPE).expect("possible");
        assert_eq!(plan.chats.len(), 7);
        for members in &plan.chats {
            assert_eq!(members.len(), 5);
            assert!(members.is_sorted_by(|one, next| one < next));
        }
        let send = plan.sends().draw();
        let sender = plan.sender(send);
        assert_eq!(plan.position(send.chat, sender), Some(send.position as usize));
        assert!((5..=20).contains(&plan.senders()));
    }

    #[test]
    fn every_device_of_a_member_has_a_seat() {
        let shape = Shape {
            clients: 60,
            devices: 3,
            ..SHAPE
        };
        let plan = Plan::new(&shape).expect("possible");
        assert_eq!(plan.seats(), 15);
        let senders: Vec<u32> = (0..15)
            .map(|position| plan.sender(Send { chat: 2, position }))
            .collect();
        let clients = plan.chats[2].iter().flat_map(|user| user * 3..user * 3 + 3);
        assert_eq!(senders, clients.collect::<Vec<_>>());
        for (position, client) in senders.into_iter().enumerate() {
            assert_eq!(plan.position(2, client), Some(position));
        }
        let absent = (0..20).find(|user| !plan.chats[2].contains(user)).expect("of 20");
        assert_eq!(plan.position(2, absent * 3), None);
    }

    #[test]
    fn others_than_senders_are_in_as_many_chats() {
        let plan = Plan::with_senders(&SHAPE, 3).expect("possible");
        assert_eq!((plan.clients, plan.chats.len()), (23, 7));
        let mut chats = [0; 23];
        for (chat, members) in plan.chats.iter().enumerate() {
            assert_eq!(members.len(), 5);
            assert!(members.is_sorted_by(|one, next| one < next));
            // The sender is the first, and the only one.
            assert_eq!(members[0], chat as u32 % 3);
            assert!(members[1] >= 3);
            for user in members {
                chats[*user as usize] += 1;
            }
        }
        assert_eq!(chats[3..].iter().sum::<i32>(), 7 * 4);
        assert!(
            chats[3..].iter().all(|count| (1..=2).contains(count)),
            "{chats:?}"
        );
        // Everybody in each chat.
        let shape = Shape { clients: 4, ..SHAPE };
        let plan = Plan::with_senders(&shape, 1).expect("possible");
        assert!(plan.chats.iter().all(|members| *members == [0, 1, 2, 3, 4]));
        assert!(Plan::with_senders(&Shape { clients: 3, ..SHAPE }, 2).is_err());
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(sends(1), sends(1));
        assert_ne!(sends(1), sends(2));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for shape in [
            Shape { chats: 0, ..SHAPE },
            Shape { members: 1, ..SHAPE },
            Shape {
                members: 101,
                clients: 200,
                ..SHAPE
            },
            Shape { members: 21, ..SHAPE },
            Shape { devices: 3, ..SHAPE },
            Shape {
                devices: 5,
                members: 5,
                ..SHAPE
            },
        ] {
            assert!(Plan::new(&shape).is_err(), "{shape:?}");
        }
    }

    #[test]
    fn messages_know_their_run_and_number() {
        let run = Run::new();
        for number in [0, 1, 255, 256, 1 << 40] {
            let id = run.message_id(number);
            assert_eq!(id.0.get_version_num(), 8);
            assert_eq!(run.number(id), Some(number));
        }
        let mut other = run;
        other.0[0] ^= 1;
        assert_eq!(other.number(run.message_id(5)), None);
    }
}
