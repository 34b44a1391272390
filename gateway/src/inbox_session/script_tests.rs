//! Inbox sessions by script: one step a line.

use super::{Action, InboxSession, Input, Reading, Stored};

fn stored(sequence: u64) -> Stored<u64> {
    Stored {
        sequence,
        bytes: 10,
        body: sequence,
    }
}

fn run(session: &mut InboxSession<u64>, input: Input<u64>) -> Vec<Action<u64>> {
    let mut actions = Vec::new();
    session.handle(input, &mut actions);
    actions
}

fn notice(sequence: u64) -> Input<u64> {
    Input::Notice(stored(sequence))
}

fn read_of(sequences: &[u64], complete: bool) -> Input<u64> {
    Input::Read {
        entries: sequences.iter().copied().map(stored).collect(),
        complete,
    }
}

fn reading(from: u64) -> Action<u64> {
    Action::Read(Reading {
        from,
        count: 256,
        bytes: 262_144,
    })
}

fn live() -> InboxSession<u64> {
    let mut session = InboxSession::new();
    assert_eq!(run(&mut session, Input::Start), [reading(1)]);
    assert_eq!(run(&mut session, read_of(&[], true)), []);
    assert_eq!(run(&mut session, Input::FencePassed), [reading(1)]);
    assert_eq!(run(&mut session, read_of(&[], true)), [Action::CaughtUp]);
    session
}

#[test]
fn a_notice_is_delivered_once() {
    let mut session = live();
    let delivered = [Action::Deliver { delivery: 1, body: 5 }];
    assert_eq!(run(&mut session, notice(5)), delivered);
    assert_eq!(run(&mut session, notice(5)), []);
    assert_eq!(
        run(&mut session, Input::Received(1)),
        [Action::Delete { sequence: 5 }]
    );
    assert_eq!(
        run(&mut session, Input::Received(1)),
        [Action::UnknownDelivery(1)]
    );
    assert_eq!(run(&mut session, notice(5)), []);
}

#[test]
fn only_a_reading_moves_the_floor() {
    let mut session = live();
    run(&mut session, notice(9));
    // 7 was stored, its notice was lost, and somebody noticed.
    assert!(matches!(
        run(&mut session, Input::Doubt)[..],
        [Action::Read(Reading { from: 1, .. })]
    ));
    let delivered = [Action::Deliver { delivery: 2, body: 7 }];
    assert_eq!(run(&mut session, read_of(&[7, 9], true)), delivered);
    assert!(matches!(
        run(&mut session, Input::Doubt)[..],
        [Action::Read(Reading { from: 10, .. })]
    ));
}

#[test]
fn a_check_below_the_floor_is_no_reason_to_read() {
    let mut session = live();
    run(&mut session, Input::Doubt);
    run(&mut session, read_of(&[4], true));
    assert_eq!(run(&mut session, Input::Checked(4)), []);
    assert!(matches!(
        run(&mut session, Input::Checked(5))[..],
        [Action::Read(Reading { from: 5, .. })]
    ));
}
