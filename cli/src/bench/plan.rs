//! Who sends what to whom: drawn from a seed, so that nothing that happens while the load runs has a say in it.

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{RngExt as _, SeedableRng as _};
use tidings_protocol::{MessageId, PARTICIPANTS_MAX};
use uuid::Builder;

/// The shape of the load.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Shape {
    /// Clients online.
    pub(crate) clients: u32,
    /// Chats among them.
    pub(crate) chats: u32,
    /// Members of each chat.
    pub(crate) members: u32,
    /// The same seed is the same plan.
    pub(crate) seed: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Of each chat the clients in it, in order. The first of them makes the chat.
    pub(crate) chats: Vec<Vec<u32>>,
    /// Of each chat.
    pub(crate) members: u32,
    /// Of the messages.
    seed: u64,
}

/// A message to send.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Send {
    /// Index into [`Plan::chats`].
    pub(crate) chat: u32,
    /// Index into the chat's members.
    pub(crate) position: u32,
}

/// Messages without an end.
#[derive(Debug)]
pub(crate) struct Sends {
    rng: StdRng,
    chats: u32,
    members: u32,
}

impl Plan {
    /// Members, chats and senders are drawn evenly.
    pub(crate) fn new(shape: &Shape) -> anyhow::Result<Self> {
        let Shape {
            clients,
            chats,
            members,
            seed,
        } = *shape;
        ensure!(chats >= 1, "--chats must be at least 1");
        ensure!(
            (2..=PARTICIPANTS_MAX as u32).contains(&members),
            "--members must be 2 to {PARTICIPANTS_MAX}"
        );
        ensure!(
            members <= clients,
            "{members} members need at least as many --clients"
        );
        let mut rng = StdRng::seed_from_u64(seed);
        let chats: Vec<Vec<u32>> = (0..chats)
            .map(|_| {
                let mut chosen: Vec<u32> = index::sample(&mut rng, clients as usize, members as usize)
                    .into_iter()
                    .map(|client| client as u32)
                    .collect();
                chosen.sort_unstable();
                chosen
            })
            .collect();
        Ok(Self {
            chats,
            members,
            seed: rng.random(),
        })
    }

    /// All messages, always the same.
    pub(crate) fn sends(&self) -> Sends {
        Sends {
            rng: StdRng::seed_from_u64(self.seed),
            chats: self.chats.len() as u32,
            members: self.members,
        }
    }

    /// Who sends a message.
    pub(crate) fn sender(&self, send: Send) -> u32 {
        self.chats[send.chat as usize][send.position as usize]
    }

    /// Where a client stands among the members of a chat.
    pub(crate) fn position(&self, chat: u32, client: u32) -> Option<usize> {
        self.chats[chat as usize].binary_search(&client).ok()
    }

    /// How many clients are in any chat.
    pub(crate) fn senders(&self) -> usize {
        let mut clients: Vec<u32> = self.chats.iter().flatten().copied().collect();
        clients.sort_unstable();
        clients.dedup();
        clients.len()
    }
}

impl Sends {
    /// The next one.
    pub(crate) fn draw(&mut self) -> Send {
        Send {
            chat: self.rng.random_range(0..self.chats),
            position: self.rng.random_range(0..self.members),
        }
    }
}

/// One run of the load generator: its messages carry their numbers in their ids.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
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
