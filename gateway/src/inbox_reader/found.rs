//! What a reading of several subjects has found, and up to where nothing is missing from it. Pure: each subject is
//! read at another moment, by whichever replica, while entries are stored; then it is asked where they end.

/// See the module. `M` is a message.
#[derive(Debug)]
pub(super) struct Found<M> {
    /// By sequence, in no order.
    messages: Vec<(u64, M)>,
    /// Up to where each subject was read: what comes before was found.
    read: Vec<u64>,
}

/// What is known to be found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// All that was stored when it was asked where the subjects end.
    Everything,
    /// All up to this sequence, which is some.
    UpTo(u64),
    /// None of what was found can be told.
    Nothing {
        /// These subjects have something before it.
        held_back_by: Vec<usize>,
    },
}

impl<M> Found<M> {
    /// Nothing, of so many subjects that all were read up to a sequence.
    pub(super) fn new(read_up_to: u64, subjects: usize) -> Self {
        Self {
            messages: Vec::new(),
            read: vec![read_up_to; subjects],
        }
    }

    /// From which sequence on a subject is to be read.
    pub(super) fn next_of(&self, subject: usize) -> u64 {
        self.read[subject] + 1
    }

    /// What follows in a subject, without a hole.
    pub(super) fn add(&mut self, subject: usize, messages: impl IntoIterator<Item = (u64, M)>) {
        for (sequence, message) in messages {
            self.read[subject] = sequence;
            self.messages.push((sequence, message));
        }
    }

    /// What is known, given the last sequence that each subject holds, as of one moment after all that was found was
    /// read.
    ///
    /// A subject that was read to its end holds nothing else up to whatever was found: that was stored before the
    /// moment, and what is stored later comes behind it.
    pub(super) fn known(&self, ends: &[u64]) -> Known {
        let open = || {
            let subjects = self.read.iter().zip(ends).enumerate();
            subjects.filter(|(_, (read, end))| read < end)
        };
        let Some(up_to) = open().map(|(_, (read, _))| *read).min() else {
            return Known::Everything;
        };
        if self.messages.iter().any(|(sequence, _)| *sequence <= up_to) {
            return Known::UpTo(up_to);
        }
        let first = open().filter(|(_, (read, _))| **read == up_to);
        Known::Nothing {
            held_back_by: first.map(|(subject, _)| subject).collect(),
        }
    }

    /// What was found up to a sequence, in order.
    pub(super) fn finish(mut self, up_to: u64) -> Vec<(u64, M)> {
        self.messages.retain(|(sequence, _)| *sequence <= up_to);
        self.messages.sort_by_key(|(sequence, _)| *sequence);
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn what_was_stored_behind_ones_back_is_read() {
        let mut found = Found::new(90, 2);
        // The first subject was read, then 95 was stored there, then 100 in the second one, which was read then.
        found.add(1, [(100, ())]);
        assert_eq!(
            found.known(&[95, 100]),
            Known::Nothing {
                held_back_by: vec![0]
            }
        );
        assert_eq!(found.next_of(0), 91);
        found.add(0, [(95, ())]);
        assert_eq!(found.known(&[95, 100]), Known::Everything);
        assert_eq!(found.finish(u64::MAX), [(95, ()), (100, ())]);
    }

    #[test]
    fn beyond_a_subject_that_has_more_nothing_is_told() {
        let mut found = Found::new(0, 2);
        found.add(0, [(1, ()), (5, ())]);
        found.add(1, [(3, ()), (9, ())]);
        assert_eq!(found.known(&[7, 9]), Known::UpTo(5));
        assert_eq!(found.finish(5), [(1, ()), (3, ()), (5, ())]);
    }

    #[test]
    fn what_was_confirmed_meanwhile_is_missed_by_nobody() {
        let mut found = Found::new(4, 2);
        assert_eq!(found.known(&[0, 4]), Known::Everything);
        found.add(0, [(6, ())]);
        assert_eq!(found.known(&[0, 0]), Known::Everything);
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

        fn of(&self, subject: usize, from: u64) -> impl DoubleEndedIterator<Item = u64> {
            let stored = self.stored.iter();
            stored
                .filter(move |(sequence, of)| *of == subject && *sequence >= from)
                .map(|(sequence, _)| *sequence)
        }

        /// A replica that may be behind answers so many messages at most.
        fn direct(&mut self, subject: usize, from: u64, batch: usize) -> Vec<(u64, ())> {
            let behind = self.rng.random_range(0..4);
            let known = self.last.saturating_sub(behind);
            let all = self.of(subject, from).filter(|sequence| *sequence <= known);
            all.take(batch).map(|sequence| (sequence, ())).collect()
        }

        fn ends(&self) -> Vec<u64> {
            let last = |subject| self.of(subject, 0).next_back().unwrap_or(0);
            (0..self.subjects).map(last).collect()
        }
    }

    /// As the reader does it; returns what was read and whether that was everything.
    fn read(stream: &mut Stream, from: u64) -> (Vec<u64>, bool) {
        let mut found = Found::new(from - 1, stream.subjects);
        let mut subjects: Vec<usize> = (0..stream.subjects).collect();
        loop {
            for subject in subjects {
                let batch = stream.rng.random_range(1..6);
                let messages = stream.direct(subject, found.next_of(subject), batch);
                found.add(subject, messages);
                stream.store_some();
            }
            let (up_to, complete) = match found.known(&stream.ends()) {
                Known::Everything => (u64::MAX, true),
                Known::UpTo(sequence) => (sequence, false),
                Known::Nothing { held_back_by } => {
                    subjects = held_back_by;
                    continue;
                }
            };
            let messages = found.finish(up_to).into_iter();
            return (messages.map(|(sequence, ())| sequence).collect(), complete);
        }
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
                let (read, complete) = read(&mut stream, from);
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
