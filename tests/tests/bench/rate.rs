//! `tidings bench rate`.

use crate::run::Run;

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
