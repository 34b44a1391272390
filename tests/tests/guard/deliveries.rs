//! What a delivery costs the gateway and the fan-out worker, in allocations.

use futures::future::join_all;
use tidings_protocol::{ChatId, UserId};
use tidings_tests::{Device, Stored, eventually};

use crate::bounds::{FANOUT_WORKER_A_MESSAGE, GATEWAY_A_MESSAGE};
use crate::guarded::Guarded;

/// Four chats of ten, of which each of these is in two.
const PEOPLE: usize = 20;
const CHATS: usize = 4;
const IN_A_CHAT: usize = 10;
const MESSAGES: usize = 200;
/// After so many, everybody is told directly, and what is made once was made.
const WARM_MESSAGES: usize = 80;
const MESSAGE_BYTES: usize = 200;
/// Of all messages the cheapest hundredth is passed over, and the next one counts. What goes on beside the messages, beacons,
/// pulls and heartbeats, only adds, and most messages have something of it: each is over when a round of deletions is
/// (adr/0019). So does a machine on which what goes together goes one by one. Of a cost of each delivery no message is without.
const RANK: usize = MESSAGES / 100;
/// If that is too much it is counted again, so often at most: a slow machine has little time between two beacons.
const ROUNDS: usize = 3;
/// Those that are counted, and how often, and how many bytes, they may allocate.
const PROCESSES: [(&str, [u64; 2]); 2] = [
    ("gateway-1", GATEWAY_A_MESSAGE),
    ("fanout-worker-1", FANOUT_WORKER_A_MESSAGE),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_allocates_no_more_than_it_did() {
    let guarded = Guarded::start().await;
    let mut crowd = Crowd::meet(&guarded).await;
    let now = || PROCESSES.map(|(name, _)| guarded.allocations(name));
    for message in 0..WARM_MESSAGES {
        crowd.say(message).await;
    }
    let mut too_much = Vec::new();
    for round in 0..ROUNDS {
        let mut costs = [[const { Vec::new() }; 2], [const { Vec::new() }; 2]];
        let mut before = now();
        for message in 0..MESSAGES {
            crowd.say(round * MESSAGES + message).await;
            let after = now();
            for process in 0..PROCESSES.len() {
                let (before, after) = (before[process], after[process]);
                costs[process][0].push(after.count - before.count);
                costs[process][1].push(after.bytes - before.bytes);
            }
            before = after;
        }
        too_much = judge(&mut costs);
        if too_much.is_empty() {
            break;
        }
    }
    assert!(
        too_much.is_empty(),
        "{too_much:?} for a message to nine: see bounds.rs"
    );
}

/// Says what everything costs, and gives what costs more than it may.
fn judge(costs: &mut [[Vec<u64>; 2]; 2]) -> Vec<String> {
    let mut too_much = Vec::new();
    for ((name, most), costs) in PROCESSES.iter().zip(costs) {
        for ((what, most), costs) in ["times", "bytes"].iter().zip(most).zip(costs) {
            costs.sort_unstable();
            let told = [0, RANK, MESSAGES / 2, MESSAGES * 9 / 10].map(|rank| costs[rank]);
            eprintln!(
                "{name} allocates for a message, {what}: {told:?} (the least, and of a hundredth, a half and nine tenths the most)"
            );
            if costs[RANK] > *most {
                too_much.push(format!(
                    "{name} allocates {} {what}, more than {most}",
                    costs[RANK]
                ));
            }
        }
    }
    too_much
}

struct Crowd {
    people: Vec<Device>,
    chats: Vec<ChatId>,
    stored: Stored,
    text: String,
}

impl Crowd {
    async fn meet(guarded: &Guarded) -> Self {
        let system = &guarded.system;
        let mut people = Vec::new();
        for _ in 0..PEOPLE {
            people.push(Device::fresh(system, "guard").await);
        }
        let mut chats = Vec::new();
        for chat in 0..CHATS {
            let members: Vec<usize> = members(chat).collect();
            let others: Vec<UserId> = members[1..].iter().map(|who| people[*who].user_id()).collect();
            chats.push(people[members[0]].create_group(&others).await);
            for who in members {
                let update = people[who].update().await;
                people[who].confirm(update.delivery).await;
            }
        }
        let stored = Stored::of(system).await;
        Self {
            people,
            chats,
            stored,
            text: "x".repeat(MESSAGE_BYTES),
        }
    }

    /// A message, by everybody and to every chat in turn. Everybody confirms, and all of it is done in the end.
    async fn say(&mut self, message: usize) {
        let chat = message % CHATS;
        let members: Vec<usize> = members(chat).collect();
        let sender = members[(message / CHATS) % IN_A_CHAT];
        self.people[sender].say(self.chats[chat], &self.text).await;
        let others = self.people.iter_mut().enumerate();
        let others = others.filter(|(who, _)| *who != sender && members.contains(who));
        let hear = others.map(async |(_, device)| (device.message().await.delivery, device));
        // Confirmed when all have heard, all at once: the gateway's answers to the worker go together then.
        let heard = join_all(hear).await;
        join_all(
            heard
                .into_iter()
                .map(async |(delivery, device)| device.confirm(delivery).await),
        )
        .await;
        eventually("what everybody has confirmed is nowhere any more", async || {
            let left = self.stored.stream("CHATS").await.state.messages;
            if left == 0 { Ok(()) } else { Err(left) }
        })
        .await;
    }
}

/// Who is in a chat.
fn members(chat: usize) -> impl Iterator<Item = usize> {
    (0..IN_A_CHAT).map(move |member| (chat * PEOPLE / CHATS + member) % PEOPLE)
}
