//! The services' own numbers, from their `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use prometheus_parse::{Sample, Scrape, Value};
use url::{Host, Url};

use crate::UpFile;

/// A process that does not answer within this is shown as one; the others must not wait for it long.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Asked at the same time; a fleet of hundreds takes a fraction of a second.
const AT_ONCE: usize = 64;
/// Some 30 KB are usual.
const BYTES_MAX: usize = 4 << 20;

/// Asks every process for its numbers.
pub(super) struct Scraper {
    client: reqwest::Client,
    /// Of the system of `tidings up`; it is read anew each time, since processes come and go.
    folder: Option<PathBuf>,
    urls: Vec<Url>,
}

/// A process, and what it said.
pub(super) struct Scraped {
    pub(super) name: String,
    pub(super) metrics: Result<Metrics, String>,
}

/// What a process says of itself.
#[derive(Debug, Default)]
pub(super) struct Metrics(Vec<Sample>);

struct Target {
    name: String,
    url: Url,
}

impl Scraper {
    pub(super) fn new(folder: Option<PathBuf>, urls: Vec<Url>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("no HTTP client")?;
        Ok(Self { client, folder, urls })
    }

    /// Whether any process is known.
    pub(super) const fn knows_processes(&self) -> bool {
        self.folder.is_some() || !self.urls.is_empty()
    }

    /// All of them, in the order in which they are known. An error where it is not known which there are.
    pub(super) async fn scrape(&self) -> anyhow::Result<Vec<Scraped>> {
        let targets = match &self.folder {
            Some(folder) if self.urls.is_empty() => of_folder(folder)?,
            _ => of_urls(&self.urls).await,
        };
        let scraped = futures::stream::iter(targets).map(async |target| {
            let metrics = self.one(&target.url).await;
            Scraped {
                name: target.name,
                metrics: metrics.map_err(|error| crate::print::error(&error)),
            }
        });
        Ok(scraped.buffered(AT_ONCE).collect().await)
    }

    async fn one(&self, url: &Url) -> anyhow::Result<Metrics> {
        let answer = self.client.get(url.clone()).send().await;
        let mut answer = answer.map_err(reqwest::Error::without_url).context("no answer")?;
        if !answer.status().is_success() {
            bail!("it answers {}", answer.status());
        }
        let mut text = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            if text.len() + piece.len() > BYTES_MAX {
                bail!("its metrics are too long");
            }
            text.extend_from_slice(&piece);
        }
        Metrics::parse(&String::from_utf8_lossy(&text))
    }
}

/// What `tidings up` runs; the databases have no such numbers.
fn of_folder(folder: &std::path::Path) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for process in UpFile::read(folder)?.processes {
        let Some(admin) = process.admin.filter(|_| !process.name.starts_with("nats")) else {
            continue;
        };
        let url = Url::parse(&admin).with_context(|| format!("the address of {}", process.name))?;
        targets.push(Target {
            name: process.name,
            url: metrics_url(url),
        });
    }
    Ok(targets)
}

/// What the URLs name: of a name with several addresses, each.
async fn of_urls(urls: &[Url]) -> Vec<Target> {
    let mut targets = Vec::new();
    for url in urls {
        let addresses = match (url.scheme(), url.host()) {
            ("http", Some(Host::Domain(name))) => {
                let port = url.port_or_known_default().unwrap_or(80);
                tokio::net::lookup_host((name, port)).await.ok()
            }
            _ => None,
        };
        let mut addresses: Vec<SocketAddr> = addresses.into_iter().flatten().collect();
        addresses.sort_unstable();
        addresses.dedup();
        // The same machine by both families is one process; so is whatever is not looked up here.
        if addresses.len() < 2 || addresses.iter().any(|address| address.ip().is_loopback()) {
            targets.push(Target {
                name: authority(url),
                url: metrics_url(url.clone()),
            });
            continue;
        }
        for address in addresses {
            let mut url = url.clone();
            if url.set_ip_host(address.ip()).is_ok() {
                targets.push(Target {
                    name: address.to_string(),
                    url: metrics_url(url),
                });
            }
        }
    }
    targets
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// `/metrics`, unless the URL says another path.
fn metrics_url(mut url: Url) -> Url {
    if url.path() == "/" {
        url.set_path("/metrics");
    }
    url
}

impl Metrics {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let scrape = Scrape::parse(lines).context("its metrics cannot be read")?;
        Ok(Self(scrape.samples))
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.metric == name)
    }

    /// A counter or gauge, over all its labels; None if there is none.
    pub(super) fn total(&self, name: &str) -> Option<f64> {
        let mut values = self.named(name).filter_map(value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// A counter or gauge by one of its labels.
    pub(super) fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.named(name) {
            if let (Some(key), Some(value)) = (sample.labels.get(label), value(sample)) {
                *sums.entry(key.to_owned()).or_default() += value;
            }
        }
        sums
    }

    /// A histogram, over all its labels: bounds with how many were at most that much.
    pub(super) fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let mut sums: Vec<(f64, f64)> = Vec::new();
        for sample in self.named(name) {
            let Value::Histogram(counts) = &sample.value else {
                continue;
            };
            for count in counts {
                match sums
                    .iter_mut()
                    .find(|(bound, _)| bound.total_cmp(&count.less_than).is_eq())
                {
                    Some((_, sum)) => *sum += count.count,
                    None => sums.push((count.less_than, count.count)),
                }
            }
        }
        sums.sort_by(|a, b| a.0.total_cmp(&b.0));
        sums
    }

    /// The kind of service.
    pub(super) fn service(&self) -> Option<&str> {
        self.0.iter().find_map(|sample| sample.labels.get("service"))
    }
}

fn value(sample: &Sample) -> Option<f64> {
    match sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => Some(value),
        Value::Histogram(_) | Value::Summary(_) => None,
    }
}

#[cfg(test)]
impl Metrics {
    /// For tests of others.
    pub(super) fn of(text: &str) -> Self {
        Self::parse(text).expect("metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# TYPE tidings_errors_total counter
tidings_errors_total{service="gateway",code="forbidden"} 3
tidings_errors_total{service="gateway",code="internal"} 1

# TYPE tidings_sessions gauge
tidings_sessions{service="gateway"} 7

# TYPE tidings_accept_seconds histogram
tidings_accept_seconds_bucket{service="gateway",le="0.001"} 2
tidings_accept_seconds_bucket{service="gateway",le="0.01"} 5
tidings_accept_seconds_bucket{service="gateway",le="+Inf"} 6
tidings_accept_seconds_sum{service="gateway"} 0.5
tidings_accept_seconds_count{service="gateway"} 6
"#;

    #[test]
    fn metrics_are_read() {
        let metrics = Metrics::of(TEXT);
        assert_eq!(metrics.service(), Some("gateway"));
        assert_eq!(metrics.total("tidings_errors_total"), Some(4.0));
        assert_eq!(metrics.total("tidings_sessions"), Some(7.0));
        assert_eq!(metrics.total("tidings_other"), None);
        assert_eq!(
            metrics.by_label("tidings_errors_total", "code"),
            BTreeMap::from([("forbidden".to_owned(), 3.0), ("internal".to_owned(), 1.0)])
        );
        assert_eq!(
            metrics.buckets("tidings_accept_seconds"),
            [(0.001, 2.0), (0.01, 5.0), (f64::INFINITY, 6.0)]
        );
    }

    #[tokio::test]
    async fn a_url_is_one_process_where_it_has_one_address() {
        let urls = [
            "http://127.0.0.1:9100",
            "http://localhost:9101/",
            "https://x.invalid/m",
        ];
        let urls: Vec<Url> = urls.iter().map(|url| Url::parse(url).expect("a URL")).collect();
        let targets = of_urls(&urls).await;
        let targets: Vec<(&str, &str)> = targets
            .iter()
            .map(|target| (target.name.as_str(), target.url.as_str()))
            .collect();
        assert_eq!(
            targets,
            [
                ("127.0.0.1:9100", "http://127.0.0.1:9100/metrics"),
                ("localhost:9101", "http://localhost:9101/metrics"),
                ("x.invalid", "https://x.invalid/m"),
            ]
        );
    }
}
