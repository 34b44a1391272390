//! What is told while a load runs, and the wait for the rest of it.

use std::time::{Duration, Instant};

use tokio::time::{Instant as TokioInstant, sleep_until};

use super::observed::Load;
use super::say;

/// Between two lines of progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks whether everything has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// After the last expected copy: a second copy of something would come about now.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Waits until then, and calls `each_second` meanwhile.
pub(crate) async fn each_second_until(load: &Load, end: Instant, each_second: &impl Fn(&Load)) {
    let end = TokioInstant::from_std(end);
    loop {
        let next = TokioInstant::now() + REPORT_INTERVAL;
        sleep_until(end.min(next)).await;
        if next >= end {
            return;
        }
        each_second(load);
    }
}

/// Tells how it goes, with the latency of the last full second.
pub(crate) fn report(load: &Load) {
    let now = load.now();
    let (sent, (answered, expected), came, last) = {
        let mut ledger = load.ledger();
        let last = ledger.series(now).points().last().copied();
        (ledger.sent_so_far(), ledger.so_far(), ledger.came(), last)
    };
    let latency = last.and_then(|point| Some((point.deliveries, point.p50?, point.p99?)));
    let latency = latency.map_or_else(
        || "nothing in the last second".to_owned(),
        |(deliveries, p50, p99)| format!("{deliveries}/s  p50 {p50:.1} ms  p99 {p99:.1} ms"),
    );
    say(&format!(
        "{:5.1} s  sent {sent}  answered {answered}  delivered {came} of {expected}  {latency}",
        now.as_secs_f64(),
    ));
}

/// Until every message is answered and every copy is here, or patience ends; says whether all is here.
pub(crate) async fn wait_for_the_rest(load: &Load, patience: Duration) -> bool {
    let began = Instant::now();
    let mut reported = began;
    while !load.ledger().is_complete() {
        if began.elapsed() >= patience {
            return false;
        }
        if reported.elapsed() > REPORT_INTERVAL {
            reported = Instant::now();
            report(load);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    true
}

/// Waits for what should not come any more.
pub(crate) async fn wait_for_the_unexpected() {
    tokio::time::sleep(AFTERMATH).await;
}
