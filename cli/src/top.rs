//! `tidings top`: what a running system does at this moment, in a terminal.

mod hot_chats;
mod moment;
mod report;
mod scrape;
mod screen;
mod show;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tidings_nats::{Bus, Topology};
use tidings_service::NatsConnection;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use self::hot_chats::HotChats;
use self::moment::Moment;
use self::report::Report;
use self::scrape::Scraper;
use self::screen::{Key, Screen};
use crate::look::{LookArgs, connect_bus};
use crate::print;

/// Shows what the system does now: rates, latencies, lag, and its hottest chats, shards and partitions.
///
/// In a terminal it is drawn anew every second, and q ends it. With --once or --json, or where its output is no terminal, it
/// looks for one interval and prints what it saw.
///
/// Rates and latencies are from /metrics of the services: those that `tidings up` runs, or those of --metrics-url. Lag and
/// inboxes are JetStream's own numbers. Which chats are hot is told from events as they pass, of which at most 2,000 in an
/// interval are looked at: the subject alone, so that it costs the same with ten chats or millions.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Print one report, and end.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks, over which rates are taken.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
    /// Show at most so many chats, shards, partitions and processes.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rows: u64,
    /// Admin ports of services, separated by commas; instead of those that `tidings up` runs.
    ///
    /// Such as `http://gateway:9100,http://fanout-worker:9100`. A name with several addresses is several processes.
    #[arg(long = "metrics-url", env = "TIDINGS_METRICS_URL", value_name = "URL", value_delimiter = ',', value_parser = http_url)]
    metrics_urls: Vec<Url>,
    #[command(flatten)]
    look: LookArgs,
}

fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(_)) => Ok(url),
        _ => Err("not an http URL".to_owned()),
    }
}

pub(crate) fn main(args: &TopArgs) -> ExitCode {
    crate::block_on(async {
        let mut top = Top::start(args).await?;
        let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if terminal && !args.once && !args.look.json {
            return live(&mut top, args).await;
        }
        let report = top.next().await;
        if args.look.json {
            print::json(&report)
        } else {
            print::text(&show::text(&report, args.rows as usize))
        }
    })
}

/// A system that is watched.
struct Top {
    bus: Bus,
    topology: Topology,
    scraper: Scraper,
    hot_chats: HotChats,
    interval: Duration,
    before: Moment,
    /// The connection, which ends with this.
    _nats: NatsConnection,
}

impl Top {
    /// Connects, and takes a first look.
    async fn start(args: &TopArgs) -> anyhow::Result<Self> {
        let (nats, bus, topology) = connect_bus(&args.look.settings()?).await?;
        let scraper = Scraper::new(args.look.folder()?, args.metrics_urls.clone())?;
        let before = Moment::look(&bus, &scraper).await;
        Ok(Self {
            bus,
            topology,
            scraper,
            hot_chats: HotChats::default(),
            interval: Duration::from_secs(args.interval),
            before,
            _nats: nats,
        })
    }

    /// What happened from the last look until one an interval later.
    async fn next(&mut self) -> Report {
        let watched = self.hot_chats.watch(self.bus.client(), self.interval).await;
        let now = Moment::look(&self.bus, &self.scraper).await;
        let mut report = Report::between(&self.before, &now, &self.hot_chats, self.topology);
        if let Err(error) = watched {
            report
                .problems
                .push(format!("events cannot be watched: {error:#}"));
        }
        self.before = now;
        report
    }
}

/// Draws reports until somebody has seen enough.
async fn live(top: &mut Top, args: &TopArgs) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut screen = Screen::open().context("cannot draw on the terminal")?;
    let mut text = "looking …\n".to_owned();
    loop {
        screen.draw(&text)?;
        let report = {
            let mut next = std::pin::pin!(top.next());
            loop {
                tokio::select! {
                    report = &mut next => break report,
                    key = screen.key() => match key {
                        Key::Quit => return Ok(()),
                        Key::Resize => screen.draw(&text)?,
                    },
                    _ = terminated.recv() => return Ok(()),
                }
            }
        };
        let rows = show::rows_that_fit(screen.height(), args.rows as usize);
        text = show::text(&report, rows);
    }
}
