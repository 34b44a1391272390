//! What looks bad and is not.

use tidings_protocol::{ErrorCode, Operation, Registration, Reply};

use super::forge::{Forge, alice_and_bob, expect, finish};
use crate::history::Happening;

const ALL: [&str; 3] = ["alice.1", "bob.1", "bob.2"];

#[test]
fn outcomes_that_nobody_knows() {
    let mut forge = alice_and_bob();
    // Not done, done, and lost with the connection but done.
    let first = forge.send("alice.1", 1, 1);
    forge.refuse(&first, ErrorCode::Unavailable);
    let second = forge.send("alice.1", 1, 2);
    forge.refuse(&second, ErrorCode::Unavailable);
    forge.send("alice.1", 1, 3);
    forge.close("alice.1");
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 2);
        forge.deliver(device, 1, 3, "alice.1", 3);
        forge.confirm(device);
    }
    forge.back("alice.1");
    forge.caught_up("alice.1");
    expect(&finish(forge, &ALL), &[]);
}

#[test]
fn a_retry_that_is_a_duplicate() {
    let mut forge = alice_and_bob();
    forge.send("alice.1", 1, 1);
    forge.close("alice.1");
    forge.back("alice.1");
    forge.caught_up("alice.1");
    let again = forge.send("alice.1", 1, 1);
    forge.say("alice.1", 1, 2, 3);
    forge.accept(&again, 2, true);
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
        forge.deliver(device, 1, 3, "alice.1", 2);
    }
    expect(&finish(forge, &ALL), &[]);
}

#[test]
fn a_second_event_outside_the_window_or_after_a_restart_of_nats() {
    for restart in [false, true] {
        let mut forge = alice_and_bob();
        forge.send("alice.1", 1, 1);
        forge.close("alice.1");
        if restart {
            forge.happened(Happening::begins("SIGKILL", "nats-1"));
            forge.happened(Happening::ends("SIGKILL", "nats-1"));
        } else {
            forge.later(700_000);
        }
        forge.back("alice.1");
        forge.caught_up("alice.1");
        forge.say("alice.1", 1, 1, 5);
        for device in ["bob.1", "bob.2"] {
            forge.deliver(device, 1, 2, "alice.1", 1);
            forge.deliver(device, 1, 5, "alice.1", 1);
        }
        expect(&finish(forge, &ALL), &[]);
    }
}

#[test]
fn the_same_again_on_the_next_connection_until_it_is_confirmed() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.say("alice.1", 1, 2, 3);
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
        forge.deliver(device, 1, 3, "alice.1", 2);
    }
    // The later one alone is confirmed; the confirm of the other is lost with the connection.
    let last = forge.last_delivery("bob.1");
    forge.confirm_one("bob.1", last);
    forge.confirm_one("bob.1", last - 1);
    forge.close("bob.1");
    forge.back("bob.1");
    forge.deliver("bob.1", 1, 2, "alice.1", 1);
    forge.caught_up("bob.1");
    forge.confirm("bob.1");
    expect(&finish(forge, &ALL), &[]);
}

#[test]
fn shown_again_after_a_confirm_during_a_fault() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    for device in ["bob.1", "bob.2"] {
        forge.deliver(device, 1, 2, "alice.1", 1);
    }
    forge.happened(Happening::begins("SIGSTOP", "nats-1"));
    forge.confirm("bob.1");
    forge.later(20_000);
    forge.close("bob.1");
    forge.happened(Happening::ends("SIGSTOP", "nats-1"));
    forge.back("bob.1");
    forge.deliver("bob.1", 1, 2, "alice.1", 1);
    forge.caught_up("bob.1");
    forge.confirm("bob.1");
    expect(&finish(forge, &ALL), &[]);
}

#[test]
fn removed_added_again_and_what_was_unconfirmed_before() {
    let mut forge = alice_and_bob();
    forge.register("carol.1");
    let three = ["alice", "bob", "carol"];
    let add = forge.modify("alice.1", 1, "carol", Operation::Add);
    forge.changed(&add, 2);
    for device in ["alice.1", "bob.1", "bob.2", "carol.1"] {
        forge.update(device, 1, (2, 2), "alice", &["+carol"], &three);
    }
    forge.say("bob.1", 1, 1, 3);
    for device in ["alice.1", "bob.2", "carol.1"] {
        forge.deliver(device, 1, 3, "bob.1", 1);
    }
    let remove = forge.modify("alice.1", 1, "carol", Operation::Remove);
    forge.changed(&remove, 4);
    for device in ["alice.1", "bob.1", "bob.2", "carol.1"] {
        forge.update(device, 1, (4, 3), "alice", &["-carol"], &["alice", "bob"]);
    }
    // She has confirmed that she is out, but not what came before: that comes again.
    let last = forge.last_delivery("carol.1");
    forge.confirm_one("carol.1", last);
    forge.close("carol.1");
    forge.back("carol.1");
    forge.update("carol.1", 1, (2, 2), "alice", &["+carol"], &three);
    forge.deliver("carol.1", 1, 3, "bob.1", 1);
    forge.caught_up("carol.1");
    // Not for her.
    forge.say("bob.1", 1, 2, 5);
    for device in ["alice.1", "bob.2"] {
        forge.deliver(device, 1, 5, "bob.1", 2);
    }
    let again = forge.modify("alice.1", 1, "carol", Operation::Add);
    forge.refuse(&again, ErrorCode::Unavailable);
    for device in ["alice.1", "bob.1", "bob.2", "carol.1"] {
        forge.update(device, 1, (6, 4), "alice", &["+carol"], &three);
    }
    forge.say("bob.1", 1, 3, 7);
    for device in ["alice.1", "bob.2", "carol.1"] {
        forge.deliver(device, 1, 7, "bob.1", 3);
    }
    let forge = finish(forge, &["alice.1", "bob.1", "bob.2", "carol.1"]);
    expect(&forge, &[]);
}

#[test]
fn a_new_client_gets_nothing_of_what_was_sent_before_its_first_caught_up() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.hello("bob.3", None);
    forge.welcome("bob.3", Registration::New);
    forge.say("alice.1", 1, 2, 3);
    forge.say("alice.1", 1, 3, 4);
    // Of those sent meanwhile it may get any.
    forge.deliver("bob.3", 1, 4, "alice.1", 3);
    forge.caught_up("bob.3");
    forge.say("alice.1", 1, 4, 5);
    forge.deliver("bob.3", 1, 5, "alice.1", 4);
    for device in ["bob.1", "bob.2"] {
        for number in 1..=4 {
            forge.deliver(device, 1, number + 1, "alice.1", number);
        }
    }
    let forge = finish(forge, &["alice.1", "bob.1", "bob.2", "bob.3"]);
    expect(&forge, &[]);
}

#[test]
fn a_first_client_finds_what_was_written_before_though_its_first_welcome_was_lost() {
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
    forge.close("dave.1");
    forge.back("dave.1");
    forge.update(
        "dave.1",
        1,
        (1, 1),
        "alice",
        &["+alice", "+dave"],
        &["alice", "dave"],
    );
    forge.deliver("dave.1", 1, 2, "alice.1", 1);
    forge.caught_up("dave.1");
    expect(&finish(forge, &["alice.1", "dave.1"]), &[]);
}

#[test]
fn a_replaced_and_a_removed_client_are_owed_nothing() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.hello("bob.3", Some("bob.1"));
    forge.welcome("bob.3", Registration::New);
    forge.caught_up("bob.3");
    let asked = forge.remove("bob.3", "bob.2");
    forge.say("alice.1", 1, 2, 3);
    forge.answer(&asked, Reply::success(asked.id));
    forge.deliver("bob.3", 1, 3, "alice.1", 2);
    let forge = finish(forge, &["alice.1", "bob.3"]);
    expect(&forge, &[]);
}

#[test]
fn what_a_trim_covers_is_excused() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    forge.deliver("bob.2", 1, 2, "alice.1", 1);
    forge.close("bob.1");
    forge.back("bob.1");
    forge.trimmed("bob.1", &[1]);
    forge.caught_up("bob.1");
    expect(&finish(forge, &ALL), &[]);
}

#[test]
fn an_old_connection_may_miss_what_comes_to_its_successor() {
    let mut forge = alice_and_bob();
    let old = forge.connection("bob.1");
    forge.say("alice.1", 1, 1, 2);
    forge.say("alice.1", 1, 2, 3);
    let before = forge.clone();
    forge.back("bob.1");
    forge.deliver("bob.1", 1, 2, "alice.1", 1);
    forge.deliver("bob.1", 1, 3, "alice.1", 2);
    forge.caught_up("bob.1");
    // The old one, which has not been closed yet, gets the later one alone.
    let mut stale = before;
    stale.deliver("bob.1", 1, 3, "alice.1", 2);
    let what = stale.run.records.pop().expect("it was delivered").what;
    forge.write(&old, what);
    for (seq, number) in [(2, 1), (3, 2)] {
        forge.deliver("bob.2", 1, seq, "alice.1", number);
    }
    expect(&finish(forge, &ALL), &[]);
}
