//! `tidings bench ramp`: the highest rate at which deliveries are as fast as they should be. Short open loops of the same
//! clients, one after the other, each when nothing is left of the one before.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, CrowdArgs, seconds};
use super::latency::Percentiles;
use super::observed::Load;
use super::outcome::Outcome;
use super::plot::{Panel, write_plot};
use super::processes::rest;
use super::progress::{wait_for_the_rest, wait_for_the_unexpected};
use super::rate::{HEAD_START, Pace, send_all};
use super::report::{of_each, write_json};
use super::search::Search;
use super::series::Point;

/// Times the bound: when half of the deliveries of a second are slower, the step has failed and is stopped, so that there
/// is less to wait for.
const HOPELESS: f64 = 4.0;
/// But no step is stopped for less, in milliseconds: a second has this much of noise.
const HOPELESS_MIN: f64 = 500.0;
/// Longer steps would not have failed by half a second alone.
const SECONDS_MAX: f64 = 45.0;
/// For the processes to come to rest: what was confirmed is deleted after it was delivered.
const REST_PATIENCE: Duration = Duration::from_secs(20);

/// Finds the highest rate at which 99 of 100 deliveries are fast enough, and nothing is missing.
///
/// Doubles the rate until that fails, then halves what is left between the two, down to `--resolution`. Each step is
/// a short `tidings bench rate`; the next one begins when everything has been delivered and the processes are at rest.
#[derive(Debug, clap::Args)]
pub(crate) struct RampArgs {
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,

    /// What 99 of 100 deliveries must be faster than, from when the message was due.
    #[arg(long, default_value_t = 50.0, value_name = "MS")]
    p99: f64,

    /// Messages a second in the first step.
    #[arg(long, default_value_t = 100.0, value_name = "PER_SECOND")]
    from: f64,

    /// How far apart the highest rate that goes well and the lowest that does not may be in the end.
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    resolution: f64,

    /// How often a rate is tried before it has failed.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10))]
    tries: u32,

    /// For how long each step is measured.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    seconds: f64,

    /// For how long each step sends the same before that.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    warmup: f64,

    /// Draws latency over time and by rate there, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// One rate, tried once.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    rate: f64,
    /// It went well.
    good: bool,
    /// It was given up before its end.
    stopped: bool,
    /// Everything that was sent has been answered and delivered.
    complete: bool,
    /// Messages that were refused.
    refused: u64,
    deliveries_per_second: f64,
    /// CPU time of all processes of the system; none where they are not known or nothing was delivered.
    microseconds_per_delivery: Option<f64>,
    accept: Percentiles,
    delivery: Percentiles,
    lag: Percentiles,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RampReport {
    codec: &'static str,
    processes: u32,
    clients: u32,
    devices: u32,
    chats: u32,
    members: u32,
    body_bytes: usize,
    seed: u64,
    p99_bound: f64,
    resolution_percent: f64,
    seconds: f64,
    warmup_seconds: f64,
    steps: Vec<Step>,
    /// Messages a second; none where no rate goes well.
    highest_rate: Option<f64>,
    /// Of all steps.
    #[serde(flatten)]
    outcome: Outcome,
    series: Vec<Point>,
}

pub(crate) async fn run(args: RampArgs) -> anyhow::Result<()> {
    let plan = args.crowd.plan()?;
    ensure!(args.p99 > 0.0, "--p99 must be above 0");
    ensure!(
        (0.1..=100.0).contains(&args.resolution),
        "--resolution must be 0.1 to 100"
    );
    ensure!(
        args.seconds <= SECONDS_MAX,
        "--seconds must be at most {SECONDS_MAX}"
    );
    args.pace(args.from).context("--from")?;
    let crowd = args.crowd.gather(plan).await?;
    let load = crowd.begin(Instant::now(), None);
    print_now(&format!("{}\n\n{}", args.heading(), Step::HEAD));

    let mut search = Search::new(args.from, args.resolution / 100.0);
    let mut steps = Vec::new();
    let mut broken = false;
    'search: while let Some(rate) = search.next() {
        let mut good = false;
        for _ in 0..args.tries {
            let step = args.step(&crowd, load, rate).await?;
            print_now(&step.row());
            good = step.good;
            broken = !step.complete || Outcome::of(&crowd, load).is_broken();
            steps.push(step);
            if broken {
                break 'search;
            }
            if good {
                break;
            }
        }
        search.tried(rate, good);
    }
    wait_for_the_unexpected().await;
    let now = load.now();
    let report = RampReport {
        codec: args.crowd.target.codec_name(),
        processes: args.crowd.target.processes,
        clients: args.crowd.clients,
        devices: args.crowd.target.devices,
        chats: args.crowd.chats,
        members: args.crowd.members,
        body_bytes: args.crowd.body_bytes,
        seed: args.crowd.seed,
        p99_bound: args.p99,
        resolution_percent: args.resolution,
        seconds: args.seconds,
        warmup_seconds: args.warmup,
        steps,
        highest_rate: search.highest().filter(|_| !broken),
        outcome: Outcome::of(&crowd, load),
        series: load.ledger().series(now).points().to_vec(),
    };
    crowd.fleet.close().await;
    report.print(&args)
}

impl RampArgs {
    fn pace(&self, rate: f64) -> anyhow::Result<Pace> {
        let (warmup, measured) = (
            seconds("--warmup", self.warmup)?,
            seconds("--seconds", self.seconds)?,
        );
        Pace::new(rate, warmup, measured)
    }

    /// In one line.
    fn heading(&self) -> String {
        let CrowdArgs {
            target,
            clients,
            chats,
            members,
            body_bytes,
            ..
        } = &self.crowd;
        let (of_each, codec) = (of_each(target.devices), target.codec_name());
        format!(
            "{clients} clients online{of_each} ({codec}), {chats} chats of {members}, messages of {body_bytes} bytes, p99 of \
             delivery at most {} ms",
            self.p99
        )
    }

    /// Tries a rate, and waits until nothing is left of it.
    async fn step(&self, crowd: &Crowd, load: &Load, rate: f64) -> anyhow::Result<Step> {
        let (warmup, pace) = (seconds("--warmup", self.warmup)?, self.pace(rate)?);
        let begin = load.now() + HEAD_START;
        let refused_before = Outcome::of(crowd, load).refused();
        load.ledger().take_measured();
        let stop = CancellationToken::new();
        let stretch = send_all(crowd, load, pace, begin, &stop, |load| {
            let now = load.now();
            let last = load.ledger().series(now).points().last().copied();
            let hopeless = (self.p99 * HOPELESS).max(HOPELESS_MIN);
            let slow = last.and_then(|point| point.p50).is_some_and(|p50| p50 > hopeless);
            if slow && now > begin + warmup + Duration::from_secs(1) {
                stop.cancel();
            }
        })
        .await;
        let complete = wait_for_the_rest(load, crowd.patience).await;
        rest(&crowd.target.processes, REST_PATIENCE).await;
        let measured = load.ledger().take_measured();
        let refused = Outcome::of(crowd, load).refused() - refused_before;
        let delivery = measured.delivery.percentiles();
        let stopped = stop.is_cancelled();
        let servers = &stretch.interval.servers;
        let cpu_seconds: f64 = servers.iter().map(|spent| spent.cpu_seconds).sum();
        let known = !servers.is_empty() && stretch.deliveries > 0;
        Ok(Step {
            rate,
            good: complete && !stopped && refused == 0 && delivery.count > 0 && delivery.p99 <= self.p99,
            stopped,
            complete,
            refused,
            deliveries_per_second: stretch.deliveries as f64 / stretch.interval.seconds,
            microseconds_per_delivery: known.then(|| cpu_seconds * 1e6 / stretch.deliveries as f64),
            accept: measured.accept.percentiles(),
            delivery,
            lag: measured.lag.percentiles(),
        })
    }
}

impl Step {
    const HEAD: &str =
        "messages/s  deliveries/s  accept p99  delivery p50  delivery p99  lag p99  us/delivery";

    fn row(&self) -> String {
        let cost = self
            .microseconds_per_delivery
            .map_or(String::new(), |cost| format!("{cost:.1}"));
        let mut row = format!(
            "{:>10.0}  {:>12.0}  {:>10.1}  {:>12.1}  {:>12.1}  {:>7.1}  {cost:>11}",
            self.rate,
            self.deliveries_per_second,
            self.accept.p99,
            self.delivery.p50,
            self.delivery.p99,
            self.lag.p99,
        );
        for (is_so, word) in [
            (!self.good, "too slow"),
            (self.stopped, "stopped"),
            (self.refused > 0, "refused"),
            (!self.complete, "incomplete"),
        ] {
            if is_so {
                let _ = write!(row, "  {word}");
            }
        }
        row
    }
}

impl RampReport {
    fn print(&self, args: &RampArgs) -> anyhow::Result<()> {
        let mut out = String::new();
        if let Some(rate) = self.highest_rate {
            let deliveries = rate * f64::from(self.members - 1);
            let _ = writeln!(
                out,
                "\nhighest rate: {rate:.0} messages/s, {deliveries:.0} deliveries/s\n"
            );
        }
        self.outcome.write_table(&mut out);
        print!("{out}");
        if let Some(path) = &args.crowd.target.json {
            write_json(path, self)?;
        }
        if let Some(path) = &args.plot {
            let panels = [Panel::over_time(&self.series, 0.0), self.by_rate()];
            write_plot(path, &args.heading(), &panels)?;
        }
        let faults = self.outcome.faults();
        if self.outcome.is_broken() || !faults.is_empty() && self.highest_rate.is_none() {
            bail!("{}", faults.join("; "));
        }
        if self.highest_rate.is_none() {
            bail!("no rate has a p99 of delivery of at most {} ms", self.p99_bound);
        }
        Ok(())
    }

    fn by_rate(&self) -> Panel {
        let mut steps: Vec<&Step> = self.steps.iter().collect();
        steps.retain(|step| step.delivery.count > 0);
        steps.sort_by(|one, other| {
            let p99 = one.delivery.p99.total_cmp(&other.delivery.p99);
            one.rate.total_cmp(&other.rate).then(p99)
        });
        // Of several tries, the best one.
        steps.dedup_by_key(|step| step.rate);
        let line = |value: fn(&Percentiles) -> f64| -> Vec<(f64, f64)> {
            let places = steps.iter().map(|step| (step.rate, value(&step.delivery)));
            places.collect()
        };
        let last = steps.last().map_or(0.0, |step| step.rate);
        Panel::over_rate(vec![
            ("p50".to_owned(), line(|delivery| delivery.p50)),
            ("p99".to_owned(), line(|delivery| delivery.p99)),
            (
                "bound of p99".to_owned(),
                vec![(0.0, self.p99_bound), (last, self.p99_bound)],
            ),
        ])
    }
}

/// A step is of interest when it is over, not when all are.
fn print_now(line: &str) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}
