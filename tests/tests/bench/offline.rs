//! `tidings bench offline`.

use serde_json::Value;

use crate::run::Run;

/// Numbers that any run must have.
fn assert_stored_and_drained(run: &Run, entries: u64) {
    assert_eq!(run.count("/store/entries"), entries);
    assert_eq!(run.count("/drain/entries"), entries);
    for number in [
        "/store/entriesPerSecond",
        "/drain/entriesPerSecond",
        "/drain/caughtUp/p50",
        "/storage/streamBytesPerEntry",
        "/storage/stored/diskBytes",
    ] {
        assert!(run.number(number) > 0.0, "{number}: {:#}", run.json);
    }
    let seconds = [
        "/drain/receivedSeconds",
        "/drain/seconds",
        "/drain/deletedSeconds",
    ];
    assert!(
        seconds.map(|pointer| run.number(pointer)).is_sorted(),
        "{:#}",
        run.json["drain"]
    );
    let held = |when: &str| run.count(&format!("/storage/{when}/entries"));
    assert_eq!(held("stored") - held("before"), entries);
    assert_eq!(held("drained"), held("before"));
    // A text of 200 bytes, three UUIDs and a user; headers; the subject.
    let bytes = run.number("/storage/streamBytesPerEntry");
    assert!((300.0..700.0).contains(&bytes), "{bytes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_absent_is_stored_and_all_of_it_comes_when_they_do() {
    let options = "--clients 12 --chats 8 --members 4 --senders 2 --entries 10";
    let options: Vec<&str> = options.split(' ').collect();
    let run = Run::of("offline", &options).await;
    // Each of the 8 chats has 3 of 12 who are away: each is in 2, and gets 10 from 5 rounds.
    assert_eq!(
        (run.count("/waiting/fewest"), run.count("/waiting/most")),
        (10, 10)
    );
    assert_eq!(run.count("/store/messages"), 40);
    run.assert_whole(3);
    assert_stored_and_drained(&run, 120);
    assert_eq!(run.count("/drain/caughtUp/count"), 12);
    assert!(run.table.contains("caught up"), "{}", run.table);
    assert_ne!(run.json["store"]["interval"]["servers"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_that_is_absent_has_entries() {
    let options = "--processes 2 --clients 6 --devices 2 --chats 2 --members 3 --senders 1 --messages 9 --codec postcard";
    let options: Vec<&str> = options.split(' ').collect();
    let run = Run::of("offline", &options).await;
    assert_eq!(run.count("/store/messages"), 9);
    // Two of three members have two devices each that are away; the sender has another one that is not.
    run.assert_whole(5);
    assert_eq!(run.count("/store/entries"), 36);
    assert_eq!(
        run.count("/storage/drained/entries"),
        run.count("/storage/before/entries")
    );
    assert_eq!(run.count("/drain/caughtUp/count"), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_client_drains_a_long_inbox() {
    let run = Run::of("offline", &["--single", "--entries", "500", "--connecting", "1"]).await;
    assert_eq!(
        (run.count("/waiting/fewest"), run.count("/waiting/most")),
        (500, 500)
    );
    assert_stored_and_drained(&run, 500);
    assert_eq!(run.count("/drain/caughtUp/count"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_stays_where_nobody_is_to_come_back() {
    let options = "--prefix away --clients 6 --chats 4 --members 4 --senders 1 --messages 8 --stay-away";
    let options: Vec<&str> = options.split(' ').collect();
    let run = Run::of("offline", &options).await;
    assert_eq!(run.count("/store/entries"), 24);
    assert_eq!(run.json["drain"], Value::Null);
    let held = |when: &str| run.count(&format!("/storage/{when}/entries"));
    assert_eq!(held("stored") - held("before"), 24);
    assert_eq!(run.count("/tally/missing"), 0);
    assert!(!run.table.contains("drained"), "{}", run.table);
}
