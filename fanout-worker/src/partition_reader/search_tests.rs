//! Every state that two readers and a small consumer can be in, within bounds: each is reached, checked, and brought
//! to rest. `TIDINGS_SEARCH=<more>` adds so much to each bound that is not zero.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::Event;
use super::world::World;

/// One thing that can happen. What is not possible at the moment changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// An event of a chat is accepted.
    Publish { chat: u64 },
    /// The server takes the next thing that a worker has sent.
    Serve { worker: usize },
    /// A worker takes the next thing that the server has sent.
    Hear { worker: usize },
    /// What runs at this place is stored, or given up where it was cancelled.
    End {
        worker: usize,
        place: usize,
        abandon: bool,
    },
    /// Of what runs at this place, everybody is told.
    Tell { worker: usize, place: usize },
    /// Time passes.
    Pass { milliseconds: u64 },
    /// The next message to a worker is lost, and nobody notices.
    Lose { worker: usize },
    /// The connection breaks and is back at once.
    Reconnect { worker: usize },
    /// Another node leads the consumer, and may have forgotten what was delivered.
    ChangeLeader { forgetful: bool },
    /// A reset that was sent long ago arrives.
    LateReset,
    /// The worker gives the partition away.
    Release { worker: usize },
    /// The worker may not work any more.
    Suspend { worker: usize },
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Bounds {
    events: u8,
    told: u8,
    passes: u8,
    losses: u8,
    reconnects: u8,
    leaders: u8,
    resets: u8,
    releases: u8,
    suspensions: u8,
}

impl Bounds {
    /// What is left after this move; None if it is not to happen.
    fn after(mut self, step: Move) -> Option<Self> {
        let left = match step {
            Move::Publish { .. } => &mut self.events,
            Move::Tell { .. } => &mut self.told,
            Move::Pass { .. } => &mut self.passes,
            Move::Lose { .. } => &mut self.losses,
            Move::Reconnect { .. } => &mut self.reconnects,
            Move::ChangeLeader { .. } => &mut self.leaders,
            Move::LateReset => &mut self.resets,
            Move::Release { .. } => &mut self.releases,
            Move::Suspend { .. } => &mut self.suspensions,
            Move::Serve { .. } | Move::Hear { .. } | Move::End { .. } => return Some(self),
        };
        *left = left.checked_sub(1)?;
        Some(self)
    }

    fn and(self, more: u8) -> Self {
        let add = |bound: u8| if bound == 0 { 0 } else { bound + more };
        Self {
            events: add(self.events),
            told: add(self.told),
            passes: add(self.passes),
            losses: add(self.losses),
            reconnects: add(self.reconnects),
            leaders: add(self.leaders),
            resets: add(self.resets),
            releases: add(self.releases),
            suspensions: add(self.suspensions),
        }
    }
}

impl World {
    /// Does it, if it is possible, and says whether it was.
    fn apply(&mut self, step: Move) -> bool {
        match step {
            Move::Publish { chat } => self.publish(chat),
            Move::Serve { worker } => return self.serve(worker),
            Move::Hear { worker } => return self.hear(worker),
            Move::End {
                worker,
                place,
                abandon,
            } => return self.end_work(worker, place, abandon),
            Move::Tell { worker, place } => return self.tell_all(worker, place),
            Move::Pass { milliseconds } => self.pass(Duration::from_millis(milliseconds)),
            Move::Lose { worker } => return self.workers[worker].answers.pop_front().is_some(),
            Move::Reconnect { worker } => {
                self.disconnect(worker, false);
                self.reconnect(worker);
            }
            Move::ChangeLeader { forgetful } => {
                self.consumer.change_leader(forgetful);
                self.spread();
            }
            Move::LateReset => {
                self.consumer.reset(self.now);
                self.spread();
            }
            Move::Release { worker } => self.tell(worker, Event::Release),
            Move::Suspend { worker } => self.tell(worker, Event::Suspend),
        }
        true
    }
}

/// Everything that can happen somewhere. Time goes by as much as a reset waits for the one before it, as a pull waits
/// and a renewal comes, and as a pin and a delivery of what is not deleted last.
fn all_moves(workers: usize, chats: u64) -> Vec<Move> {
    let mut moves = vec![Move::LateReset];
    moves.extend([true, false].map(|forgetful| Move::ChangeLeader { forgetful }));
    moves.extend([500, 2_000, 6_000].map(|milliseconds| Move::Pass { milliseconds }));
    moves.extend((0..chats).map(|chat| Move::Publish { chat }));
    for worker in 0..workers {
        moves.extend([
            Move::Serve { worker },
            Move::Hear { worker },
            Move::Lose { worker },
            Move::Reconnect { worker },
            Move::Release { worker },
            Move::Suspend { worker },
        ]);
        for place in 0..2 {
            moves.push(Move::Tell { worker, place });
            moves.extend([true, false].map(|abandon| Move::End {
                worker,
                place,
                abandon,
            }));
        }
    }
    moves
}

/// Visits all states.
fn search(name: &str, first: World, chats: u64, bounds: Bounds) {
    let more = std::env::var("TIDINGS_SEARCH").ok();
    let more = more.map_or(0, |more| more.parse().expect("TIDINGS_SEARCH is a number"));
    let moves = all_moves(first.workers.len(), chats);
    // Two hashes for each state: that two of millions have both in common does not happen.
    let hashers = (RandomState::new(), RandomState::new());
    let mut seen = HashSet::new();
    let mut ways: Vec<(usize, Move)> = vec![(0, Move::LateReset)];
    let mut layer = vec![(0, first, bounds.and(more))];
    while !layer.is_empty() {
        let mut next_layer = Vec::new();
        for (place, world, left) in layer {
            for step in &moves {
                let Some(left) = left.after(*step) else { continue };
                let checked = catch_unwind(AssertUnwindSafe(|| {
                    let mut next = world.clone();
                    if !next.apply(*step) {
                        return None;
                    }
                    let state = (&next, left);
                    if !seen.insert((hashers.0.hash_one(state), hashers.1.hash_one(state))) {
                        return None;
                    }
                    rest(next.clone());
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

/// Everybody is well again: everything is done, by whoever.
fn rest(mut world: World) {
    world.calm();
    let settled = world.settle(Duration::from_mins(1), |world| world.consumer.stored.is_empty());
    let left = world.consumer.stored.len();
    assert!(settled.is_some(), "{left} events are left");
    assert_eq!(
        world.done.len() as u64,
        world.consumer.last,
        "everything was done"
    );
}

/// One is pinned and has nothing to do; the other one waits.
fn pinned() -> World {
    let mut world = World::new(2, false);
    world.publish(0);
    let settled = world.settle(Duration::from_secs(10), |world| world.consumer.stored.is_empty());
    settled.expect("it is done");
    world
}

#[test]
fn a_connection_that_breaks() {
    let bounds = Bounds {
        events: 2,
        reconnects: 1,
        passes: 1,
        ..Bounds::default()
    };
    search("reconnects", pinned(), 1, bounds);
}

#[test]
fn a_message_that_is_lost() {
    let bounds = Bounds {
        events: 2,
        losses: 1,
        passes: 1,
        ..Bounds::default()
    };
    search("losses", pinned(), 1, bounds);
}

#[test]
fn a_leader_that_changes_and_a_reset_that_comes_late() {
    let bounds = Bounds {
        events: 2,
        leaders: 1,
        resets: 1,
        ..Bounds::default()
    };
    search("leaders", pinned(), 1, bounds);
}

#[test]
fn a_partition_that_is_given_away() {
    let bounds = Bounds {
        events: 2,
        releases: 1,
        suspensions: 1,
        ..Bounds::default()
    };
    search("releases", pinned(), 2, bounds);
}

#[test]
fn what_is_told_before_it_is_finished() {
    let bounds = Bounds {
        events: 2,
        told: 2,
        reconnects: 1,
        ..Bounds::default()
    };
    search("told, reconnects", pinned(), 1, bounds);
    let bounds = Bounds {
        events: 2,
        told: 1,
        releases: 1,
        suspensions: 1,
        ..Bounds::default()
    };
    search("told, suspensions", pinned(), 1, bounds);
}
