//! Rounds beside what they should be, step by step: scripts, and generated schedules under paused time. A failure names its
//! seed; `TIDINGS_SEED=<seed>` runs that one alone, `TIDINGS_SEEDS=<count>` runs more than usual.

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep_until;
use uuid::Uuid;

use super::*;

const BOUNDS: Bounds = Bounds {
    length: Duration::from_millis(100),
    most: 6,
    most_of_chat: 3,
};

fn chat(number: u128) -> ChatId {
    ChatId(Uuid::from_u128(number))
}

/// What somebody does.
#[derive(Copy, Clone, Debug)]
enum Step {
    /// Comes, with something of a chat.
    Come(ChatId),
    /// Is in a hurry until so much later, in milliseconds.
    Hurry(Whose, u64),
}

use Step::{Come, Hurry as InHurry};

/// When each goes on who comes, both in milliseconds since the beginning.
async fn run(schedule: &[(u64, Step)]) -> Vec<u64> {
    let rounds = Rounds::new(BOUNDS);
    let began = Instant::now();
    let at = |milliseconds| began + Duration::from_millis(milliseconds);
    let steps = schedule.iter().map(|(time, step)| {
        let rounds = rounds.clone();
        async move {
            sleep_until(at(*time)).await;
            match step {
                Come(chat_id) => {
                    rounds.next(*chat_id).await;
                    Some(began.elapsed().as_millis() as u64)
                }
                InHurry(whose, length) => {
                    let _hurry = rounds.hurry(*whose);
                    sleep_until(at(*time + *length)).await;
                    None
                }
            }
        }
    });
    let went: Vec<u64> = join_all(steps).await.into_iter().flatten().collect();
    let state = rounds.state.lock();
    assert!(state.hurries.is_empty(), "nobody is in a hurry any more");
    assert!(
        state.chats.len() < BOUNDS.most,
        "no more places than there may be"
    );
    went
}

/// The same, by looking at all of the schedule for each moment. Times are in order and differ.
fn expected(schedule: &[(u64, Step)]) -> Vec<u64> {
    let in_hurry = |now: u64, chat_id: ChatId| {
        schedule.iter().any(|(since, step)| match step {
            InHurry(whose, length) => {
                (*since..since + length).contains(&now)
                    && ([Whose::All, Whose::Chat(chat_id)].contains(whose))
            }
            Come(_) => false,
        })
    };
    let mut went = Vec::new();
    // Who waits, and since when the first of them does.
    let mut waiting: Vec<ChatId> = Vec::new();
    let mut since = 0;
    let last = schedule.last().map_or(0, |(time, _)| *time);
    for now in 0..=last + BOUNDS.length.as_millis() as u64 {
        let over = now >= since + BOUNDS.length.as_millis() as u64;
        if over {
            went.extend(waiting.drain(..).map(|_| now));
        }
        let step = schedule.iter().find(|(time, _)| *time == now);
        if let Some((_, Come(chat_id))) = step {
            if waiting.is_empty() {
                since = now;
            }
            waiting.push(*chat_id);
        }
        let most_of_chat = waiting
            .iter()
            .map(|one| waiting.iter().filter(|other| *other == one).count());
        let full = waiting.len() >= BOUNDS.most || most_of_chat.max() >= Some(BOUNDS.most_of_chat);
        if full || waiting.iter().any(|chat_id| in_hurry(now, *chat_id)) {
            went.extend(waiting.drain(..).map(|_| now));
        }
    }
    went
}

async fn check(schedule: &[(u64, Step)], went: &[u64]) {
    assert_eq!(run(schedule).await, went, "{schedule:?}");
    assert_eq!(
        expected(schedule),
        went,
        "of {schedule:?} something else is expected"
    );
}

/// Comes at these times, each of a chat of its own.
fn come(times: &[u64]) -> Vec<(u64, Step)> {
    let come = |time: &u64| (*time, Come(chat(u128::from(*time))));
    times.iter().map(come).collect()
}

#[tokio::test(start_paused = true)]
async fn a_round_ends_for_all_when_it_is_over_for_the_first() {
    check(&come(&[0, 30, 99, 100, 150]), &[100, 100, 100, 200, 200]).await;
}

#[tokio::test(start_paused = true)]
async fn a_round_that_is_full_ends_at_once() {
    check(
        &come(&[0, 10, 20, 30, 40, 50, 60]),
        &[50, 50, 50, 50, 50, 50, 160],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_round_with_much_of_one_chat_ends_at_once() {
    let one = Come(chat(1));
    let schedule = [(0, one), (10, Come(chat(2))), (20, one), (30, one), (40, one)];
    check(&schedule, &[30, 30, 30, 30, 140]).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_chat_ends_the_round_and_those_that_follow() {
    let schedule = [
        (0, Come(chat(1))),
        (10, Come(chat(2))),
        (20, InHurry(Whose::Chat(chat(2)), 30)),
        (30, Come(chat(2))),
        // Others wait meanwhile, until something of that chat comes.
        (31, Come(chat(1))),
        (40, Come(chat(2))),
        (50, Come(chat(2))),
    ];
    check(&schedule, &[20, 20, 30, 40, 40, 150]).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_chat_that_is_not_there_ends_nothing() {
    let schedule = [
        (0, Come(chat(1))),
        (1, Come(chat(9))),
        (20, InHurry(Whose::Chat(chat(2)), 30)),
    ];
    check(&schedule, &[100, 100]).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_all_lets_nobody_wait() {
    let schedule = [
        (0, Come(chat(1))),
        (20, InHurry(Whose::All, 30)),
        (30, Come(chat(9))),
        (31, InHurry(Whose::All, 5)),
        (40, Come(chat(1))),
        (50, Come(chat(1))),
    ];
    check(&schedule, &[20, 30, 40, 150]).await;
}

/// Moments that all differ, so that nothing hangs on who is first at one of them: steps are at even ones, and hurries end at
/// odd ones.
fn generate(seed: u64) -> Vec<(u64, Step)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut times: Vec<u64> = (0..random.random_range(20..400)).map(|time| 2 * time).collect();
    times.shuffle(&mut random);
    times.truncate(random.random_range(1..60));
    times.sort_unstable();
    let chats = random.random_range(1..6);
    let hurries = random.random_range(0..30);
    let mut some_chat = || chat(random.random_range(0..chats));
    let of: Vec<ChatId> = times.iter().map(|_| some_chat()).collect();
    let steps = times.into_iter().zip(of).map(|(time, chat_id)| {
        let step = if random.random_range(0..100) < hurries {
            let all = random.random_bool(0.3);
            let whose = if all { Whose::All } else { Whose::Chat(chat_id) };
            InHurry(whose, 1 + 2 * random.random_range(0..75))
        } else {
            Come(chat_id)
        };
        (time, step)
    });
    steps.collect()
}

#[tokio::test(start_paused = true)]
async fn rounds_are_what_they_should_be() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let seeds = match number("TIDINGS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDINGS_SEEDS").unwrap_or(500),
    };
    for seed in seeds {
        let schedule = generate(seed);
        let (went, expected) = (run(&schedule).await, expected(&schedule));
        assert_eq!(went, expected, "TIDINGS_SEED={seed}: {schedule:?}");
    }
}
