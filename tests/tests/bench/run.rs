//! One run of `tidings bench`.

use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tidings_tests::System;
use tokio::process::Command;
use tokio::sync::Mutex;

/// One load at a time: they would wait for each other's end.
static ONE: Mutex<()> = Mutex::const_new(());

/// What came of it.
pub(crate) struct Run {
    /// What it printed.
    pub(crate) table: String,
    /// Its result.
    pub(crate) json: Value,
    /// Its plot; empty where there is none.
    pub(crate) plot: String,
}

/// Runs a scenario against a system, however it ends.
pub(crate) async fn run(system: &System, scenario: &str, options: &[&str]) -> Output {
    let _one = ONE.lock().await;
    let mut command = Command::new(System::executable());
    command
        .args(["bench", scenario, "--dir"])
        .arg(system.dir())
        .args(options)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command.output().await.expect("the command under test runs")
}

impl Run {
    /// Runs a scenario against the system that all tests here share, and expects that it ends well.
    pub(crate) async fn of(scenario: &str, options: &[&str]) -> Self {
        let system = System::shared().await;
        let folder = TempDir::new().expect("a folder for results");
        let (json, plot) = (folder.path().join("result.json"), folder.path().join("plot.svg"));
        let [json_file, plot_file] = [&json, &plot].map(|path| path.to_str().expect("the folder is UTF-8"));
        let mut options = [options, &["--json", json_file]].concat();
        if !["raw", "offline"].contains(&scenario) {
            options.extend(["--plot", plot_file]);
        }
        let output = run(system, scenario, &options).await;
        let [table, progress] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("it is text"));
        assert!(
            output.status.success(),
            "bench {scenario} {options:?}: {}\n{table}{progress}",
            output.status
        );
        let text = std::fs::read(&json).expect("it writes its result");
        Self {
            table,
            json: serde_json::from_slice(&text).expect("the result is JSON"),
            plot: std::fs::read_to_string(&plot).unwrap_or_default(),
        }
    }

    /// A number of the result, by its JSON pointer.
    pub(crate) fn number(&self, pointer: &str) -> f64 {
        let value = self.json.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("{pointer} is no number in {:#}", self.json))
    }

    /// A whole number of the result.
    pub(crate) fn count(&self, pointer: &str) -> u64 {
        let value = self.json.pointer(pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("{pointer} is no count in {:#}", self.json))
    }

    /// Messages were sent, and each came once to everybody whom it was for.
    pub(crate) fn assert_nothing_is_missing(&self) {
        self.assert_whole(self.count("/options/members") * self.count("/options/devices") - 1);
    }

    /// The same, where each message has so many recipients.
    pub(crate) fn assert_whole(&self, recipients: u64) {
        let (sent, received) = (self.count("/tally/sent"), self.count("/tally/received"));
        assert!(sent > 0, "{:#}", self.json);
        assert_eq!(received, sent * recipients, "{:#}", self.json["tally"]);
        for count in [
            "/tally/unanswered",
            "/tally/missing",
            "/tally/duplicate",
            "/tally/outOfOrder",
            "/tally/wrong",
            "/tally/unaccepted",
            "/lostConnections",
            "/trimmed",
        ] {
            assert_eq!(self.count(count), 0, "{count}: {:#}", self.json["tally"]);
        }
    }

    /// The seconds of the series hold all deliveries but those of a second that was not over.
    pub(crate) fn assert_series(&self) {
        let series = self.json["series"].as_array().expect("there is a series");
        let deliveries: u64 = series
            .iter()
            .filter_map(|point| point["deliveries"].as_u64())
            .sum();
        assert_eq!(deliveries, self.count("/tally/received"), "{series:#?}");
        let measured = series.iter().filter(|point| point["p99"].as_f64() > Some(0.0));
        assert!(measured.count() > 0, "{series:#?}");
    }

    /// The plot is a picture with lines of several points, and says what they are.
    pub(crate) fn assert_plot(&self, words: &[&str]) {
        use quick_xml::events::Event;
        let mut reader = quick_xml::Reader::from_str(&self.plot);
        let (mut lines, mut texts, mut depth) = (0, Vec::new(), 0);
        loop {
            match reader.read_event().expect("the plot is well-formed") {
                Event::Eof => break,
                Event::Start(_) => depth += 1,
                Event::End(_) => depth -= 1,
                Event::Empty(element) if element.name().as_ref() == b"polyline" => {
                    let points = element.try_get_attribute("points").expect("well-formed");
                    let points = points.expect("a line has points").value;
                    // Axes and legends have two.
                    lines += usize::from(points.split(|byte| *byte == b' ').count() > 3);
                }
                Event::Text(text) => texts.push(String::from_utf8_lossy(&text).trim().to_owned()),
                _ => {}
            }
        }
        assert_eq!(depth, 0, "every element ends: {}", self.plot);
        assert!(lines >= 2, "only {lines} lines: {}", self.plot);
        for word in words {
            assert!(
                texts.iter().any(|text| text == word),
                "{word} is not in {texts:?}"
            );
        }
    }
}
