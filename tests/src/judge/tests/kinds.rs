//! One violation each.

use tidings_protocol::{ErrorCode, Operation, Registration, Reply, ServerFrame};

use super::forge::{Forge, alice_and_bob, expect, finish};
use crate::history::{Happening, What};
use crate::judge::Kind;

const ALL: [&str; 3] = ["alice.1", "bob.1", "bob.2"];

#[test]
fn accepted_but_missing_at_one_client() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.deliver("bob.2", 1, 2, "alice.1", 1);
    forge.confirm("bob.2");
    expect(&finish(forge, &ALL), &[Kind::Missing]);
}

#[test]
fn accepted_but_missing_everywhere() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    let verdict = finish(forge, &ALL).judge();
    assert_eq!(verdict.counts[&Kind::Missing], 2, "{verdict}");
}

#[test]
fn revealed_but_missing() {
    let mut forge = alice_and_bob();
    let asked = forge.send("alice.1", 1, 1);
    forge.refuse(&asked, ErrorCode::Unavailable);
    forge.deliver("bob.2", 1, 2, "alice.1", 1);
    forge.confirm("bob.2");
    expect(&finish(forge, &ALL), &[Kind::Missing]);
}

#[test]
fn missing_though_nobody_came_to_rest() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.say("alice.1", 1, 2, 3);
    forge.deliver("bob.1", 1, 3, "alice.1", 2);
    expect(&forge, &[Kind::Missing]);
}

#[test]
fn a_change_that_one_participant_never_heard_of() {
    let mut forge = alice_and_bob();
    forge.register("carol.1");
    let asked = forge.modify("alice.1", 1, "carol", Operation::Add);
    forge.changed(&asked, 2);
    let all = ["alice", "bob", "carol"];
    for device in ["alice.1", "bob.1", "carol.1"] {
        forge.update(device, 1, (2, 2), "alice", &["+carol"], &all);
    }
    let forge = finish(forge, &["alice.1", "bob.1", "bob.2", "carol.1"]);
    expect(&forge, &[Kind::Missing]);
}

#[test]
fn a_change_that_only_later_versions_tell_of() {
    let mut forge = alice_and_bob();
    forge.register("carol.1");
    forge.register("dave.1");
    let lost = forge.modify("alice.1", 1, "carol", Operation::Add);
    forge.refuse(&lost, ErrorCode::Unavailable);
    let asked = forge.modify("alice.1", 1, "dave", Operation::Add);
    forge.changed(&asked, 4);
    for device in ["alice.1", "bob.1", "bob.2", "carol.1", "dave.1"] {
        let all = ["alice", "bob", "carol", "dave"];
        forge.update(device, 1, (4, 3), "alice", &["+dave"], &all);
    }
    let forge = finish(forge, &["alice.1", "bob.1", "bob.2", "carol.1", "dave.1"]);
    expect(&forge, &[Kind::Missing]);
}

#[test]
fn a_first_client_that_does_not_find_what_was_written_before() {
    let mut forge = Forge::default();
    forge.register("alice.1");
    forge.create("alice.1", 1, &["dave"], 1);
    forge.update(
        "alice.1",
        1,
        (1, 1),
        "alice",
        &["+alice", "+dave"],
        &["alice", "dave"],
    );
    forge.say("alice.1", 1, 1, 2);
    forge.hello("dave.1", None);
    forge.welcome("dave.1", Registration::New);
    forge.update(
        "dave.1",
        1,
        (1, 1),
        "alice",
        &["+alice", "+dave"],
        &["alice", "dave"],
    );
    forge.caught_up("dave.1");
    let forge = finish(forge, &["alice.1", "dave.1"]);
    expect(&forge, &[Kind::Missing]);
}

#[test]
fn unconfirmed_but_gone_when_it_came_back() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.deliver("bob.1", 1, 2, "alice.1", 1);
    forge.deliver("bob.2", 1, 2, "alice.1", 1);
    forge.confirm("bob.2");
    forge.close("bob.1");
    forge.back("bob.1");
    forge.caught_up("bob.1");
    expect(&finish(forge, &ALL), &[Kind::UnconfirmedGone]);
}

#[test]
fn order_broken_on_a_connection() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.say("alice.1", 1, 2, 3);
    for (seq, number) in [(3, 2), (2, 1)] {
        forge.deliver("bob.1", 1, seq, "alice.1", number);
    }
    for (seq, number) in [(2, 1), (3, 2)] {
        forge.deliver("bob.2", 1, seq, "alice.1", number);
    }
    expect(&finish(forge, &ALL), &[Kind::OrderBroken]);
}

#[test]
fn order_broken_by_an_event_that_comes_only_on_the_next_connection() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.say("alice.1", 1, 2, 3);
    forge.deliver("bob.1", 1, 3, "alice.1", 2);
    forge.confirm("bob.1");
    forge.close("bob.1");
    forge.back("bob.1");
    forge.deliver("bob.1", 1, 2, "alice.1", 1);
    forge.caught_up("bob.1");
    for (seq, number) in [(2, 1), (3, 2)] {
        forge.deliver("bob.2", 1, seq, "alice.1", number);
    }
    expect(&finish(forge, &ALL), &[Kind::OrderBroken]);
}

#[test]
fn caught_up_before_everything_came() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
    }
    forge.close("bob.1");
    forge.back("bob.1");
    forge.caught_up("bob.1");
    forge.deliver("bob.1", 1, 2, "alice.1", 1);
    expect(&finish(forge, &ALL), &[Kind::OrderBroken]);
}

/// What was told before it was stored is stored late when a worker dies.
#[test]
fn caught_up_before_what_a_dead_worker_had_told() {
    for (target, kinds) in [("fanout-worker-1", &[][..]), ("media-1", &[Kind::OrderBroken])] {
        let mut forge = alice_and_bob();
        forge.say("alice.1", 1, 1, 2);
        for device in ["bob.1", "bob.2"] {
            forge.deliver(device, 1, 2, "alice.1", 1);
        }
        forge.happened(Happening::begins("SIGKILL", target));
        forge.happened(Happening::ends("SIGKILL", target));
        forge.close("bob.1");
        forge.back("bob.1");
        forge.caught_up("bob.1");
        forge.deliver("bob.1", 1, 2, "alice.1", 1);
        expect(&finish(forge, &ALL), kinds);
    }
}

/// Nobody knew any more that it was confirmed; but what was not, or in calm weather, comes in its place.
#[test]
fn confirmed_and_again_after_a_later_one_when_a_worker_has_died() {
    for (target, confirms, kinds) in [
        ("fanout-worker-1", true, &[][..]),
        ("fanout-worker-1", false, &[Kind::OrderBroken]),
        ("media-1", true, &[Kind::OrderBroken]),
    ] {
        let mut forge = alice_and_bob();
        forge.say("alice.1", 1, 1, 2);
        for device in ["bob.1", "bob.2"] {
            forge.deliver(device, 1, 2, "alice.1", 1);
        }
        if confirms {
            forge.confirm("bob.1");
        }
        forge.happened(Happening::begins("SIGKILL", target));
        forge.happened(Happening::ends("SIGKILL", target));
        forge.close("bob.1");
        forge.back("bob.1");
        forge.caught_up("bob.1");
        forge.say("alice.1", 1, 2, 3);
        for device in ["bob.1", "bob.2"] {
            forge.deliver(device, 1, 3, "alice.1", 2);
        }
        forge.deliver("bob.1", 1, 2, "alice.1", 1);
        expect(&finish(forge, &ALL), kinds);
    }
}

#[test]
fn order_of_one_connections_sends_broken() {
    let mut forge = alice_and_bob();
    let first = forge.send("alice.1", 1, 1);
    let second = forge.send("alice.1", 1, 2);
    forge.accept(&second, 2, false);
    forge.accept(&first, 3, false);
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 2);
        forge.deliver(device, 1, 3, "alice.1", 1);
    }
    expect(&finish(forge, &ALL), &[Kind::OrderBroken]);
}

#[test]
fn twice_for_an_heir_in_calm_weather() {
    for calm in [true, false] {
        let mut forge = Forge::default();
        forge.register("alice.1");
        forge.create("alice.1", 1, &["bob"], 1);
        forge.update(
            "alice.1",
            1,
            (1, 1),
            "alice",
            &["+alice", "+bob"],
            &["alice", "bob"],
        );
        forge.say("alice.1", 1, 1, 2);
        if !calm {
            forge.happened(Happening::begins("SIGSTOP", "nats-1"));
            forge.happened(Happening::ends("SIGSTOP", "nats-1"));
        }
        forge.hello("bob.1", None);
        forge.welcome("bob.1", Registration::New);
        forge.update(
            "bob.1",
            1,
            (1, 1),
            "alice",
            &["+alice", "+bob"],
            &["alice", "bob"],
        );
        forge.deliver("bob.1", 1, 2, "alice.1", 1);
        forge.caught_up("bob.1");
        forge.deliver("bob.1", 1, 2, "alice.1", 1);
        let kinds: &[Kind] = if calm { &[Kind::TwiceOnConnection] } else { &[] };
        expect(&finish(forge, &["alice.1", "bob.1"]), kinds);
    }
}

#[test]
fn twice_on_one_connection() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    for device in ["bob.1", "bob.2", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
    }
    expect(&finish(forge, &ALL), &[Kind::TwiceOnConnection]);
}

#[test]
fn shown_again_long_after_it_was_confirmed() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
        forge.confirm(device);
    }
    forge.later(11_000);
    forge.close("bob.1");
    forge.back("bob.1");
    forge.deliver("bob.1", 1, 2, "alice.1", 1);
    forge.caught_up("bob.1");
    expect(&finish(forge, &ALL), &[Kind::ShownAfterConfirm]);
}

#[test]
fn a_retry_that_became_a_second_event() {
    let mut forge = alice_and_bob();
    let lost = forge.send("alice.1", 1, 1);
    forge.refuse(&lost, ErrorCode::Unavailable);
    forge.later(60_000);
    forge.say("alice.1", 1, 1, 3);
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
        forge.deliver(device, 1, 3, "alice.1", 1);
    }
    expect(&finish(forge, &ALL), &[Kind::DoneTwice]);
}

#[test]
fn delivered_to_somebody_who_was_never_in_the_chat() {
    let mut forge = alice_and_bob();
    forge.register("carol.1");
    forge.say("alice.1", 1, 1, 2);
    for device in ["bob.1", "bob.2", "carol.1"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
    }
    let forge = finish(forge, &["alice.1", "bob.1", "bob.2", "carol.1"]);
    expect(&forge, &[Kind::NotAParticipant]);
}

/// carol is in chat 1 with alice and bob, and leaves at seq 2.
fn carol_leaves() -> Forge {
    let mut forge = Forge::default();
    for device in ["alice.1", "carol.1"] {
        forge.register(device);
    }
    forge.create("alice.1", 1, &["carol", "bob"], 1);
    let all = ["alice", "carol", "bob"];
    for device in ["alice.1", "carol.1"] {
        forge.update(device, 1, (1, 1), "alice", &["+alice", "+carol", "+bob"], &all);
    }
    let asked = forge.modify("carol.1", 1, "carol", Operation::Remove);
    forge.changed(&asked, 2);
    for device in ["alice.1", "carol.1"] {
        forge.update(device, 1, (2, 2), "carol", &["-carol"], &["alice", "bob"]);
    }
    forge
}

#[test]
fn delivered_after_removed() {
    let mut forge = carol_leaves();
    forge.say("alice.1", 1, 1, 3);
    forge.deliver("carol.1", 1, 3, "alice.1", 1);
    expect(&finish(forge, &["alice.1", "carol.1"]), &[Kind::AfterRemoved]);
}

#[test]
fn the_sending_client_gets_a_copy() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    for device in ALL {
        forge.deliver(device, 1, 2, "alice.1", 1);
    }
    expect(&finish(forge, &ALL), &[Kind::OwnCopy]);
}

#[test]
fn delivered_but_never_sent() {
    let mut forge = alice_and_bob();
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
    }
    expect(&finish(forge, &ALL), &[Kind::Phantom]);
}

#[test]
fn delivered_but_refused() {
    let mut forge = alice_and_bob();
    let asked = forge.send("alice.1", 1, 1);
    forge.refuse(&asked, ErrorCode::ChatBusy);
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
    }
    expect(&finish(forge, &ALL), &[Kind::Phantom]);
}

#[test]
fn readers_see_different_things_at_one_place() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    let lost = forge.send("alice.1", 1, 2);
    forge.refuse(&lost, ErrorCode::Unavailable);
    forge.deliver("bob.1", 1, 2, "alice.1", 1);
    forge.deliver("bob.2", 1, 2, "alice.1", 2);
    expect(&finish(forge, &ALL), &[Kind::Disagreement]);
}

#[test]
fn words_that_were_not_sent() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.deliver("bob.1", 1, 2, "alice.1", 1);
    forge.deliver("bob.2", 1, 2, "alice.1", 1);
    let last = forge.run.records.last_mut().expect("there are records");
    if let What::Received(frame) = &mut last.what
        && let ServerFrame::NewMessage(message) = &mut **frame
    {
        message.message = "other words".to_owned();
    }
    expect(&finish(forge, &ALL), &[Kind::Disagreement]);
}

#[test]
fn confirmed_but_still_stored() {
    let mut forge = alice_and_bob();
    forge.stored("bob.1", 1, 1);
    expect(&finish(forge, &ALL), &[Kind::ConfirmedButStored]);
}

#[test]
fn stored_but_never_delivered() {
    let mut forge = alice_and_bob();
    forge.register("carol.1");
    // Nothing says that it is for carol; but it is in her inbox.
    forge.stored("carol.1", 1, 1);
    let forge = finish(forge, &["alice.1", "bob.1", "bob.2", "carol.1"]);
    expect(&forge, &[Kind::StoredButUndelivered]);
}

#[test]
fn a_removed_client_comes_back() {
    let mut forge = alice_and_bob();
    let asked = forge.remove("bob.1", "bob.2");
    forge.answer(&asked, Reply::success(asked.id));
    forge.back("bob.2");
    expect(&finish(forge, &["alice.1", "bob.1"]), &[Kind::RemovedReturned]);
}

#[test]
fn a_delivery_with_a_number_too_high() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.deliver("bob.1", 1, 2, "alice.1", 1);
    forge.next_delivery("bob.2");
    forge.deliver("bob.2", 1, 2, "alice.1", 1);
    expect(&finish(forge, &ALL), &[Kind::ProtocolBroken]);
}

#[test]
fn a_request_with_two_replies() {
    let mut forge = alice_and_bob();
    let asked = forge.send("alice.1", 1, 1);
    forge.refuse(&asked, ErrorCode::ChatBusy);
    forge.refuse(&asked, ErrorCode::ChatBusy);
    expect(&finish(forge, &ALL), &[Kind::ProtocolBroken]);
}

#[test]
fn a_client_that_is_told_that_it_is_removed_though_nobody_asked() {
    let mut forge = alice_and_bob();
    let connection = forge.connection("bob.1");
    forge.write(
        &connection,
        What::Closed {
            code: 4403,
            reason: String::new(),
            by_client: false,
        },
    );
    expect(&finish(forge, &["alice.1", "bob.2"]), &[Kind::ProtocolBroken]);
}

#[test]
fn a_client_that_does_not_come_to_rest() {
    let mut forge = alice_and_bob();
    let connection = forge.connection("bob.1");
    forge.close("bob.1");
    let reason = "not connected".to_owned();
    forge.write(&connection, What::NotAtRest { reason });
    expect(&finish(forge, &["alice.1", "bob.2"]), &[Kind::NotAtRest]);
}

#[test]
fn a_removed_client_that_stays_connected() {
    let mut forge = alice_and_bob();
    let asked = forge.remove("bob.1", "bob.2");
    forge.answer(&asked, Reply::success(asked.id));
    forge.later(11_000);
    forge.say("alice.1", 1, 1, 2);
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
    }
    expect(&finish(forge, &["alice.1", "bob.1"]), &[Kind::RemovedReturned]);
}

#[test]
fn a_trim_that_covers_something_else() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
    }
    forge.close("bob.1");
    forge.back("bob.1");
    forge.trimmed("bob.1", &[2]);
    forge.caught_up("bob.1");
    expect(&finish(forge, &ALL), &[Kind::UnconfirmedGone]);
}
