//! What a run has measured, as a table for people and as JSON for programs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::crowd::{Crowd, CrowdArgs};
use super::latency::{CurvePoint, Percentiles};
use super::observed::Load;
use super::outcome::Outcome;
use super::plot::{Panel, write_plot};
use super::processes::{Interval, Spent};
use super::raw::RawReport;
use super::series::Point;
use super::stretch::Stretch;

const MEGABYTE: f64 = 1e6;

/// The load that was asked for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Options {
    codec: &'static str,
    processes: u32,
    clients: u32,
    devices: u32,
    chats: u32,
    members: u32,
    #[serde(flatten)]
    offered: Offered,
    body_bytes: usize,
    seed: u64,
}

/// How much, and for how long.
#[derive(Copy, Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Offered {
    /// Messages a second; of an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    /// Messages under way; of a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_flight: Option<u32>,
    pub(crate) seconds: f64,
    pub(crate) warmup_seconds: f64,
}

/// Of `tidings bench rate` and `max`. Latencies in milliseconds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoadReport {
    options: Options,
    /// In the measured time, by when they came.
    deliveries_per_second: f64,
    /// From when a message was due, or sent in a closed loop, until its sender got the reply.
    accept: Percentiles,
    /// From when a message was due, or sent in a closed loop, until a recipient had it.
    delivery: Percentiles,
    /// How late the load generator wrote the message to the socket.
    lag: Percentiles,
    /// Every percentile of `accept` and `delivery`.
    accept_curve: Vec<CurvePoint>,
    delivery_curve: Vec<CurvePoint>,
    /// Deliveries that came in the measured time.
    measured_deliveries: u64,
    #[serde(flatten)]
    outcome: Outcome,
    /// The measured time.
    interval: Interval,
    /// Deliveries by the second, the warm-up included.
    series: Vec<Point>,
    /// What the machine's own JetStream took, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<RawReport>,
    /// Deliveries a second for one raw entry a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

impl Options {
    /// In one line.
    fn heading(&self) -> String {
        let offered = &self.offered;
        let load = match (offered.rate, offered.in_flight) {
            (Some(rate), _) => format!("{rate} messages/s"),
            (None, in_flight) => format!("{} messages under way", in_flight.unwrap_or_default()),
        };
        format!(
            "{} clients online{} ({}), {} chats of {}, {load} of {} bytes for {} s",
            self.clients,
            of_each(self.devices),
            self.codec,
            self.chats,
            self.members,
            self.body_bytes,
            offered.seconds,
        )
    }
}

impl LoadReport {
    /// Of a load that is over.
    pub(crate) fn new(
        args: &CrowdArgs,
        offered: Offered,
        crowd: &Crowd,
        load: &Load,
        stretch: Stretch,
    ) -> Self {
        let options = Options {
            codec: args.target.codec_name(),
            processes: args.target.processes,
            clients: args.clients,
            devices: args.target.devices,
            chats: args.chats,
            members: args.members,
            offered,
            body_bytes: args.body_bytes,
            seed: args.seed,
        };
        let outcome = Outcome::of(crowd, load);
        let now = load.now();
        let mut ledger = load.ledger();
        let measured = ledger.take_measured();
        Self {
            options,
            deliveries_per_second: stretch.deliveries as f64 / stretch.interval.seconds,
            accept: measured.accept.percentiles(),
            delivery: measured.delivery.percentiles(),
            lag: measured.lag.percentiles(),
            accept_curve: measured.accept.curve(),
            delivery_curve: measured.delivery.curve(),
            measured_deliveries: stretch.deliveries,
            outcome,
            interval: stretch.interval,
            series: ledger.series(now).points().to_vec(),
            raw: None,
            ratio: None,
        }
    }

    /// Sets beside it what the machine's own JetStream took in the same run.
    pub(crate) fn compare(&mut self, raw: RawReport) {
        self.ratio = Some(self.deliveries_per_second / raw.whole.entries_per_second);
        self.raw = Some(raw);
    }

    /// Prints the table, writes the JSON and the plot where they are wanted, and fails if anything is wrong.
    pub(crate) fn print(&self, json: Option<&Path>, plot: Option<&Path>) -> anyhow::Result<()> {
        print!("{}", self.table());
        if let Some(path) = json {
            write_json(path, self)?;
        }
        if let Some(path) = plot {
            let panels = [
                Panel::over_time(&self.series, self.options.offered.warmup_seconds),
                Panel::percentiles(&[("accept", &self.accept_curve), ("delivery", &self.delivery_curve)]),
            ];
            write_plot(path, &self.options.heading(), &panels)?;
        }
        let faults = self.outcome.faults();
        if !faults.is_empty() {
            bail!("{}", faults.join("; "));
        }
        Ok(())
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}\n\n{:.0} deliveries/s\n",
            self.options.heading(),
            self.deliveries_per_second,
        );
        let _ = writeln!(out, "{LATENCY_HEAD}");
        for (name, latency) in [
            ("accept", &self.accept),
            ("delivery", &self.delivery),
            ("lag", &self.lag),
        ] {
            let _ = writeln!(out, "{}", latency_row(name, latency));
        }
        let _ = writeln!(out);
        self.outcome.write_table(&mut out);
        self.interval
            .write_table(&mut out, Some((self.measured_deliveries, "delivery")));
        if let (Some(raw), Some(ratio)) = (&self.raw, self.ratio) {
            let _ = write!(out, "\n{}", raw.table());
            let _ = writeln!(out, "\n{ratio:.3} deliveries for each entry of raw JetStream");
        }
        out
    }
}

/// Above rows of latencies.
pub(crate) const LATENCY_HEAD: &str = "latency, ms          p50       p90       p99     p99.9       max";

/// A row of them.
pub(crate) fn latency_row(name: &str, latency: &Percentiles) -> String {
    let Percentiles {
        p50,
        p90,
        p99,
        p999,
        max,
        ..
    } = latency;
    format!("{name:<14} {p50:>9.2} {p90:>9.2} {p99:>9.2} {p999:>9.2} {max:>9.2}")
}

/// For headings, after how many clients there are.
pub(crate) fn of_each(devices: u32) -> String {
    match devices {
        1 => String::new(),
        devices => format!(", {devices} of each user"),
    }
}

/// Writes a result.
pub(crate) fn write_json(path: &Path, report: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(report).context("a report is plain data")?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

impl Interval {
    /// What the processes used; with the CPU time of one of the things that were done, where there were any.
    pub(crate) fn write_table(&self, out: &mut String, done: Option<(u64, &str)>) {
        let done = done.filter(|(count, _)| *count > 0);
        let column = done.map_or(String::new(), |(_, thing)| format!("us/{thing}"));
        let _ = writeln!(
            out,
            "\n{:<16} {:>8} {:>8} {column:>12} {:>9} {:>9}",
            "process", "CPU s", "core %", "MB", "+MB"
        );
        let servers = Spent {
            name: "servers".to_owned(),
            cpu_seconds: self.servers.iter().map(|spent| spent.cpu_seconds).sum(),
            resident_bytes: self.servers.iter().map(|spent| spent.resident_bytes).sum(),
            grown_bytes: self.servers.iter().map(|spent| spent.grown_bytes).sum(),
        };
        let sum = (!self.servers.is_empty()).then_some(&servers);
        for spent in self.servers.iter().chain(sum).chain([&self.load_generator]) {
            let Spent {
                name,
                cpu_seconds,
                resident_bytes,
                grown_bytes,
            } = spent;
            let cost = done.map_or(String::new(), |(count, _)| {
                format!("{:.1}", cpu_seconds * 1e6 / count as f64)
            });
            let _ = writeln!(
                out,
                "{name:<16} {cpu_seconds:>8.2} {:>8.1} {cost:>12} {:>9.1} {:>+9.1}",
                cpu_seconds * 100.0 / self.seconds,
                *resident_bytes as f64 / MEGABYTE,
                *grown_bytes as f64 / MEGABYTE,
            );
        }
        if let Some(machine) = &self.machine {
            let whole = self.seconds * machine.cores as f64;
            let share = |seconds: f64| seconds * 100.0 / whole;
            let _ = writeln!(
                out,
                "\n{} cores {:.0} % busy: servers {:.0} %, load generator {:.0} %, others {:.0} %",
                machine.cores,
                share(machine.busy_seconds),
                share(servers.cpu_seconds),
                share(self.load_generator.cpu_seconds),
                share(machine.other_seconds),
            );
        }
    }
}
