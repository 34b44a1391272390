//! What a reading of several subjects has found, and up to where nothing is missing from it. Pure: each subject is
//! read at another moment, by whichever replica, while entries are stored; then the stream's leader is asked what follows.

/// See the module. `M` is a message.
#[derive(Debug)]
pub(super) struct Found<M> {
    /// By sequence, in no order.
    messages: Vec<(u64, M)>,
    /// Up to where each subject was read.
    read: Vec<u64>,
    /// Whether each subject was read to what seemed to be its end.
    open: Vec<bool>,
    /// Beyond this, a subject that was not read to its end may hold something.
    bound: u64,
    /// Up to here nothing is missing.
    verified: u64,
    /// The leader says that nothing follows where subjects were read to their end.
    ended: bool,
}

impl<M> Found<M> {
    /// Nothing, of so many subjects that all were read up to a sequence.
    pub(super) fn new(read_up_to: u64, subjects: usize) -> Self {
        Self {
            messages: Vec::new(),
            read: vec![read_up_to; subjects],
            open: vec![true; subjects],
            bound: u64::MAX,
            verified: read_up_to,
            ended: false,
        }
    }

    /// What follows in a subject, without a hole, and whether there is more.
    pub(super) fn add(&mut self, subject: usize, messages: impl IntoIterator<Item = (u64, M)>, more: bool) {
        let before = self.messages.len();
        self.messages.extend(messages);
        if let Some((last, _)) = self.messages[before..].last() {
            self.read[subject] = *last;
            if more {
                self.open[subject] = false;
                self.bound = self.bound.min(*last);
            }
        }
    }

    /// What the leader must be asked: from which sequence on, in which subjects.
    pub(super) fn questions(&self) -> impl Iterator<Item = (usize, u64)> {
        let subjects = self.read.iter().zip(&self.open).enumerate();
        subjects
            .filter(|(_, (_, open))| **open)
            .map(|(subject, (read, _))| (subject, read + 1))
    }

    /// What the leader answered to all of them, after everything before was found. True if nothing follows.
    pub(super) fn answers(&mut self, next: Vec<(usize, u64, M)>) -> bool {
        // Whatever was found was stored before the leader was asked, and so was everything before it: up to the last
        // of it, only what the leader has now named can be missing, or follow what it has named.
        let last = self.messages.iter().map(|(sequence, _)| *sequence).max();
        self.verified = last.unwrap_or(self.verified);
        self.ended = next.is_empty();
        if let Some(first) = next.iter().map(|(_, sequence, _)| *sequence).min() {
            self.verified = self.verified.min(first);
        }
        for (subject, sequence, message) in next {
            self.add(subject, [(sequence, message)], false);
        }
        self.ended
    }

    /// What was found up to where nothing is missing, in order, and whether that is everything.
    pub(super) fn finish(mut self) -> (Vec<(u64, M)>, bool) {
        let up_to = self.verified.min(self.bound);
        self.messages.retain(|(sequence, _)| *sequence <= up_to);
        self.messages.sort_by_key(|(sequence, _)| *sequence);
        (self.messages, self.ended && self.bound == u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn what_was_stored_behind_ones_back_is_found_by_the_leader() {
        let mut found = Found::new(90, 2);
        // The first subject was read, then 95 was stored there, then 100 in the second one, which was read then.
        found.add(0, [], false);
        found.add(1, [(100, ())], false);
        assert_eq!(found.questions().collect::<Vec<_>>(), [(0, 91), (1, 101)]);
        assert!(!found.answers(vec![(0, 95, ())]));
        assert!(found.answers(vec![]));
        assert_eq!(found.finish(), (vec![(95, ()), (100, ())], true));
    }

    #[test]
    fn beyond_a_subject_that_has_more_nothing_is_told() {
        let mut found = Found::new(0, 2);
        found.add(0, [(1, ()), (5, ())], true);
        found.add(1, [(3, ()), (9, ())], false);
        assert_eq!(found.questions().collect::<Vec<_>>(), [(1, 10)]);
        assert!(found.answers(vec![]));
        assert_eq!(found.finish(), (vec![(1, ()), (3, ()), (5, ())], false));
    }

    /// A stream with subjects, in which entries are stored while it is read.
    struct Stream {
        rng: StdRng,
        /// Sequence and subject.
        stored: Vec<(u64, usize)>,
        last: u64,
        subjects: usize,
    }

    impl Stream {
        fn store_some(&mut self) {
            for _ in 0..self.rng.random_range(0..3) {
                self.last += self.rng.random_range(1..3);
                let subject = self.rng.random_range(0..self.subjects);
                self.stored.push((self.last, subject));
            }
        }

        fn of(&self, subject: usize, from: u64) -> impl Iterator<Item = u64> {
            let stored = self.stored.iter();
            stored
                .filter(move |(sequence, of)| *of == subject && *sequence >= from)
                .map(|(sequence, _)| *sequence)
        }

        /// A replica that may be behind answers so many messages at most.
        fn direct(&mut self, subject: usize, from: u64, batch: usize) -> (Vec<(u64, ())>, bool) {
            let behind = self.rng.random_range(0..4);
            let known = self.last.saturating_sub(behind);
            let all: Vec<u64> = self
                .of(subject, from)
                .filter(|sequence| *sequence <= known)
                .collect();
            let read = all.iter().take(batch).map(|sequence| (*sequence, ())).collect();
            (read, all.len() > batch)
        }
    }

    /// As the reader does it; returns what was read and whether that was everything.
    fn read(stream: &mut Stream, from: u64, rounds: usize) -> (Vec<u64>, bool) {
        let mut found = Found::new(from - 1, stream.subjects);
        for subject in 0..stream.subjects {
            let batch = stream.rng.random_range(1..6);
            let (messages, more) = stream.direct(subject, from, batch);
            found.add(subject, messages, more);
            stream.store_some();
        }
        for _ in 0..rounds {
            let mut next = Vec::new();
            for (subject, from) in found.questions().collect::<Vec<_>>() {
                let first = stream.of(subject, from).next();
                next.extend(first.map(|sequence| (subject, sequence, ())));
                stream.store_some();
            }
            if found.answers(next) {
                break;
            }
        }
        let (messages, complete) = found.finish();
        (
            messages.into_iter().map(|(sequence, ())| sequence).collect(),
            complete,
        )
    }

    #[test]
    fn no_reading_has_a_hole_and_each_comes_further() {
        for seed in 0..5_000 {
            let mut stream = Stream {
                rng: StdRng::seed_from_u64(seed),
                stored: Vec::new(),
                last: 0,
                subjects: 1 + seed as usize % 4,
            };
            let mut from = 1;
            for _ in 0..8 {
                stream.store_some();
                let before = stream.last;
                let (read, complete) = read(&mut stream, from, 2);
                let up_to = read.last().copied().unwrap_or(from - 1);
                let stored = stream.stored.iter().map(|(sequence, _)| *sequence);
                let expected: Vec<u64> = stored
                    .filter(|sequence| (from..=up_to).contains(sequence))
                    .collect();
                assert_eq!(read, expected, "seed {seed}: from {from}");
                if complete {
                    let missed = stream
                        .stored
                        .iter()
                        .find(|(sequence, _)| (up_to + 1..=before).contains(sequence));
                    assert_eq!(missed, None, "seed {seed}: complete up to {up_to}");
                } else {
                    assert!(
                        !read.is_empty(),
                        "seed {seed}: nothing from {from}, and not complete"
                    );
                }
                from = up_to + 1;
            }
        }
    }
}
