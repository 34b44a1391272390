//! Inbox sessions by script: one step a line.

use super::{Action, InboxSession, Input, Reading, Stored};

fn stored(sequence: u64) -> Stored<u64> {
    Stored {
        sequence,
        bytes: 10,
        event: None,
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
        through: sequences.last().copied().unwrap_or(0),
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

#[test]
fn what_cannot_be_read_is_passed() {
    let mut session = InboxSession::new();
    run(&mut session, Input::Start);
    let unreadable = Input::Read {
        entries: vec![],
        through: 300,
        complete: false,
    };
    assert_eq!(run(&mut session, unreadable), [reading(301)]);
}

fn deliver(delivery: u64, body: u64) -> Action<u64> {
    Action::Deliver { delivery, body }
}

#[test]
fn before_the_fence_a_notice_is_a_reason_to_read() {
    let mut session = InboxSession::new();
    assert_eq!(run(&mut session, Input::Start), [reading(1)]);
    // Before it, others may have been stored that nobody tells of.
    assert_eq!(run(&mut session, notice(5)), []);
    assert_eq!(run(&mut session, read_of(&[], true)), [reading(1)]);
    assert_eq!(
        run(&mut session, read_of(&[4, 5], true)),
        [deliver(1, 4), deliver(2, 5)]
    );
    assert!(!session.is_live());
    assert!(matches!(
        run(&mut session, notice(6))[..],
        [Action::Read(Reading { from: 6, .. })]
    ));
    assert_eq!(run(&mut session, read_of(&[6], true)), [deliver(3, 6)]);
    // The fence passes while the inbox is read: that reading was too early.
    run(&mut session, Input::Doubt);
    assert_eq!(run(&mut session, Input::FencePassed), []);
    assert!(matches!(
        run(&mut session, read_of(&[], true))[..],
        [Action::Read(_)]
    ));
    // What is told after the fence comes after the reading that follows it.
    assert_eq!(run(&mut session, notice(8)), []);
    assert_eq!(
        run(&mut session, read_of(&[7], true)),
        [deliver(4, 7), Action::CaughtUp, deliver(5, 8)]
    );
    assert!(session.is_live());
}

#[test]
fn what_is_told_during_a_reading_comes_after_it() {
    let mut session = live();
    assert_eq!(run(&mut session, Input::Doubt), [reading(1)]);
    assert_eq!(run(&mut session, notice(5)), []);
    assert_eq!(run(&mut session, notice(6)), []);
    assert_eq!(
        run(&mut session, read_of(&[4, 5], true)),
        [deliver(1, 4), deliver(2, 5), deliver(3, 6)]
    );
    // Unless something was lost meanwhile.
    run(&mut session, Input::Doubt);
    assert_eq!(run(&mut session, notice(9)), []);
    assert_eq!(run(&mut session, Input::Doubt), []);
    assert_eq!(run(&mut session, notice(10)), []);
    let actions = run(&mut session, read_of(&[], true));
    assert!(matches!(actions[..], [Action::Read(Reading { from: 7, .. })]));
    // Or there is more to read.
    assert_eq!(run(&mut session, notice(12)), []);
    let actions = run(&mut session, read_of(&[8], false));
    let [delivered, Action::Read(Reading { from: 9, .. })] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(*delivered, deliver(4, 8));
    let rest = [deliver(5, 9), deliver(6, 10), deliver(7, 12)];
    assert_eq!(run(&mut session, read_of(&[9, 10, 12], true)), rest);
}

#[test]
fn of_what_is_told_during_a_reading_so_much_is_kept() {
    let held_back = super::HELD_BACK_MAX as u64;
    for (told, delivered) in [(held_back, held_back as usize), (held_back + 1, 0)] {
        let mut session = live();
        run(&mut session, Input::Doubt);
        for sequence in 1..=told {
            assert_eq!(run(&mut session, notice(sequence)), []);
        }
        let actions = run(&mut session, read_of(&[], true));
        let found = actions
            .iter()
            .filter(|action| matches!(action, Action::Deliver { .. }));
        assert_eq!(found.count(), delivered);
        let reads = actions.iter().any(|action| matches!(action, Action::Read(_)));
        assert_eq!(reads, delivered == 0);
    }
}

#[test]
fn what_was_delivered_and_is_gone_is_passed() {
    let mut session = live();
    run(&mut session, notice(9));
    run(&mut session, Input::Received(1));
    let again = Reading {
        from: 1,
        count: 257,
        bytes: 262_144,
    };
    assert_eq!(run(&mut session, Input::Doubt), [Action::Read(again)]);
    assert_eq!(run(&mut session, read_of(&[], true)), []);
    assert_eq!(run(&mut session, Input::Doubt), [reading(10)]);
}

#[test]
fn what_is_remembered_above_the_floor_is_bounded() {
    let mut session = live();
    let last = super::ABOVE_MAX as u64;
    for sequence in 1..=last {
        assert_eq!(run(&mut session, notice(sequence)), [deliver(sequence, sequence)]);
        run(&mut session, Input::Received(sequence));
    }
    let actions = run(&mut session, notice(last + 1));
    assert!(matches!(
        actions[..],
        [Action::Deliver { .. }, Action::Read(Reading { from: 1, .. })]
    ));
    run(&mut session, read_of(&[last + 1], true));
    assert!(session.above.is_empty());
}

#[test]
fn a_full_window_is_read_for_once_half_of_it_is_free() {
    let mut session = live();
    for sequence in 1..=256 {
        assert!(!session.is_full());
        run(&mut session, notice(sequence));
    }
    assert!(session.is_full());
    assert_eq!(run(&mut session, notice(257)), []);
    assert!(!session.waits_for_room(), "there is none");
    assert_eq!(run(&mut session, Input::ReceivedThrough(127)).len(), 127);
    assert!(session.waits_for_room());
    let actions = run(&mut session, Input::Received(128));
    let expected = Reading {
        from: 1,
        count: 128 + 256,
        bytes: 262_144 - 128 * 10,
    };
    assert_eq!(
        actions,
        [Action::Delete { sequence: 128 }, Action::Read(expected)]
    );
    // What does not fit after all is read again, not delivered.
    let large = Stored {
        sequence: 258,
        bytes: 262_144,
        event: None,
        body: 258,
    };
    let mut entries: Vec<_> = (129..=257).map(stored).collect();
    entries.push(large);
    let actions = run(
        &mut session,
        Input::Read {
            entries,
            through: 258,
            complete: true,
        },
    );
    assert_eq!(actions, [deliver(257, 257)]);
    assert_eq!(session.floor, 257);
}

/// Whoever confirms only when its window is full, or in larger steps than is advised, is not left waiting.
#[test]
fn a_doubt_is_read_for_while_there_is_room() {
    let mut session = live();
    for sequence in 1..=200 {
        run(&mut session, notice(sequence));
    }
    let expected = Reading {
        from: 1,
        count: 56 + 200,
        bytes: 262_144 - 200 * 10,
    };
    assert_eq!(run(&mut session, Input::Doubt), [Action::Read(expected)]);
    let sequences: Vec<u64> = (1..=202).collect();
    let delivered = [deliver(201, 201), deliver(202, 202)];
    assert_eq!(run(&mut session, read_of(&sequences, true)), delivered);
    // Where the room was used up by a reading, it is waited for more: but not for ever.
    run(&mut session, Input::Doubt);
    let sequences: Vec<u64> = (203..=250).collect();
    assert_eq!(run(&mut session, read_of(&sequences, false)).len(), 48);
    assert!(session.waits_for_room());
    assert_eq!(run(&mut session, Input::Received(7)).len(), 1);
    let actions = run(&mut session, Input::Waited);
    assert!(matches!(
        actions[..],
        [Action::Read(Reading {
            from: 251,
            count: 6,
            ..
        })]
    ));
    assert!(!session.waits_for_room());
}

/// What is read again and was delivered before uses no room, and is gone on from at once.
#[test]
fn what_was_delivered_is_read_past_at_once() {
    let mut session = live();
    for sequence in 1..=200 {
        run(&mut session, notice(sequence));
    }
    run(&mut session, Input::Doubt);
    let sequences: Vec<u64> = (1..=150).collect();
    let actions = run(&mut session, read_of(&sequences, false));
    assert!(matches!(actions[..], [Action::Read(Reading { from: 151, .. })]));
}

#[test]
fn a_client_is_told_that_its_window_is_full_when_nothing_more_comes() {
    let large = |sequence| Stored {
        bytes: 60_000,
        ..stored(sequence)
    };
    let mut session = live();
    for sequence in 1..=3 {
        run(&mut session, Input::Notice(large(sequence)));
    }
    assert!(!session.is_full(), "the next one may be small");
    assert_eq!(run(&mut session, Input::Doubt), []);
    assert!(session.is_full());
    let actions = run(&mut session, Input::Received(1));
    assert!(matches!(actions[..], [Action::Delete { .. }, Action::Read(_)]));
    assert!(!session.is_full());
}

#[test]
fn nobody_is_caught_up_while_there_is_doubt() {
    let mut session = InboxSession::new();
    run(&mut session, Input::FencePassed);
    assert_eq!(run(&mut session, Input::Doubt), []);
    assert_eq!(run(&mut session, read_of(&[], true)), [reading(1)]);
    assert_eq!(run(&mut session, read_of(&[], false)), [reading(1)]);
    assert_eq!(run(&mut session, read_of(&[], true)), [Action::CaughtUp]);
}

#[test]
fn what_was_shown_by_another_entry_is_deleted() {
    let of_event = |sequence, event| Stored {
        event: Some(event),
        ..stored(sequence)
    };
    let mut session = live();
    let shown = run(&mut session, Input::Notice(of_event(5, 40)));
    assert_eq!(shown, [Action::Deliver { delivery: 1, body: 5 }]);
    let deleted = |sequence| [Action::Delete { sequence }];
    assert_eq!(run(&mut session, Input::Notice(of_event(6, 40))), deleted(6));
    run(&mut session, Input::Received(1));
    assert_eq!(run(&mut session, Input::Notice(of_event(7, 40))), deleted(7));
    run(&mut session, Input::Doubt);
    let read = Input::Read {
        entries: vec![of_event(8, 40), of_event(9, 41)],
        through: 9,
        complete: true,
    };
    let expected = [
        Action::Delete { sequence: 8 },
        Action::Deliver { delivery: 2, body: 9 },
    ];
    assert_eq!(run(&mut session, read), expected);
}

#[test]
fn what_was_shown_needs_no_room() {
    let of_event = |sequence, event| Stored {
        event: Some(event),
        ..stored(sequence)
    };
    let mut session = live();
    run(&mut session, Input::Notice(of_event(1, 1)));
    for sequence in 2..=256 {
        run(&mut session, notice(sequence));
    }
    assert!(session.is_full());
    let deleted = [Action::Delete { sequence: 257 }];
    assert_eq!(run(&mut session, Input::Notice(of_event(257, 1))), deleted);
}

/// Workers that tell directly.
mod direct {
    use uuid::Uuid;

    use super::super::Direct;
    use super::*;

    const WORKER: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn told_by(worker: Uuid, event: u64, grant: u32) -> Input<u64> {
        Input::Direct(Direct {
            worker,
            event,
            grant,
            bytes: 10,
            body: event,
        })
    }

    fn told(event: u64, grant: u32) -> Input<u64> {
        told_by(WORKER, event, grant)
    }

    fn stored_later(sequence: u64, event: u64) -> Input<u64> {
        Input::Notice(Stored {
            event: Some(event),
            ..stored(sequence)
        })
    }

    fn confirmed(event: u64) -> Action<u64> {
        Action::Confirmed {
            worker: WORKER,
            event,
        }
    }

    fn refused(event: u64) -> Action<u64> {
        Action::Refused {
            worker: WORKER,
            event,
        }
    }

    fn granted() -> (InboxSession<u64>, u32) {
        let mut session = live();
        let grant = session.grant().expect("it is live");
        (session, grant)
    }

    #[test]
    fn what_is_granted_is_delivered_and_its_confirmation_goes_to_the_worker() {
        let (mut session, grant) = granted();
        assert_eq!(session.grant(), Some(grant));
        let delivered = |delivery, body| [Action::Deliver { delivery, body }];
        assert_eq!(run(&mut session, told(70, grant)), delivered(1, 70));
        assert_eq!(run(&mut session, told(70, grant)), [], "it is outstanding");
        assert_eq!(run(&mut session, told(71, grant)), delivered(2, 71));
        assert_eq!(
            session.directs().collect::<Vec<_>>(),
            [(WORKER, 70), (WORKER, 71)]
        );
        assert_eq!(
            run(&mut session, Input::ReceivedThrough(2)),
            [confirmed(70), confirmed(71)]
        );
        assert_eq!(
            run(&mut session, told(70, grant)),
            [confirmed(70)],
            "it is confirmed"
        );
        assert_eq!(session.directs().count(), 0);
    }

    #[test]
    fn nothing_is_granted_before_the_session_is_live_nor_while_it_reads() {
        let mut session = InboxSession::<u64>::new();
        assert_eq!(session.grant(), None);
        run(&mut session, Input::Start);
        assert_eq!(session.grant(), None);
        assert_eq!(run(&mut session, told(70, 1)), [refused(70)]);
        let (mut session, _) = granted();
        run(&mut session, Input::Doubt);
        assert_eq!(session.grant(), None);
    }

    #[test]
    fn a_grant_ends_with_a_doubt() {
        for doubt in [Input::Doubt, Input::Withdraw] {
            let (mut session, grant) = granted();
            let is_read = matches!(doubt, Input::Doubt);
            run(&mut session, doubt);
            if is_read {
                run(&mut session, read_of(&[], true));
            }
            assert_eq!(run(&mut session, told(70, grant)), [refused(70)]);
            let again = session.grant().expect("it is live again");
            assert_ne!(again, grant);
            assert_eq!(run(&mut session, told(71, grant)), [refused(71)]);
            let delivered = [Action::Deliver {
                delivery: 1,
                body: 72,
            }];
            assert_eq!(run(&mut session, told(72, again)), delivered);
        }
    }

    #[test]
    fn a_grant_ends_with_what_does_not_fit() {
        let (mut session, grant) = granted();
        for event in 0..256 {
            assert_eq!(run(&mut session, told(event, grant)).len(), 1);
        }
        assert_eq!(run(&mut session, told(256, grant)), [refused(256)]);
        run(&mut session, Input::ReceivedThrough(256));
        assert_eq!(
            run(&mut session, told(257, grant)),
            [refused(257)],
            "256 comes before it"
        );
    }

    #[test]
    fn what_is_stored_before_it_is_confirmed_is_deleted_when_it_is() {
        let (mut session, grant) = granted();
        run(&mut session, told(70, grant));
        assert_eq!(run(&mut session, stored_later(5, 70)), []);
        assert_eq!(session.directs().count(), 0);
        assert_eq!(run(&mut session, stored_later(5, 70)), []);
        assert_eq!(
            run(&mut session, told_by(OTHER, 70, grant)),
            [Action::Confirmed {
                worker: OTHER,
                event: 70
            }]
        );
        assert_eq!(
            run(&mut session, Input::Received(1)),
            [Action::Delete { sequence: 5 }]
        );
    }

    #[test]
    fn what_is_stored_after_it_was_confirmed_is_deleted_at_once() {
        let (mut session, grant) = granted();
        run(&mut session, told(70, grant));
        run(&mut session, Input::Received(1));
        assert_eq!(
            run(&mut session, stored_later(5, 70)),
            [Action::Delete { sequence: 5 }]
        );
    }

    #[test]
    fn what_a_reading_finds_of_what_was_told_is_not_delivered_again() {
        let (mut session, grant) = granted();
        for event in 0..200 {
            run(&mut session, told(event, grant));
        }
        run(&mut session, Input::Doubt);
        let entry = Stored {
            event: Some(0),
            ..stored(5)
        };
        let read = Input::Read {
            entries: vec![entry],
            through: 5,
            complete: true,
        };
        assert_eq!(run(&mut session, read), []);
        assert_eq!(
            run(&mut session, Input::Received(1)),
            [Action::Delete { sequence: 5 }]
        );
    }

    #[test]
    fn whoever_told_last_waits_for_the_confirmation() {
        let (mut session, grant) = granted();
        run(&mut session, told(70, grant));
        assert_eq!(run(&mut session, told_by(OTHER, 70, grant)), []);
        assert_eq!(
            run(&mut session, Input::Received(1)),
            [Action::Confirmed {
                worker: OTHER,
                event: 70
            }]
        );
    }
}
