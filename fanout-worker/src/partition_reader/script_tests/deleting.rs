//! What is finished and to be deleted, and what lies in the stream while the consumer says otherwise.

use super::*;

#[test]
fn what_was_finished_before_is_only_deleted() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Finished { sequence: 1 }, &["delete 1"]);
    // It comes once more after the ack wait, while it is being deleted, then when that has failed, then after a fresh start.
    script.deliver(2, 2, 1, "a", &["forget a"]);
    script.check(Event::Deleted { sequence: 1 }, &[]);
    script.deliver(2, 3, 1, "a", &["forget a", "delete 1"]);
    script.check(Event::Deleted { sequence: 1 }, &[]);
    script.check(Event::Doubt, &["open 3"]);
    script.after(500, &["reset 3"]);
    script.check(
        Event::Reset {
            generation: 3,
            done: true,
        },
        &["pull 1024"],
    );
    script.deliver(3, 1, 1, "a", &["forget a", "delete 1"]);
}

#[test]
fn whoever_stops_does_not_wait_for_a_deletion_for_ever() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    let within = Duration::from_secs(5);
    script.check(Event::Stop { within }, &["open 3"]);
    script.check(Event::Finished { sequence: 1 }, &["delete 1"]);
    script.after(4_900, &["renew"]);
    script.after(100, &["unpin"]);
}

#[test]
fn another_event_in_the_place_of_one_that_runs_waits_for_its_end() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Doubt, &["open 3"]);
    script.after(500, &["reset 3"]);
    script.check(was_reset(3, true), &["pull 1024"]);
    let other = |generation| Event::Delivered {
        generation,
        pin: Some("p".to_owned()),
        info: DeliveryInfo {
            delivered: 1,
            stream_sequence: 1,
            consumer_sequence: 1,
            stored_at: 77,
            pending: 0,
        },
        delivery: Delivery {
            chat: "b".into(),
            bytes: 1,
            reply: "1.1".to_owned(),
            content: (),
        },
    };
    script.check(other(3), &["cancel 1", "open 4"]);
    script.check(Event::Abandoned { sequence: 1 }, &[]);
    script.after(500, &["reset 4"]);
    script.check(was_reset(4, true), &["pull 1024"]);
    script.check(other(4), &["start 1"]);
}

#[test]
fn what_comes_behind_a_newer_one_and_is_not_known_is_a_fresh_start() {
    let mut script = Script::reading();
    script.deliver(2, 1, 5, "a", &["start 5"]);
    script.deliver(2, 2, 3, "b", &["open 3"]);
}

#[test]
fn whoever_waits_in_vain_looks_whether_something_is_forgotten() {
    let mut script = Script::reading();
    script.status(2, 2, ConsumerStatus::NotPinned, &["open 3", "ask"]);
    script.status(3, 3, ConsumerStatus::Expired, &["look", "ask"]);
    for pull in 4..8 {
        script.status(3, pull, ConsumerStatus::Expired, &["ask"]);
    }
    script.status(3, 8, ConsumerStatus::Expired, &["look", "ask"]);
}

#[test]
fn whoever_reads_and_hears_nothing_looks_too() {
    let mut script = Script::reading();
    script.status(2, 2, ConsumerStatus::Expired, &["look", "pull 1024"]);
    script.status(2, 3, ConsumerStatus::Expired, &["pull 1024"]);
    script.deliver(2, 1, 1, "a", &["start 1"]);
    // What is in hand says enough.
    script.status(2, 4, ConsumerStatus::Expired, &["pull 1024"]);
    script.check(Event::Finished { sequence: 1 }, &["delete 1"]);
    script.check(Event::Deleted { sequence: 1 }, &[]);
    script.status(2, 5, ConsumerStatus::Expired, &["look", "pull 1024"]);
}

#[test]
fn what_ran_while_the_connection_was_lost_is_deleted_when_it_comes_again() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.deliver(2, 2, 2, "b", &["start 2"]);
    script.check(Event::Disconnected, &[]);
    script.check(Event::Finished { sequence: 1 }, &[]);
    script.check(Event::Connected, &["open 3", "renew"]);
    script.status(3, 3, ConsumerStatus::Empty, &["open 4"]);
    script.after(500, &["reset 4"]);
    script.check(was_reset(4, true), &["pull 1024"]);
    script.deliver(4, 1, 1, "a", &["forget a", "delete 1"]);
    script.deliver(4, 2, 2, "b", &[]);
    script.check(Event::Finished { sequence: 2 }, &["forget b", "delete 2"]);
}
