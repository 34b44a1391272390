//! `tidings bench storm`.

use tidings_tests::System;

use crate::run::{Run, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_comes_back_and_nothing_is_missing() {
    let options =
        "--processes 2 --clients 12 --devices 2 --chats 4 --members 3 --rate 20 --warmup 2 --seconds 2";
    let options: Vec<&str> = options.split(' ').collect();
    let run = Run::of("storm", &options).await;
    run.assert_nothing_is_missing();
    run.assert_series();
    run.assert_plot(&["p99 of a second"]);
    assert_eq!(run.count("/return/cut"), 12);
    assert_eq!(run.count("/return/back/count"), 12);
    assert!(run.number("/return/back/max") > 0.0, "{:#}", run.json["return"]);
    // Of what came within 200 ms before the cut nothing was confirmed: it comes again.
    assert!(run.count("/tally/redelivered") > 0, "{:#}", run.json["tally"]);
    let (due_later, all) = (run.count("/accept/count"), run.count("/tally/sent"));
    assert!(0 < due_later && due_later < all, "{due_later} of {all}");
    assert!(
        run.number("/return/peakResidentBytes") > 1e6,
        "{:#}",
        run.json["return"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_needs_no_messages() {
    let options = "--clients 8 --chats 1 --members 2 --rate 0 --warmup 0 --seconds 0";
    let options: Vec<&str> = options.split(' ').collect();
    let system = System::shared().await;
    let output = run(system, "storm", &options).await;
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{table}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(table.contains("8 of 8 clients are back"), "{table}");
}
