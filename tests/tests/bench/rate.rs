//! `tidings bench rate`.

use tidings_tests::{System, SystemOptions};

use crate::run::{Run, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_kept_and_everything_arrives() {
    let options = "--codec postcard --clients 8 --chats 5 --members 4 --rate 20 --warmup 1 --seconds 3";
    let options: Vec<&str> = options.split(' ').collect();
    let run = Run::of("rate", &options).await;
    run.assert_nothing_is_missing();
    run.assert_series();
    run.assert_plot(&["p50 of a second", "p99 of a second", "accept", "delivery", "90 %"]);
    assert_eq!(run.count("/tally/sent"), 80);
    assert_eq!(run.count("/accept/count"), 60);
    assert_eq!(run.count("/delivery/count"), 180);
    assert!(
        run.number("/interval/servers/0/cpuSeconds") > 0.0,
        "{:#}",
        run.json
    );
    assert!(run.table.contains("us/delivery"), "{}", run.table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_device_gets_a_copy_but_the_one_that_sent_it() {
    // All of 127.0.0.0/8 is this machine.
    let options = "--clients 12 --devices 3 --chats 5 --members 3 --rate 20 --warmup 0 --seconds 2 \
                   --source 127.0.0.7,127.0.0.8";
    let options: Vec<&str> = options.split_whitespace().collect();
    let run = Run::of("rate", &options).await;
    run.assert_whole(8);
    assert_eq!(run.count("/tally/sent"), 40);
    assert_eq!(run.count("/tally/expected"), 320);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_with_an_error_when_messages_are_refused() {
    let system = System::start(&SystemOptions {
        rate_limits: true,
        ..SystemOptions::default()
    })
    .await;
    // A client may send 60 at once, and then 5 a second.
    let options = "--clients 2 --chats 1 --members 2 --rate 200 --warmup 0 --seconds 1";
    let options: Vec<&str> = options.split(' ').collect();
    let output = run(&system, "rate", &options).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains(
            "messages were refused with rate_limited: start the system with `tidings up --rate-limits off`"
        ),
        "{said}"
    );
}
