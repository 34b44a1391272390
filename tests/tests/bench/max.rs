//! `tidings bench max`, with raw JetStream beside it.

use tidings_nats::{Bus, setup};
use tidings_tests::System;

use crate::run::Run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_much_as_possible_arrives_and_is_set_beside_raw_jetstream() {
    let options = "--processes 3 --clients 40 --chats 40 --members 4 --in-flight 16 --warmup 1 --seconds 3 --raw --raw-seconds 1 \
                   --raw-window 64";
    let options: Vec<&str> = options.split_whitespace().collect();
    let run = Run::of("max", &options).await;
    run.assert_nothing_is_missing();
    run.assert_series();
    run.assert_plot(&["p99 of a second", "accept", "delivery"]);
    let (system, raw) = (
        run.number("/deliveriesPerSecond"),
        run.number("/raw/entriesPerSecond"),
    );
    assert!(system > 0.0 && raw > 0.0, "{:#}", run.json);
    assert!(
        (run.number("/ratio") - system / raw).abs() < 1e-6,
        "{:#}",
        run.json
    );
    assert!(
        run.number("/raw/natsMicrosecondsPerEntry") > 0.0,
        "{:#}",
        run.json["raw"]
    );
    // A text of 200 bytes, three UUIDs and a user; and headers.
    let bytes = run.count("/raw/entryBytes");
    assert!((300..600).contains(&bytes), "{bytes}");
    assert!(run.table.contains("raw JetStream"), "{}", run.table);

    let bus = Bus::new(System::shared().await.nats().await);
    let left = setup::stream_config(&bus, "BENCH_00").await;
    assert_eq!(left.expect("NATS answers"), None, "the streams are deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_jetstream_is_measured_alone() {
    let options = "--clients 40 --chats 40 --members 4 --raw-seconds 1 --raw-window 8";
    let options: Vec<&str> = options.split(' ').collect();
    let run = Run::of("raw", &options).await;
    for part in ["/raw", "/raw/storedOnly"] {
        assert!(
            run.number(&format!("{part}/entriesPerSecond")) > 0.0,
            "{:#}",
            run.json
        );
        assert!(
            run.number(&format!("{part}/natsMicrosecondsPerEntry")) > 0.0,
            "{:#}",
            run.json
        );
    }
    assert!(run.table.contains("so deletion takes"), "{}", run.table);
    assert_eq!(run.count("/raw/window"), 8);
}
