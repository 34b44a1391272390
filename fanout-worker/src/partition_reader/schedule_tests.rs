//! Readers against the model of their consumer, under generated schedules: connections break, messages get lost,
//! leaders change, workers come and go. A failure names its seed; `TIDINGS_SEED=<seed>` runs that one alone,
//! `TIDINGS_SEEDS=<count>` runs more than usual.

use std::time::Duration;

use super::Event;
use super::world::{Answer, World};

/// A generator that gives the same for the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A world, and what happens to it.
struct Schedule {
    random: Random,
    chats: u64,
    world: World,
}

impl Schedule {
    fn new(seed: u64, workers: usize, chats: u64) -> Self {
        Self {
            random: Random(seed),
            chats,
            world: World::new(workers, true),
        }
    }

    fn publish(&mut self) {
        let chat = self.random.below(self.chats);
        self.world.publish(chat);
    }

    fn work(&mut self, worker: usize) {
        let count = self.world.workers[worker].running.len() as u64;
        if count > 0 {
            let place = self.random.below(count) as usize;
            let _ = self.random.chance(50) && self.world.tell_all(worker, place)
                || self.random.chance(70) && self.world.end_work(worker, place, true)
                || self.world.end_work(worker, place, false);
        }
    }

    fn trouble(&mut self, worker: usize) {
        match self.random.below(12) {
            0 => {
                if self.world.workers[worker].connected {
                    self.world.disconnect(worker, true);
                } else {
                    self.world.reconnect(worker);
                }
            }
            1 if self.world.workers[worker].connected => {
                self.world.disconnect(worker, false);
                self.world.reconnect(worker);
            }
            2 => {
                // Lost on the way, and noticed, or not.
                if let Some(Answer::Output(..)) = self.world.workers[worker].answers.front() {
                    self.world.workers[worker].answers.pop_front();
                    if self.random.chance(50) {
                        self.world.tell(worker, Event::Doubt);
                    }
                }
            }
            3 => {
                let forgetful = self.random.chance(50);
                self.world.consumer.change_leader(forgetful);
                self.world.spread();
            }
            4 => {
                // A reset that was sent long ago and took its time.
                self.world.consumer.reset(self.world.now);
                self.world.spread();
            }
            5 => self.world.tell(worker, Event::Release),
            6 => {
                let reluctant = self.random.chance(50);
                self.world.tell(worker, Event::Reluctant(reluctant));
            }
            7 => {
                let allowed = !self.world.workers[worker].allowed;
                self.world.workers[worker].allowed = allowed;
                self.world
                    .tell(worker, if allowed { Event::Resume } else { Event::Suspend });
            }
            // Killed: its work is left half done, and nobody hears of it.
            8 if self.world.workers.len() < 8 && self.random.chance(30) => {
                self.world.disconnect(worker, false);
                self.world.workers[worker].running.clear();
                self.world.workers[worker].ended = true;
                self.world.add_worker();
            }
            9 if self.random.chance(20) => {
                let within = Duration::from_secs(2);
                self.world.tell(worker, Event::Stop { within });
                if self.world.workers.len() < 8 {
                    self.world.add_worker();
                }
            }
            10 => self.world.pass(Duration::from_secs(self.random.0 % 8)),
            _ => {}
        }
    }

    fn step(&mut self, trouble_percent: u64) {
        let worker = self.random.below(self.world.workers.len() as u64) as usize;
        if self.world.workers[worker].ended {
            return;
        }
        match self.random.below(10) {
            0 => self.publish(),
            1..=3 => {
                self.world.serve(worker);
            }
            4..=6 => {
                self.world.hear(worker);
            }
            7 | 8 => self.work(worker),
            _ => {
                let time = Duration::from_millis(self.random.below(120));
                self.world.pass(time);
            }
        }
        let worker = self.random.below(self.world.workers.len() as u64) as usize;
        if !self.world.workers[worker].ended && self.random.chance(trouble_percent) {
            self.trouble(worker);
        }
    }
}

/// Runs a scenario for each seed and says which one failed, with the end of its log.
fn for_seeds(count: u64, scenario: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let more = std::env::var("TIDINGS_SEEDS").ok();
    let more = more.map(|count| count.parse().expect("TIDINGS_SEEDS is a number"));
    let seeds = match std::env::var("TIDINGS_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("TIDINGS_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..more.unwrap_or(count),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| scenario(seed)) {
            eprintln!("seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Says the end of the log when the scenario fails.
impl Drop for Schedule {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.world.log.as_deref().unwrap_or_default();
            for line in &log[log.len().saturating_sub(120)..] {
                eprintln!("{line}");
            }
        }
    }
}

fn all_done(world: &World) -> bool {
    world.consumer.stored.is_empty()
}

#[test]
fn whatever_happens_nothing_is_lost_and_chats_stay_in_order() {
    for_seeds(200, |seed| {
        let mut schedule = Schedule::new(seed, 1 + (seed % 3) as usize, 1 + seed % 5);
        for _ in 0..3_000 {
            schedule.step(seed % 13);
        }
        let world = &mut schedule.world;
        world.calm();
        // What was lost unnoticed comes again after the consumer's ack wait.
        let settled = world.settle(Duration::from_mins(3), all_done);
        let left = world.consumer.stored.len();
        assert!(settled.is_some(), "{left} events are left");
        let done = world.done.len() as u64;
        assert_eq!(done, world.consumer.last, "everything was done");
    });
}

#[test]
fn another_takes_over_within_ten_seconds() {
    for_seeds(100, |seed| {
        let mut schedule = Schedule::new(seed, 2, 3);
        for worker in 0..2 {
            schedule.world.tell(worker, Event::Reluctant(seed % 2 == 0));
        }
        for _ in 0..1_000 {
            schedule.step(0);
        }
        let dead = (0..10_000).find_map(|_| {
            schedule.step(0);
            schedule.world.pinned()
        });
        let dead = dead.expect("one is pinned");
        schedule.world.disconnect(dead, false);
        schedule.world.workers[dead].ended = true;
        schedule.publish();
        let took = schedule.world.settle(Duration::from_mins(1), all_done);
        let took = took.expect("everything is done");
        assert!(took < Duration::from_secs(10), "took over after {took:?}");
    });
}

#[test]
fn a_release_hands_over_without_waiting_for_the_pin_to_expire() {
    for_seeds(100, |seed| {
        let mut schedule = Schedule::new(seed, 2, 3);
        let settle = |schedule: &mut Schedule, seconds, done: &dyn Fn(&World) -> bool| {
            schedule.world.settle(Duration::from_secs(seconds), done)
        };
        schedule.publish();
        settle(&mut schedule, 10, &all_done).expect("it is done");
        let first = schedule.world.pinned().expect("one is pinned");
        let other = 1 - first;
        schedule.world.tell(first, Event::Release);
        settle(&mut schedule, 1, &|world| !world.consumer.pinned()).expect("it is given away at once");
        schedule.publish();
        settle(&mut schedule, 1, &|world| world.pinned() == Some(other))
            .expect("the other one takes it at once");
        let within = Duration::from_secs(5);
        schedule.world.tell(other, Event::Stop { within });
        settle(&mut schedule, 2, &|world| world.workers[other].ended).expect("it ends");
        schedule.publish();
        settle(&mut schedule, 6, &all_done).expect("the first one takes it again after its rest");
    });
}

#[test]
fn a_quiet_partition_keeps_its_pin() {
    let mut world = World::new(2, false);
    world.publish(0);
    world
        .settle(Duration::from_secs(10), all_done)
        .expect("it is done");
    let pinned = world.pinned();
    for _ in 0..100 {
        world.settle(Duration::from_secs(1), |_| false);
        assert!(world.consumer.pinned());
    }
    assert_eq!(world.pinned(), pinned);
    let resets: u64 = world.workers.iter().map(|worker| worker.reader.resets()).sum();
    assert_eq!(resets, 1);
}
