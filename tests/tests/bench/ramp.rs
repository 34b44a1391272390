//! `tidings bench ramp`.

use serde_json::Value;

use crate::run::Run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_highest_rate_lies_between_one_that_went_well_and_one_that_did_not() {
    let options = "--clients 8 --chats 40 --members 4 --from 100 --p99 400 --resolution 60 --tries 1 --warmup 0.5 \
                   --seconds 1";
    let options: Vec<&str> = options.split_whitespace().collect();
    let run = Run::of("ramp", &options).await;
    // With four members.
    run.assert_whole(3);
    run.assert_series();
    run.assert_plot(&["p99 of a second", "bound of p99", "messages a second"]);

    let steps = run.json["steps"].as_array().expect("there are steps");
    let rates = |good: bool| {
        let steps = steps.iter().filter(move |step| step["good"] == Value::Bool(good));
        steps.filter_map(|step| step["rate"].as_f64())
    };
    let highest = run.number("/highestRate");
    let lowest_bad = rates(false).fold(f64::INFINITY, f64::min);
    let highest_good = rates(true).fold(0.0, f64::max);
    assert!((highest_good - highest).abs() < 1e-6, "{steps:#?}");
    assert!(
        highest < lowest_bad && lowest_bad <= highest * 1.6,
        "{highest} and {lowest_bad}: {steps:#?}"
    );
    for step in steps {
        assert_eq!(step["complete"], true, "{step:#}");
        let p99 = step["delivery"]["p99"].as_f64().expect("each step delivers");
        let good = step["good"].as_bool().expect("it says so");
        assert!(!good || p99 <= 400.0, "{step:#}");
    }
    assert!(run.table.contains("highest rate"), "{}", run.table);
}
