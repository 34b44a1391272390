//! Sessions against the model of their bus, under generated schedules. A failure names its seed;
//! `TIDINGS_SEED=<seed>` runs that one alone, `TIDINGS_SEEDS=<count>` runs more than usual.

use tidings_protocol::WINDOW_BYTES_MAX;

use super::bus_model::{Move, World};

/// A generator that gives the same for the same seed on every machine.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What a schedule is made of.
struct Schedule {
    random: Random,
    workers: usize,
    chats: usize,
    /// Of a hundred moves, how many are trouble.
    trouble: usize,
    /// Of a hundred moves, how many go for new events.
    load: usize,
    /// Events may be told before they are stored.
    direct: bool,
}

impl Schedule {
    fn next(&mut self) -> Move {
        let worker = self.random.below(self.workers);
        let chat = self.random.below(self.chats);
        let dice = self.random.below(100);
        if dice < self.trouble {
            return self.trouble(worker, chat);
        }
        if dice < self.trouble + self.load {
            return match self.random.below(if self.direct { 6 } else { 3 }) {
                0 => Move::Begin { worker, chat },
                1 => Move::Store { worker, chat },
                2 => Move::Notify { worker, chat },
                3 => Move::StoreHeld { worker, chat },
                _ => Move::TellDirectly { worker, chat },
            };
        }
        if self.direct && self.random.below(4) == 0 {
            return Move::Answered { worker };
        }
        match self.random.below(21) {
            0..=3 => Move::Hear { worker },
            4..=6 => Move::Mail,
            7..=9 => Move::Answer {
                behind: 0,
                most: usize::MAX,
            },
            10 | 11 => Move::Finish,
            12 | 13 => Move::Return,
            14 => Move::Confirm {
                place: self.random.below(4),
            },
            15 => Move::ConfirmThrough {
                place: self.random.below(4),
            },
            16 => Move::Delete {
                place: self.random.below(2),
            },
            17 => Move::LearnSession { worker },
            18 => Move::LearnClient { worker },
            19 => Move::Clear,
            _ => Move::Beacon { worker },
        }
    }

    fn trouble(&mut self, worker: usize, chat: usize) -> Move {
        match self.random.below(64) {
            0..=2 if self.direct => Move::LoseAnswer { worker },
            0..=11 => Move::Lose { worker },
            12..=15 => Move::Double { worker },
            16..=27 => Move::Answer {
                behind: self.random.below(4),
                most: 1 + self.random.below(3),
            },
            28..=41 => Move::Hand { chat, to: worker },
            42..=44 => Move::Doubt,
            45..=48 => Move::Check {
                behind: self.random.below(3),
            },
            49..=51 => Move::ConfirmWrongly {
                delivery: self.random.below(30) as u64,
                through: self.random.below(2) == 0,
            },
            52..=54 => Move::Expire,
            55 => Move::StoreUnreadable,
            56 => Move::StoreAgain,
            57 | 58 => Move::Silence { worker },
            59 => Move::Die { worker },
            60 => Move::Expel { worker },
            61 => Move::Replace,
            _ => Move::Finish,
        }
    }
}

/// The seeds of a run.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| {
        let value = std::env::var(name).ok();
        value.map(|value| value.parse::<u64>().expect("it is a number"))
    };
    match number("TIDINGS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDINGS_SEEDS").unwrap_or(usual),
    }
}

fn run(seed: u64, log: &mut Vec<Move>) {
    let mut random = Random(seed);
    let bytes = [
        100,
        WINDOW_BYTES_MAX / 5,
        WINDOW_BYTES_MAX / 2,
        WINDOW_BYTES_MAX / 2 + 1,
    ][random.below(4)];
    let mut schedule = Schedule {
        workers: 1 + random.below(3),
        chats: 1 + random.below(3),
        trouble: random.below(4) * 8,
        load: 5 + random.below(4) * 10,
        direct: !seed.is_multiple_of(3),
        random,
    };
    let mut world = World::new(schedule.workers, schedule.chats, bytes);
    world.events = true;
    world.direct = schedule.direct;
    if schedule.random.below(2) == 0 {
        world.settle();
    }
    let length = schedule.random.below(150);
    for _ in 0..10 * length {
        let step = schedule.next();
        if world.apply(step) {
            log.push(step);
        }
        if log.len() >= length {
            break;
        }
    }
    world.settle();
}

/// Everything stored is delivered, once, in order within a chat, and the client is told once that it is caught up.
#[test]
fn nothing_is_lost_doubled_or_reordered() {
    for seed in seeds(3_000) {
        let mut log = Vec::new();
        let run = std::panic::AssertUnwindSafe(|| run(seed, &mut log));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed} failed after {} moves:", log.len());
            for step in log.iter().rev().take(80).rev() {
                eprintln!("  {step:?}");
            }
            std::panic::resume_unwind(panic);
        }
    }
}
