//! Every state that a session and a small bus can be in, within bounds: each is reached, checked, and brought to
//! rest. `TIDINGS_SEARCH=<more>` adds so much to each bound that is not zero.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tidings_protocol::WINDOW_BYTES_MAX;

use super::bus_model::{Move, World};

/// How often something may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Bounds {
    events: u8,
    losses: u8,
    copies: u8,
    hands: u8,
    deaths: u8,
    silences: u8,
    doubts: u8,
    checks: u8,
    expiries: u8,
    replacements: u8,
    /// Readings that are answered by a replica which is behind, or in part.
    partial: u8,
}

impl Bounds {
    /// What is left after this move; None if it is not to happen.
    fn after(mut self, step: Move, world: &World) -> Option<Self> {
        let left = match step {
            Move::Begin { chat, .. } if world.is_idle(chat) => &mut self.events,
            Move::Lose { .. } => &mut self.losses,
            Move::Double { .. } => &mut self.copies,
            Move::Hand { .. } => &mut self.hands,
            Move::Die { .. } | Move::Expel { .. } => &mut self.deaths,
            Move::Silence { .. } => &mut self.silences,
            Move::Doubt => &mut self.doubts,
            Move::Check { .. } => &mut self.checks,
            Move::Expire => &mut self.expiries,
            Move::Replace => &mut self.replacements,
            Move::Answer { behind: 0, most } if most > 1 => return Some(self),
            Move::Answer { .. } => &mut self.partial,
            _ => return Some(self),
        };
        *left = left.checked_sub(1)?;
        Some(self)
    }

    fn and(self, more: u8) -> Self {
        let add = |bound: u8| if bound == 0 { 0 } else { bound + more };
        Self {
            events: add(self.events),
            losses: add(self.losses),
            copies: add(self.copies),
            hands: add(self.hands),
            deaths: add(self.deaths),
            silences: add(self.silences),
            doubts: add(self.doubts),
            checks: add(self.checks),
            expiries: add(self.expiries),
            replacements: add(self.replacements),
            partial: add(self.partial),
        }
    }
}

/// Everything that can happen somewhere.
fn all_moves(workers: usize, chats: usize) -> Vec<Move> {
    let mut moves = vec![
        Move::Mail,
        Move::Clear,
        Move::Finish,
        Move::Return,
        Move::Delete { place: 0 },
        Move::Doubt,
        Move::Check { behind: 0 },
        Move::Expire,
        Move::Replace,
        Move::Confirm { place: 0 },
        Move::Confirm { place: 1 },
        Move::ConfirmThrough { place: 1 },
    ];
    for (behind, most) in [(0, usize::MAX), (1, usize::MAX), (0, 1)] {
        moves.push(Move::Answer { behind, most });
    }
    for worker in 0..workers {
        moves.extend([
            Move::LearnSession { worker },
            Move::LearnClient { worker },
            Move::Beacon { worker },
            Move::Hear { worker },
            Move::Lose { worker },
            Move::Double { worker },
            Move::Die { worker },
            Move::Expel { worker },
            Move::Silence { worker },
        ]);
        for chat in 0..chats {
            moves.extend([
                Move::Begin { worker, chat },
                Move::Store { worker, chat },
                Move::Notify { worker, chat },
                Move::Hand { chat, to: worker },
            ]);
        }
    }
    moves
}

/// Visits all states and says how many there are. What is `eager` happens as soon as it can: it is not what this
/// search is about, and would multiply the states.
fn search(name: &str, first: World, bounds: Bounds, eager: &[Move]) -> usize {
    let more = std::env::var("TIDINGS_SEARCH").ok();
    let more = more.map_or(0, |more| more.parse().expect("TIDINGS_SEARCH is a number"));
    let mut moves = all_moves(first.workers.len(), first.chats.len());
    moves.retain(|step| !eager.contains(step));
    // Two hashes for each state: that two of millions have both in common does not happen.
    let hashers = (RandomState::new(), RandomState::new());
    let mut seen = HashSet::new();
    let mut ways: Vec<(usize, Move)> = vec![(0, Move::Doubt)];
    let mut layer = vec![(0, first, bounds.and(more))];
    while !layer.is_empty() {
        let mut next_layer = Vec::new();
        for (place, world, left) in layer {
            for step in &moves {
                let Some(left) = left.after(*step, &world) else {
                    continue;
                };
                let checked = catch_unwind(AssertUnwindSafe(|| {
                    let mut next = world.clone();
                    if !next.apply(*step) {
                        return None;
                    }
                    while eager.iter().any(|step| next.apply(*step)) {}
                    let state = (&next, left);
                    if !seen.insert((hashers.0.hash_one(state), hashers.1.hash_one(state))) {
                        return None;
                    }
                    next.clone().settle();
                    Some(next)
                }));
                match checked {
                    Ok(None) => {}
                    Ok(Some(next)) => {
                        ways.push((place, *step));
                        next_layer.push((ways.len() - 1, next, left));
                    }
                    Err(panic) => {
                        eprintln!("{name}: the shortest way there, and then rest:");
                        for step in way(&ways, place).iter().chain([step]) {
                            eprintln!("  {step:?}");
                        }
                        resume_unwind(panic);
                    }
                }
            }
        }
        layer = next_layer;
    }
    println!("{name}: {} states", ways.len());
    ways.len()
}

fn way(ways: &[(usize, Move)], mut place: usize) -> Vec<Move> {
    let mut steps = Vec::new();
    while place > 0 {
        steps.push(ways[place].1);
        place = ways[place].0;
    }
    steps.reverse();
    steps
}

fn live(workers: usize, chats: usize, bytes: usize) -> World {
    let mut world = World::new(workers, chats, bytes);
    world.settle();
    world
}

/// The worker stores as soon as it knows for whom.
const STORE: [Move; 4] = [
    Move::Store { worker: 0, chat: 0 },
    Move::Store { worker: 1, chat: 0 },
    Move::Store { worker: 0, chat: 1 },
    Move::Store { worker: 1, chat: 1 },
];

#[test]
fn a_live_session_and_a_chat_that_moves() {
    let bounds = Bounds {
        events: 2,
        losses: 1,
        hands: 1,
        ..Bounds::default()
    };
    let eager = [
        &STORE[..2],
        &[Move::Mail, Move::Delete { place: 0 }, Move::Finish],
    ]
    .concat();
    search("moves", live(2, 1, 100), bounds, &eager);
}

#[test]
fn a_live_session_and_replicas_that_are_behind() {
    let bounds = Bounds {
        events: 3,
        losses: 1,
        partial: 1,
        ..Bounds::default()
    };
    let eager = [
        Move::Store { worker: 0, chat: 0 },
        Move::Mail,
        Move::Delete { place: 0 },
    ];
    search("replicas", live(1, 1, 100), bounds, &eager);
}

#[test]
fn a_session_that_begins() {
    let bounds = Bounds {
        events: 1,
        losses: 1,
        ..Bounds::default()
    };
    let clients = [Move::LearnClient { worker: 0 }, Move::LearnClient { worker: 1 }];
    let session = [Move::Mail, Move::Delete { place: 0 }, Move::Finish];
    let eager = [&clients[..], &STORE[..2], &session].concat();
    search("begins", World::new(2, 1, 100), bounds, &eager);
}

#[test]
fn a_client_that_inherits() {
    let bounds = Bounds {
        events: 2,
        ..Bounds::default()
    };
    let eager = [Move::Mail, Move::Delete { place: 0 }, Move::Finish];
    search("heir", World::new(1, 1, 100), bounds, &eager);
}

#[test]
fn a_window_of_one() {
    let bounds = Bounds {
        events: 3,
        doubts: 1,
        partial: 1,
        ..Bounds::default()
    };
    let eager = [
        Move::Store { worker: 0, chat: 0 },
        Move::Mail,
        Move::Delete { place: 0 },
    ];
    search("window", live(1, 1, WINDOW_BYTES_MAX / 2 + 1), bounds, &eager);
}

#[test]
fn a_window_that_is_more_than_half_full() {
    let bounds = Bounds {
        events: 4,
        doubts: 1,
        ..Bounds::default()
    };
    let eager = [
        Move::Store { worker: 0, chat: 0 },
        Move::Notify { worker: 0, chat: 0 },
        Move::Hear { worker: 0 },
        Move::Mail,
        Move::Delete { place: 0 },
    ];
    search("half", live(1, 1, WINDOW_BYTES_MAX / 5), bounds, &eager);
}

#[test]
fn workers_that_die() {
    let bounds = Bounds {
        events: 1,
        losses: 1,
        deaths: 1,
        silences: 1,
        ..Bounds::default()
    };
    let eager = [
        &STORE[..2],
        &[Move::Mail, Move::Delete { place: 0 }, Move::Finish, Move::Return],
    ]
    .concat();
    search("deaths", live(2, 1, 100), bounds, &eager);
}

#[test]
fn connections_that_replace_each_other() {
    let bounds = Bounds {
        events: 2,
        replacements: 1,
        ..Bounds::default()
    };
    let eager = [Move::Store { worker: 0, chat: 0 }, Move::Mail, Move::Finish];
    search("replaced", live(1, 1, 100), bounds, &eager);
}

#[test]
fn entries_that_expire() {
    let bounds = Bounds {
        events: 2,
        expiries: 1,
        checks: 1,
        ..Bounds::default()
    };
    let eager = [
        Move::Store { worker: 0, chat: 0 },
        Move::Mail,
        Move::Delete { place: 0 },
    ];
    search("expiries", live(1, 1, 100), bounds, &eager);
}
