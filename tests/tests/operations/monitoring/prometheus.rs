//! A real Prometheus, from Debian's package: on PATH, or else taken out of it, once. Debian's maintainers' scripts would start a
//! server at the installation, and it is only two programs that are needed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tidings_tests::{System, eventually};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

const PACKAGE: &str = "prometheus";

static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();

/// The folder that holds `prometheus` and `promtool`.
pub(super) async fn folder() -> &'static Path {
    FOLDER.get_or_init(find).await
}

async fn find() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |folder: &PathBuf| folder.join("prometheus").is_file() && folder.join("promtool").is_file();
    if let Some(folder) = std::env::split_paths(&path).find(has) {
        return folder;
    }
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("target/tmp is in target")
        .join("tools/prometheus");
    let folder = tools.join("usr/bin");
    if !has(&folder) {
        eprintln!(
            "there is no `prometheus` on PATH: taking Debian's into {}",
            tools.display()
        );
        std::fs::create_dir_all(&tools).expect("the target folder is writable");
        let script = format!(
            "{{ apt-get download {PACKAGE} || {{ apt-get update && apt-get download {PACKAGE}; }}; }} && dpkg-deb --extract {PACKAGE}_*.deb . && rm {PACKAGE}_*.deb"
        );
        let taken = Command::new("sh")
            .args(["-c", &script])
            .current_dir(&tools)
            .status()
            .await;
        assert!(
            taken.as_ref().is_ok_and(std::process::ExitStatus::success),
            "`prometheus` and `promtool` are neither on PATH nor in a package of Debian: {taken:?}"
        );
    }
    folder
}

/// The folder of the repository.
pub(super) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package is in the workspace")
}

/// A Prometheus that scrapes a system every second, with our alert rules. Ends when dropped.
pub(super) struct Prometheus {
    url: String,
    http: reqwest::Client,
    _folder: TempDir,
    _process: Child,
}

impl Prometheus {
    /// Returns once it has scraped every service of the system.
    pub(super) async fn watching(system: &System) -> Self {
        tidings_service::start::install_crypto_provider();
        let targets: Vec<(String, String)> = system
            .up_file()
            .processes
            .into_iter()
            .filter_map(|process| {
                let job = process
                    .name
                    .trim_end_matches(|letter: char| !letter.is_alphabetic())
                    .to_owned();
                let admin = process.admin?.strip_prefix("http://")?.to_owned();
                ["gateway", "fanout-worker", "inbox-worker", "media"]
                    .contains(&job.as_str())
                    .then_some((job, admin))
            })
            .collect();
        assert!(targets.len() >= 4, "{targets:?}");
        let folder = TempDir::with_prefix("tidings-prometheus-").expect("a folder for the test");
        let config = folder.path().join("prometheus.json");
        std::fs::write(&config, config_of(&targets)).expect("the folder is writable");
        let port = tidings_stack::free_ports(1).expect("loopback has free ports")[0];
        let process = Command::new(self::folder().await.join("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it was found");
        let prometheus = Self {
            url: format!("http://127.0.0.1:{port}"),
            http: reqwest::Client::new(),
            _folder: folder,
            _process: process,
        };
        eventually("every service is scraped", async || {
            match prometheus.query("count(up == 1)").await {
                Ok(found) if found.first() == Some(&(targets.len() as f64)) => Ok(()),
                other => Err(other),
            }
        })
        .await;
        prometheus
    }

    /// The values of the series that a query finds now.
    pub(super) async fn query(&self, query: &str) -> Result<Vec<f64>, String> {
        let answer = self.get("query", &[("query", query)]).await?;
        let data = &answer["data"];
        if data["resultType"] == "scalar" {
            return Ok(data["result"][1]
                .as_str()
                .and_then(|value| value.parse().ok())
                .into_iter()
                .collect());
        }
        let series = data["result"].as_array().ok_or("no list of series")?;
        let values = series
            .iter()
            .map(|series| series["value"][1].as_str()?.parse().ok());
        Ok(values.flatten().collect())
    }

    /// The rules that it evaluates.
    pub(super) async fn rules(&self) -> Vec<Value> {
        let answer = self.get("rules", &[]).await.expect("it tells its rules");
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect()
    }

    async fn get(&self, what: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let mut url = url::Url::parse(&format!("{}/api/v1/{what}", self.url)).expect("a good URL");
        url.query_pairs_mut().extend_pairs(query);
        let text = async { self.http.get(url).send().await?.text().await };
        let text = text.await.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        if answer["status"] == "success" {
            Ok(answer)
        } else {
            Err(answer["error"].to_string())
        }
    }
}

/// JSON is YAML. The rules are those that are shipped, with the job of a target as there.
fn config_of(targets: &[(String, String)]) -> String {
    let targets: Vec<Value> = targets
        .iter()
        .map(|(job, admin)| serde_json::json!({ "targets": [admin], "labels": { "job": job } }))
        .collect();
    serde_json::json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": [repository().join("deploy/prometheus/alerts.yaml")],
        "scrape_configs": [{ "job_name": "tidings", "static_configs": targets }],
    })
    .to_string()
}
