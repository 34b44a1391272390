//! `tidings bench storm`: everybody is cut off at once and comes back, while messages go on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::crowd::{Crowd, CrowdArgs, seconds};
use super::latency::Percentiles;
use super::observed::{Load, read};
use super::outcome::Outcome;
use super::plot::{Panel, write_plot};
use super::processes::{Interval, Sample};
use super::progress::{each_second_until, report, wait_for_the_rest, wait_for_the_unexpected};
use super::rate::{HEAD_START, Pace, send_all};
use super::report::{LATENCY_HEAD, latency_row, of_each, write_json};
use super::say;
use super::series::Point;
use super::stretch::Moment;

/// For everybody to come back.
const RETURN_PATIENCE: Duration = Duration::from_mins(4);
/// Between two looks who is back.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Between two looks at memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// Between two reports to whoever waits.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

const MEGABYTE: f64 = 1e6;

/// Cuts everybody off at once, and measures until all are up to date again.
///
/// Sockets are dropped without a word. Each client connects again in the same moment, or `--connecting` at a time;
/// whoever is sent away comes again when the server says, or with the back-off of the protocol. What was sent and not
/// answered is sent again. `back` is from the cut until a client is up to date; `accept` and `delivery` are of messages
/// that were due after the cut, and count from when they were due. What comes again because the connection broke
/// before it was confirmed, or less than 5 s after, is counted apart from duplicates, and is no fault.
#[derive(Debug, clap::Args)]
pub(crate) struct StormArgs {
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,

    /// Messages a second that are sent meanwhile, in all chats together; 0 is none.
    #[arg(long, default_value_t = 200.0, value_name = "PER_SECOND")]
    rate: f64,

    /// For how long they are sent before the cut.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    warmup: f64,

    /// For how long they are sent after all are back.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    seconds: f64,

    /// Draws latency over time there, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// The load that was asked for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StormOptions {
    codec: &'static str,
    processes: u32,
    clients: u32,
    devices: u32,
    chats: u32,
    members: u32,
    rate: f64,
    warmup_seconds: f64,
    seconds: f64,
    body_bytes: usize,
    seed: u64,
}

/// How everybody came back.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Return {
    /// Clients that were cut off.
    cut: u64,
    /// From the cut until a client was up to date.
    back: Percentiles,
    /// Tries to connect that were refused or failed, and were followed by another.
    sent_away: u64,
    /// From the cut until the last client was up to date.
    interval: Interval,
    /// The most that all servers together had in that time; looked at four times a second.
    peak_resident_bytes: u64,
}

/// The result. Latencies in milliseconds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StormReport {
    options: StormOptions,
    #[serde(rename = "return")]
    returned: Return,
    /// Of messages that were due after the cut.
    accept: Percentiles,
    delivery: Percentiles,
    #[serde(flatten)]
    outcome: Outcome,
    series: Vec<Point>,
}

pub(crate) async fn run(args: StormArgs) -> anyhow::Result<()> {
    let plan = args.crowd.plan()?;
    let (warmup, after) = (
        seconds("--warmup", args.warmup)?,
        seconds("--seconds", args.seconds)?,
    );
    let pace = match args.rate {
        0.0 => None,
        rate => Some(Pace::new(rate, warmup, RETURN_PATIENCE + after)?),
    };
    let crowd = args.crowd.gather(plan).await?;
    let load = crowd.begin(Instant::now() + HEAD_START, None);

    let stop = CancellationToken::new();
    let sending = async {
        if let Some(pace) = pace {
            send_all(&crowd, load, pace, Duration::ZERO, &stop, report).await;
        }
    };
    let storming = async {
        each_second_until(load, load.start + warmup, &|_| ()).await;
        let returned = cut_off(&crowd, load).await;
        each_second_until(load, Instant::now() + after, &|_| ()).await;
        stop.cancel();
        returned
    };
    let ((), returned) = tokio::join!(sending, storming);
    wait_for_the_rest(load, crowd.patience).await;
    wait_for_the_unexpected().await;
    let now = load.now();
    let outcome = Outcome::of(&crowd, load);
    let measured = load.ledger().take_measured();
    let report = StormReport {
        options: StormOptions {
            codec: args.crowd.target.codec_name(),
            processes: args.crowd.target.processes,
            clients: args.crowd.clients,
            devices: args.crowd.target.devices,
            chats: args.crowd.chats,
            members: args.crowd.members,
            rate: args.rate,
            warmup_seconds: args.warmup,
            seconds: args.seconds,
            body_bytes: args.crowd.body_bytes,
            seed: args.crowd.seed,
        },
        returned,
        accept: measured.accept.percentiles(),
        delivery: measured.delivery.percentiles(),
        outcome,
        series: load.ledger().series(now).points().to_vec(),
    };
    crowd.fleet.close().await;
    report.print(args.crowd.target.json.as_deref(), args.plot.as_deref())
}

/// Cuts everybody off, and waits until all are up to date again.
async fn cut_off(crowd: &Crowd, load: &Load) -> Return {
    let (observed, clients) = (&crowd.fleet.observed, &crowd.fleet.clients);
    let (before, began) = (Moment::now(&crowd.target, load), Instant::now());
    clients.iter().for_each(Client::break_off);
    say(&format!("{} clients are cut off", clients.len()));
    let (mut reported, mut sampled, mut peak) = (began, began, 0);
    loop {
        let back = observed.returns().count;
        // Whoever is lost for good comes back no more.
        if back + observed.losses() as u64 >= clients.len() as u64 || began.elapsed() > RETURN_PATIENCE {
            break;
        }
        if sampled.elapsed() > SAMPLE_INTERVAL {
            sampled = Instant::now();
            peak = Sample::take(&crowd.target.processes).resident_bytes("").max(peak);
        }
        if reported.elapsed() > REPORT_INTERVAL {
            reported = Instant::now();
            let sent_away = read(&observed.sent_away);
            say(&format!(
                "{back} of {} are back, {sent_away} tries sent away",
                clients.len()
            ));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let interval = Moment::now(&crowd.target, load).since(&before).interval;
    let resident = interval.servers.iter().map(|spent| spent.resident_bytes).sum();
    say(&format!(
        "all are back after {:.2} s",
        began.elapsed().as_secs_f64()
    ));
    Return {
        cut: clients.len() as u64,
        back: observed.returns(),
        sent_away: read(&observed.sent_away),
        interval,
        peak_resident_bytes: peak.max(resident),
    }
}

impl StormReport {
    /// Prints the table, writes the JSON and the plot where they are wanted, and fails if anything is wrong.
    fn print(&self, json: Option<&Path>, plot: Option<&Path>) -> anyhow::Result<()> {
        print!("{}", self.table());
        if let Some(path) = json {
            write_json(path, self)?;
        }
        if let Some(path) = plot {
            let panel = Panel::over_time(&self.series, self.options.warmup_seconds);
            write_plot(path, &self.heading(), &[panel])?;
        }
        let mut faults = self.outcome.faults();
        let away = self.returned.cut - self.returned.back.count;
        if away > 0 {
            faults.push(format!("{away} clients did not come back"));
        }
        if !faults.is_empty() {
            bail!("{}", faults.join("; "));
        }
        Ok(())
    }

    fn heading(&self) -> String {
        let options = &self.options;
        format!(
            "{} clients cut off{} ({}), {} chats of {}, {} messages/s of {} bytes",
            options.clients,
            of_each(options.devices),
            options.codec,
            options.chats,
            options.members,
            options.rate,
            options.body_bytes,
        )
    }

    /// For people.
    fn table(&self) -> String {
        let mut out = String::new();
        let Return {
            cut,
            back,
            sent_away,
            interval,
            peak_resident_bytes,
        } = &self.returned;
        let _ = writeln!(
            out,
            "{}\n\n{} of {cut} clients are back, the last after {:.2} s; {sent_away} tries sent away\n\n{LATENCY_HEAD}",
            self.heading(),
            back.count,
            back.max / 1000.0,
        );
        for (name, latency) in [
            ("back", back),
            ("accept", &self.accept),
            ("delivery", &self.delivery),
        ] {
            let _ = writeln!(out, "{}", latency_row(name, latency));
        }
        let _ = writeln!(out);
        self.outcome.write_table(&mut out);
        let _ = writeln!(
            out,
            "\nuntil all were back; servers had {:.1} MB at most",
            *peak_resident_bytes as f64 / MEGABYTE
        );
        interval.write_table(&mut out, Some((*cut, "client")));
        out
    }
}
