//! Generated histories: correct ones, and the same with one promise broken.

use super::model::Model;
use crate::judge::{Kind, judge};

/// Some seconds of a debug build.
const RUNS: u64 = 24;
/// Of each kind.
const BROKEN_RUNS: u64 = 10;
const STEPS: u32 = 250;

const KINDS: [Kind; 16] = [
    Kind::Missing,
    Kind::UnconfirmedGone,
    Kind::OrderBroken,
    Kind::TwiceOnConnection,
    Kind::ShownAfterConfirm,
    Kind::DoneTwice,
    Kind::NotAParticipant,
    Kind::AfterRemoved,
    Kind::OwnCopy,
    Kind::Phantom,
    Kind::Disagreement,
    Kind::ConfirmedButStored,
    Kind::StoredButUndelivered,
    Kind::RemovedReturned,
    Kind::ProtocolBroken,
    Kind::NotAtRest,
];

#[test]
fn nothing_is_found_in_correct_histories() {
    let mut kept = 0;
    for seed in 0..RUNS {
        let run = Model::run(seed, STEPS, None).expect("nothing is to be broken");
        let verdict = judge(&run);
        assert!(verdict.is_clean(), "seed {seed}: {verdict}");
        kept += verdict.figures.kept;
    }
    assert!(
        kept > RUNS * u64::from(STEPS) / 4,
        "only {kept} promises were kept: the model does nothing"
    );
}

#[test]
fn every_kind_of_violation_is_found() {
    for kind in KINDS {
        let mut found = 0;
        for seed in 1000..1000 + BROKEN_RUNS {
            let Some(run) = Model::run(seed, STEPS, Some(kind)) else {
                continue;
            };
            let verdict = judge(&run);
            assert!(
                verdict.counts.contains_key(&kind),
                "seed {seed}: {kind:?} was not found; {verdict}"
            );
            found += 1;
        }
        assert!(
            found >= BROKEN_RUNS / 3,
            "{kind:?} had an occasion in {found} runs of {BROKEN_RUNS}"
        );
    }
}
