//! The dashboards: that each panel says what it shows, and that each of their queries, and each alert's, finds what it asks of in
//! a system that is used.

use std::collections::BTreeSet;

use serde_json::Value;
use tidings_tests::{System, eventually};

use super::prometheus::{Prometheus, repository};
use super::queries::selectors;
use super::traffic::Traffic;

/// What Grafana puts in, here: all that happened while the test runs.
const RATE_INTERVAL: &str = "1m";

/// The dashboards, by file.
fn dashboards() -> Vec<(String, Value)> {
    let folder = repository().join("deploy/grafana/dashboards");
    let files = std::fs::read_dir(&folder).expect("the dashboards are there");
    let boards: Vec<(String, Value)> = files
        .map(|file| {
            let path = file.expect("the folder can be read").path();
            let text = std::fs::read_to_string(&path).expect("a dashboard is a file");
            let name = path
                .file_stem()
                .and_then(|name| name.to_str())
                .expect("it has a name");
            (
                name.to_owned(),
                serde_json::from_str(&text).expect("a dashboard is JSON"),
            )
        })
        .collect();
    assert!(boards.len() >= 4);
    boards
}

/// The panels that show something.
fn panels(board: &Value) -> Vec<&Value> {
    let panels = board["panels"].as_array().expect("a dashboard has panels");
    panels.iter().filter(|panel| panel["type"] != "row").collect()
}

/// Where each query stands, and the query as Prometheus gets it.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (name, board) in dashboards() {
        for panel in panels(&board) {
            let targets = panel["targets"].as_array().expect("a panel has targets");
            assert!(!targets.is_empty());
            for target in targets {
                let query = target["expr"].as_str().expect("a target has a query");
                let query = query.replace("$__rate_interval", RATE_INTERVAL);
                assert!(!query.contains('$'), "{query}");
                let title = panel["title"].as_str().expect("a panel has a title");
                queries.push((format!("{name}: {title}"), query));
            }
        }
    }
    queries
}

#[test]
fn every_panel_says_what_it_shows_and_has_a_place_of_its_own() {
    let mut uids = BTreeSet::new();
    for (name, board) in dashboards() {
        assert!(uids.insert(board["uid"].to_string()), "{name}");
        assert_eq!(board["templating"]["list"][0]["name"], "datasource", "{name}");
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in board["panels"].as_array().expect("a list") {
            let title = panel["title"].as_str().expect("a panel has a title");
            assert!(
                ids.insert(panel["id"].as_u64().expect("a number")),
                "{name}: {title}"
            );
            let place = |side: &str| panel["gridPos"][side].as_u64().expect("a number");
            assert!(place("x") + place("w") <= 24, "{name}: {title}");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(taken.insert((x, y)), "{name}: {title} lies on another panel");
                }
            }
        }
        for panel in panels(&board) {
            let title = &panel["title"];
            let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
            assert!(text(&panel["description"]), "{name}: {title} has no description");
            assert!(
                text(&panel["fieldConfig"]["defaults"]["unit"]),
                "{name}: {title} has no unit"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}: {title}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_finds_what_it_asks_of() {
    let system = System::shared().await;
    let prometheus = Prometheus::watching(system).await;
    let mut traffic = Traffic::new(system).await;
    let rules = prometheus.rules().await;
    assert!(rules.len() >= 30, "{}", rules.len());
    let queries = queries();
    assert!(queries.len() >= 100, "{}", queries.len());
    let alerts = rules.iter().map(|rule| {
        let text = |field: &str| rule[field].as_str().expect("a rule has it").to_owned();
        (format!("alert {}", text("name")), text("query"))
    });
    let asked: BTreeSet<(String, String)> = queries
        .iter()
        .cloned()
        .chain(alerts)
        .flat_map(|(place, query)| {
            selectors(&query)
                .into_iter()
                .map(move |selector| (place.clone(), selector))
        })
        .collect();

    eventually("every query finds something", async || {
        traffic.go_on().await;
        let mut missing = Vec::new();
        for (place, query) in &queries {
            match prometheus.query(query).await {
                // Not a number is what nothing divided by nothing is.
                Ok(found) if found.iter().any(|value| !value.is_nan()) => {}
                other => missing.push(format!("{place}: {query}: {other:?}")),
            }
        }
        for (place, selector) in &asked {
            match prometheus.query(selector).await {
                Ok(found) if !found.is_empty() => {}
                other => missing.push(format!("{place}: {selector}: {other:?}")),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    })
    .await;

    // And says what happened.
    for query in [
        "sum(rate(tidings_messages_accepted_total[1m]))",
        "sum(rate(tidings_deliveries_total{way=\"live\"}[1m]))",
        "sum(rate(tidings_confirmed_total[1m]))",
        "sum(rate(tidings_errors_total{code=\"not_found\"}[1m]))",
        "sum(rate(tidings_media_uploads_total{outcome=\"stored\"}[1m]))",
        "sum(rate(tidings_cache_lookups_total{cache=\"chats\",outcome=\"hit\"}[1m]))",
        "histogram_quantile(0.99, sum by (le) (rate(tidings_fanout_lag_seconds_bucket[1m])))",
        "sum(tidings_sessions)",
    ] {
        let found = prometheus.query(query).await;
        assert!(
            matches!(found.as_deref(), Ok([value]) if *value > 0.0),
            "{query}: {found:?}"
        );
    }
    for rule in prometheus.rules().await {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let unknown = prometheus.query("sum(tidings_backlog_failures_total)").await;
    assert_eq!(
        unknown.as_deref(),
        Ok([0.0].as_slice()),
        "what waits is not known"
    );
    let waits = async || {
        prometheus
            .query("sum(max by (shard) (tidings_inbox_entries) >= 0)")
            .await
    };
    eventually("carol's entries are counted", async || match waits().await {
        Ok(found) if found.iter().any(|entries| *entries > 0.0) => Ok(()),
        other => Err(other),
    })
    .await;
}
