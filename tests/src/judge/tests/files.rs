//! Attachments: what a judge must find, and what it must let pass.

use tidings_protocol::Operation;

use super::forge::{Forge, alice_and_bob, expect, finish};
use crate::history::Fetch;
use crate::judge::Kind;

const ALL: [&str; 3] = ["alice.1", "bob.1", "bob.2"];

/// alice names file 1 in message 1, at seq 2, and bob's devices have got the message.
fn named() -> Forge {
    let mut forge = alice_and_bob();
    let asked = forge.send_with("alice.1", 1, 1, &[1]);
    forge.accept(&asked, 2, false);
    for device in ["bob.1", "bob.2"] {
        forge.deliver_with(device, 1, 2, "alice.1", 1, &[1]);
        forge.confirm(device);
    }
    forge
}

/// carol is added to the chat at seq 3.
fn carol_joins(forge: &mut Forge) {
    forge.register("carol.1");
    let asked = forge.modify("alice.1", 1, "carol", Operation::Add);
    forge.changed(&asked, 3);
    for device in ["alice.1", "bob.1", "bob.2", "carol.1"] {
        forge.update(
            device,
            1,
            (3, 2),
            "alice",
            &["+carol"],
            &["alice", "bob", "carol"],
        );
        forge.confirm(device);
    }
}

#[test]
fn who_was_told_of_it_has_it() {
    let mut forge = named();
    forge.fetched("bob.1", 1, Fetch::Whole);
    forge.fetched("bob.2", 1, Fetch::GaveUp("no answer".to_owned()));
    forge.fetched("bob.2", 1, Fetch::Whole);
    forge.fetched("alice.1", 1, Fetch::Whole);
    let verdict = finish(forge, &ALL).judge();
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.figures.fetched, 3);
}

#[test]
fn a_file_that_never_came() {
    let mut forge = named();
    forge.fetched("bob.1", 1, Fetch::Whole);
    forge.fetched("bob.2", 1, Fetch::GaveUp("no answer".to_owned()));
    expect(&finish(forge, &ALL), &[Kind::FileMissing]);
}

#[test]
fn a_file_that_is_not_there_for_who_was_told_of_it() {
    let mut forge = named();
    forge.fetched("bob.1", 1, Fetch::Whole);
    forge.fetched("bob.2", 1, Fetch::Refused(404));
    expect(&finish(forge, &ALL), &[Kind::FileMissing]);
}

#[test]
fn other_bytes() {
    let mut forge = named();
    forge.fetched("bob.1", 1, Fetch::Whole);
    forge.fetched("bob.2", 1, Fetch::Wrong("too short".to_owned()));
    expect(&finish(forge, &ALL), &[Kind::FileWrong]);
}

#[test]
fn other_attachments_than_were_sent() {
    let mut forge = alice_and_bob();
    forge.say("alice.1", 1, 1, 2);
    for device in ["bob.1", "bob.2"] {
        forge.deliver_with(device, 1, 2, "alice.1", 1, &[]);
        forge.confirm(device);
    }
    let asked = forge.send_with("alice.1", 1, 2, &[1]);
    forge.accept(&asked, 3, false);
    forge.deliver_with("bob.1", 1, 3, "alice.1", 2, &[1]);
    forge.deliver_with("bob.2", 1, 3, "alice.1", 2, &[]);
    forge.fetched("bob.1", 1, Fetch::Whole);
    forge.confirm("bob.1");
    forge.confirm("bob.2");
    expect(&finish(forge, &ALL), &[Kind::Disagreement]);
}

#[test]
fn a_stranger_gets_nothing() {
    let mut forge = named();
    for device in ["bob.1", "bob.2"] {
        forge.fetched(device, 1, Fetch::Whole);
    }
    forge.register("carol.1");
    forge.fetched("carol.1", 1, Fetch::Refused(404));
    let all = ["alice.1", "bob.1", "bob.2", "carol.1"];
    let verdict = finish(forge.clone(), &all).judge();
    assert!(verdict.is_clean(), "{verdict}");
    forge.fetched("carol.1", 1, Fetch::Whole);
    expect(&finish(forge, &all), &[Kind::FileShown]);
}

#[test]
fn who_joined_later_gets_nothing() {
    let mut forge = named();
    for device in ["bob.1", "bob.2"] {
        forge.fetched(device, 1, Fetch::Whole);
    }
    carol_joins(&mut forge);
    forge.fetched("carol.1", 1, Fetch::Whole);
    let all = ["alice.1", "bob.1", "bob.2", "carol.1"];
    expect(&finish(forge, &all), &[Kind::FileShown]);
}

#[test]
fn who_joined_while_it_was_being_sent_may_get_it() {
    let mut forge = alice_and_bob();
    let asked = forge.send_with("alice.1", 1, 1, &[1]);
    carol_joins(&mut forge);
    forge.accept(&asked, 2, false);
    for device in ["bob.1", "bob.2"] {
        forge.deliver_with(device, 1, 2, "alice.1", 1, &[1]);
    }
    forge.fetched("carol.1", 1, Fetch::Whole);
    let verdict = forge.judge();
    assert!(!verdict.counts.contains_key(&Kind::FileShown), "{verdict}");
}
