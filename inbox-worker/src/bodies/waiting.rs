//! Bodies that entries refer to, and when it is looked again whether they still do. Pure.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tidings_nats::Shard;

/// A body is looked at first when its list is so old that whoever is connected has confirmed; then each time after
/// twice as long, so that one that waits for somebody who is away for a month is looked at hourly.
const DELAY_MIN: Duration = Duration::from_secs(5);
/// How long a body stays at most when it is not needed any more.
const DELAY_MAX: Duration = Duration::from_hours(1);
/// Bodies that are remembered: as many as BODIES holds with its default bounds, 100 bytes each. Others are found when all
/// are looked for again.
const BODIES_MAX: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// By the sequence of the list.
    bodies: HashMap<u64, Body>,
    due: BTreeSet<(Instant, u64)>,
    /// Some were not remembered.
    pub(super) is_overfull: bool,
}

/// A body that waits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    /// Its sequence in BODIES.
    pub(super) sequence: u64,
    /// The entry that was there when it was looked last; None before.
    pub(super) awaited: Option<(Shard, u64)>,
    /// How many entries of its list are gone.
    pub(super) gone: u16,
    /// After how long it was looked at last.
    delay: Duration,
    due: Instant,
}

impl Waiting {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.bodies.len()
    }

    /// A list was found. One that is known is not.
    pub(super) fn add(&mut self, list: u64, body: u64, now: Instant) {
        if self.bodies.contains_key(&list) {
            return;
        }
        if self.bodies.len() >= BODIES_MAX {
            self.is_overfull = true;
            return;
        }
        let body = Body {
            sequence: body,
            awaited: None,
            gone: 0,
            delay: DELAY_MIN,
            due: now + DELAY_MIN,
        };
        self.due.insert((body.due, list));
        self.bodies.insert(list, body);
    }

    /// Those whose time has come, at most so many, the longest waiting first: by their lists.
    pub(super) fn due(&self, now: Instant, count: usize) -> Vec<(u64, Body)> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now);
        due.take(count)
            .map(|(_, list)| (*list, self.bodies[list]))
            .collect()
    }

    /// It is not needed any more.
    pub(super) fn remove(&mut self, list: u64) {
        if let Some(body) = self.bodies.remove(&list) {
            self.due.remove(&(body.due, list));
        }
    }

    /// It was looked at, and this entry is there.
    pub(super) fn awaits(&mut self, list: u64, awaited: (Shard, u64), gone: usize, now: Instant) {
        self.put_back(list, now, |body| {
            body.awaited = Some(awaited);
            body.gone = gone.try_into().unwrap_or(u16::MAX);
        });
    }

    /// It could not be looked at.
    pub(super) fn try_again(&mut self, list: u64, now: Instant) {
        self.put_back(list, now, |_| ());
    }

    fn put_back(&mut self, list: u64, now: Instant, change: impl FnOnce(&mut Body)) {
        let Some(body) = self.bodies.get_mut(&list) else {
            return;
        };
        self.due.remove(&(body.due, list));
        change(body);
        body.delay = (body.delay * 2).min(DELAY_MAX);
        body.due = now + body.delay;
        self.due.insert((body.due, list));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_at_ever_less_often() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        waiting.add(2, 1, start);
        waiting.add(2, 1, start + DELAY_MIN);
        assert_eq!(waiting.due(start, 9), []);
        let mut looks = Vec::new();
        for second in 0..20_000 {
            let now = start + Duration::from_secs(second);
            for (list, body) in waiting.due(now, 9) {
                assert_eq!((list, body.sequence), (2, 1));
                waiting.awaits(list, (Shard(3), 7), 2, now);
                looks.push(second);
            }
        }
        assert_eq!(looks[..5], [5, 15, 35, 75, 155]);
        let last = looks.windows(2).last().expect("there are many");
        assert_eq!(last[1] - last[0], 3_600);
        let body = waiting.bodies[&2];
        assert_eq!((body.awaited, body.gone), (Some((Shard(3), 7)), 2));
        waiting.remove(2);
        assert!(waiting.due.is_empty() && waiting.len() == 0);
        waiting.try_again(2, start);
        assert!(waiting.due.is_empty());
    }

    #[test]
    fn a_round_takes_the_longest_waiting() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        for list in (1..=9).rev() {
            waiting.add(list, 100 + list, start + Duration::from_secs(list));
        }
        let due = waiting.due(start + Duration::from_hours(1), 3);
        let lists: Vec<u64> = due.into_iter().map(|(list, _)| list).collect();
        assert_eq!(lists, [1, 2, 3]);
    }
}
