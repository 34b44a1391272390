//! What travels on the bus, as versions of this crate wrote it: `nats/recorded/<number>.json`, each the set that some
//! version wrote, byte for byte. While a system is upgraded, the version before writes and reads beside this one, and
//! streams hold what it wrote. So, of the two newest sets:
//!
//! - this version reads everything in both, as the values that are recorded beside the bytes;
//! - this version writes exactly the newest;
//! - of what the newest holds, the set before has the same, or has it as something that it reads already: a version
//!   *writes* nothing that the version before does not *read*.
//!
//! `TIDINGS_WRITE=1 cargo test -p tidings-nats recorded` writes what this version writes: into the newest set where that
//! only grows, beside it as a new one where bytes change. `docs/adr/0023-*.md` says how a format is changed.

mod samples;
mod set;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use self::samples::{Sample, names, samples};
use self::set::{Record, Set, breaches, changes};
use crate::{Entry, Event, Invalidation};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded")
}

/// What this version writes, and what it reads besides.
fn current() -> Set {
    Set {
        names: names(),
        messages: samples().iter().map(Record::of).collect(),
    }
}

/// The newest set and the one before, the newest last.
fn recorded() -> Vec<(u32, Set)> {
    let mut sets = Set::all(&dir());
    sets.drain(..sets.len().saturating_sub(2));
    sets
}

/// Reads all of a set. What it cannot read, or reads as something else, is told.
fn unread(set: &Set) -> Vec<String> {
    set.messages
        .iter()
        .filter_map(|record| {
            let told = |what: String| Some(format!("{}, {}: {what}", record.kind, record.name));
            match Sample::decode(&record.kind, &record.payload()) {
                Err(error) => told(format!("cannot be read: {error}")),
                Ok(sample) if sample.kind() != record.kind => told(format!("is read as {}", sample.kind())),
                Ok(sample) if !set::has_all(&sample.value(), &record.value) => {
                    told(format!("is read as {}, and was {}", sample.value(), record.value))
                }
                Ok(_) => None,
            }
        })
        .collect()
}

#[test]
fn what_was_recorded_is_read() {
    for (number, set) in recorded() {
        assert!(!set.messages.is_empty(), "set {number} has something");
        assert_eq!(unread(&set), [""; 0], "set {number}");
    }
}

#[test]
fn what_is_written_is_what_was_recorded() {
    let current = current();
    let mut sets = recorded();
    if std::env::var_os("TIDINGS_WRITE").is_some() {
        let number = match sets.last() {
            None => 1,
            Some((number, newest)) if changes(newest, &current).is_empty() => *number,
            Some((number, _)) => number + 1,
        };
        current.write(&dir(), number);
        sets = recorded();
    }
    let (number, newest) = sets.last().expect("a set is recorded");
    assert!(
        *newest == current,
        "nats/recorded/{number}.json is not what this version writes ({:?}): read docs/adr/0023-two-versions-at-once.md, then \
         run this test with TIDINGS_WRITE=1",
        changes(newest, &current)
    );
}

#[test]
fn what_is_written_can_be_read_by_the_version_before() {
    let sets = recorded();
    for two in sets.windows(2) {
        let [(before, old), (number, new)] = two else {
            unreachable!("windows of two");
        };
        assert_eq!(breaches(old, new), [""; 0], "set {number} after set {before}");
    }
}

/// The names of an enum's variants, as serde knows them.
fn variants<T: DeserializeOwned>() -> Vec<String> {
    let Err(error) = serde_json::from_str::<T>(r#""no such variant""#) else {
        panic!("no enum has this variant");
    };
    // unknown variant `no such variant`, expected `A` or `B`
    let text = error.to_string();
    let names = text.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert!(text.starts_with("unknown variant"), "{text}");
    names
}

#[test]
fn every_kind_is_recorded() {
    assert_eq!(
        variants::<Event>(),
        ["Message", "ChatUpdate"],
        "the guard reads serde's words"
    );
    let mut kinds = BTreeSet::new();
    for (of, variants) in [
        ("event", variants::<Event>()),
        ("entry", variants::<crate::body::WireContent>()),
        ("list", vec!["of entries".to_owned()]),
        ("invalidation", variants::<Invalidation>()),
        ("lost", variants::<tidings_protocol::TrimReason>()),
        ("close", variants::<crate::CloseReason>()),
        ("live", crate::live::kinds_read()),
        ("direct", variants::<crate::DirectAnswer>()),
        (
            "value of",
            ["SESSIONS", "TRIALS", "INSTANCES"].map(str::to_owned).into(),
        ),
    ] {
        kinds.extend(variants.into_iter().map(|variant| format!("{of} {variant}")));
    }
    let recorded: BTreeSet<String> = current().messages.into_iter().map(|record| record.kind).collect();
    assert_eq!(
        recorded, kinds,
        "samples() in nats/src/recorded_tests/samples.rs has each kind"
    );
}

#[test]
fn the_stream_says_which_format_its_events_have() {
    let definition: serde_json::Value =
        serde_json::from_str(include_str!("../definitions/chats.json")).expect("the definition is JSON");
    assert_eq!(
        definition["metadata"]["tidings.format"],
        crate::FORMAT.to_string()
    );
}

/// The guards themselves: each kind of mistake is told.
mod mistakes {
    use super::*;

    fn message(set: &mut Set) -> &mut Record {
        let found = set
            .messages
            .iter_mut()
            .find(|record| record.kind == "event Message");
        found.expect("messages are recorded")
    }

    #[test]
    fn fields_in_another_order_are_read_as_something_else_or_not_at_all() {
        let mut old = current();
        let record = message(&mut old);
        // Two ids of 17 bytes behind the version and the kind: the chat's and the message's.
        let (head, rest) = record.payload.split_at(4);
        let (chat, rest) = rest.split_at(34);
        let (id, rest) = rest.split_at(34);
        record.payload = format!("{head}{id}{chat}{rest}");
        assert_eq!(unread(&old).len(), 1, "{:?}", unread(&old));
        message(&mut old).payload.truncate(30);
        assert_eq!(unread(&old).len(), 1, "{:?}", unread(&old));
    }

    #[test]
    fn bytes_that_the_version_before_does_not_read_are_not_written() {
        let (old, mut new) = (current(), current());
        assert_eq!(breaches(&old, &new), [""; 0]);
        message(&mut new).payload.push_str("00");
        assert_eq!(changes(&old, &new).len(), 1);
        assert_eq!(breaches(&old, &new).len(), 1);
        // Unless it was recorded as something that it reads.
        let mut taught = old.clone();
        let mut read = message(&mut new).clone();
        read.written = false;
        read.name = "of the next version".to_owned();
        taught.messages.push(read);
        assert_eq!(breaches(&taught, &new), [""; 0]);
    }

    #[test]
    fn a_kind_that_the_version_before_does_not_know_is_not_written() {
        let (mut old, new) = (current(), current());
        old.messages.retain(|record| record.kind != "live Beacon");
        assert_eq!(breaches(&old, &new).len(), 1);
        // On subjects of its own, where nobody before listens, it may be.
        let mut old = current();
        old.messages.retain(|record| !record.kind.starts_with("close "));
        assert_eq!(breaches(&old, &new), [""; 0]);
    }

    #[test]
    fn json_may_get_more_fields_and_lose_none() {
        let (old, mut new) = (current(), current());
        let of_sessions = |set: &mut Set, payload: &str| {
            let found = set
                .messages
                .iter_mut()
                .find(|record| record.kind == "value of SESSIONS");
            payload.clone_into(&mut found.expect("there is one").payload);
        };
        let text = of_kind(&old, "value of SESSIONS").payload.clone();
        of_sessions(&mut new, &text.replacen('{', r#"{"more":1,"#, 1));
        assert_eq!(breaches(&old, &new), [""; 0]);
        assert_eq!(
            unread(&new),
            [""; 0],
            "and this version ignores what it does not know"
        );
        of_sessions(&mut new, &text.replace("gateway", "host"));
        assert_eq!(breaches(&old, &new).len(), 1);
    }

    #[test]
    fn subjects_and_headers_stay() {
        let (old, mut new) = (current(), current());
        message(&mut new).headers.remove("Tidings-Chat");
        assert_eq!(breaches(&old, &new).len(), 1);
        let mut new = current();
        message(&mut new).subject.push('x');
        assert_eq!(breaches(&old, &new).len(), 1);
        let mut new = current();
        new.names
            .insert("stream of an inbox".to_owned(), "IN_48".to_owned());
        assert_eq!(breaches(&old, &new).len(), 1);
    }

    fn of_kind<'a>(set: &'a Set, kind: &str) -> &'a Record {
        let found = set.messages.iter().find(|record| record.kind == kind);
        found.expect("each kind is recorded")
    }
}

/// What a worker stores is what it got, in the format in which it got it.
#[test]
fn entries_are_made_of_recorded_events() {
    for (_, set) in recorded() {
        for record in set
            .messages
            .iter()
            .filter(|record| record.kind.starts_with("event "))
        {
            let event = record.payload();
            let entry = Entry::encode_around(300, &event).expect("it is an event");
            assert_eq!(entry[0], event[0], "the entry has the event's format");
            let entry = Entry::decode(&entry).expect("it is an entry");
            assert_eq!(entry.seq, 300);
            assert_eq!(Ok(entry.event), Event::decode(&event));
        }
    }
}
