//! The alert rules: by Prometheus' own tool, by tests of them that it runs, and that each leads to a line of the guide.

use std::collections::BTreeSet;
use std::process::Stdio;

use tokio::process::Command;

use super::prometheus::{folder, repository};
use crate::guide::GUIDE;

async fn promtool(arguments: &[&str]) -> String {
    let output = Command::new(folder().await.join("promtool"))
        .args(arguments)
        .current_dir(repository().join("deploy/prometheus"))
        .stdin(Stdio::null())
        .output()
        .await
        .expect("it was found");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "promtool {arguments:?}: {text:?}");
    text.concat()
}

#[tokio::test]
async fn rules_and_configuration_are_what_prometheus_reads() {
    promtool(&["check", "config", "prometheus.yaml"]).await;
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"]).await;
    promtool(&["test", "rules", "alerts.test.yaml"]).await;
}

/// The values of a key, in the order in which they come. The files have one key a line.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| {
            line.trim_start_matches([' ', '-'])
                .strip_prefix(key)?
                .strip_prefix(": ")
        })
        .collect()
}

#[test]
fn every_alert_leads_to_its_line_in_the_guide_and_has_one() {
    let alerts =
        std::fs::read_to_string(repository().join("deploy/prometheus/alerts.yaml")).expect("it is there");
    let names = values(&alerts, "alert");
    let runbooks = values(&alerts, "runbook");
    assert!(names.len() >= 30);
    assert_eq!(values(&alerts, "summary").len(), names.len());
    assert_eq!(values(&alerts, "severity").len(), names.len());
    let expected: Vec<String> = names
        .iter()
        .map(|name| format!("docs/OPERATIONS.md#{}", name.to_lowercase()))
        .collect();
    assert_eq!(runbooks, expected);
    let told: BTreeSet<&str> = GUIDE
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| <a id=\"tidings")?
                .split_once("</a>`")?
                .1
                .split_once('`')
        })
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        told,
        names.iter().copied().collect(),
        "the guide tells of other alerts"
    );
    for name in names {
        let anchor = format!("<a id=\"{}\"></a>`{name}`", name.to_lowercase());
        assert_eq!(
            GUIDE.matches(&anchor).count(),
            1,
            "{name} has no line in the guide"
        );
    }
}

#[test]
fn those_that_are_easily_wrong_have_a_test() {
    let tests = std::fs::read_to_string(repository().join("deploy/prometheus/alerts.test.yaml"))
        .expect("it is there");
    let tested: BTreeSet<&str> = values(&tests, "alertname").into_iter().collect();
    for name in [
        "TidingsNoGateway",
        "TidingsPartitionsUnheld",
        "TidingsStreamFills",
        "TidingsUnavailable",
    ] {
        assert!(tested.contains(name), "{name}");
    }
}
