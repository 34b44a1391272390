//! Every metric that the sources name is described where its crate lists them, and told in the guide; and the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::prometheus::repository;
use crate::guide::GUIDE;

const CRATES: [&str; 5] = ["service", "gateway", "fanout-worker", "inbox-worker", "media"];
const KINDS: [&str; 3] = ["counter", "gauge", "histogram"];

/// The sources of a crate, without tests of their own folder.
fn sources(folder: &Path, texts: &mut Vec<String>) {
    for file in std::fs::read_dir(folder).expect("the sources are there") {
        let path = file.expect("the folder can be read").path();
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(std::fs::read_to_string(&path).expect("a source is text"));
        }
    }
}

/// The names that stand first behind an opening, with their kind.
fn named(text: &str, opening: impl Fn(&str) -> String) -> Vec<(String, &'static str)> {
    let mut names = Vec::new();
    for kind in KINDS {
        let opening = opening(kind);
        for (at, _) in text.match_indices(&opening) {
            let behind = text[at + opening.len()..].trim_start();
            if let Some((name, _)) = behind.strip_prefix('"').and_then(|name| name.split_once('"')) {
                names.push((name.to_owned(), kind));
            }
        }
    }
    names
}

/// The first column of the table of metrics.
fn told() -> BTreeSet<String> {
    let (_, section) = GUIDE.split_once("\n## 5. ").expect("the guide has it");
    let (section, _) = section.split_once("\n## 6. ").expect("and goes on");
    section
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .split_once(" | ")
                .map(|(column, _)| column)
        })
        .flat_map(|column| column.split('`'))
        .filter(|name| name.starts_with("tidings_") || name.starts_with("process_"))
        .map(|name| name.split('{').next().unwrap_or(name).to_owned())
        .collect()
}

#[test]
fn what_is_measured_is_described_and_told() {
    let (mut used, mut described) = (BTreeMap::new(), BTreeMap::new());
    for name in CRATES {
        let mut texts = Vec::new();
        sources(&repository().join(name).join("src"), &mut texts);
        for text in texts {
            used.extend(named(&text, |kind| format!("metrics::{kind}!(")));
            for (name, kind) in named(&text, |kind| format!("Metric::{kind}(")) {
                assert_eq!(
                    described.insert(name.clone(), kind),
                    None,
                    "{name} is described twice"
                );
            }
        }
    }
    assert!(used.len() >= 80, "{}", used.len());
    assert_eq!(used, described, "what is used is not what is described");
    let names: BTreeSet<String> = described.into_keys().collect();
    let told = told();
    let difference: Vec<&String> = names.symmetric_difference(&told).collect();
    assert!(
        difference.is_empty(),
        "only in the sources or only in the guide: {difference:?}"
    );
    for name in names {
        // As Prometheus' conventions have it: what counts ends so, and nothing else does.
        let counts = used[&name] == "counter" || name == "process_cpu_seconds_total";
        assert_eq!(name.ends_with("_total"), counts, "{name}");
    }
}
