//! What a run has measured, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::latency::Percentiles;
use super::ledger::Tally;
use super::processes::{Interval, Spent};

const MEGABYTE: f64 = 1e6;

/// The load that was asked for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Options {
    pub(crate) codec: &'static str,
    pub(crate) clients: u32,
    pub(crate) chats: u32,
    pub(crate) members: u32,
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
    pub(crate) warmup_seconds: f64,
    pub(crate) body_bytes: usize,
    pub(crate) seed: u64,
}

/// Of `tidings bench rate`. Latencies in milliseconds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RateReport {
    pub(crate) options: Options,
    /// From when a message was due until its sender got the reply.
    pub(crate) accept: Percentiles,
    /// From when a message was due until a recipient had it.
    pub(crate) delivery: Percentiles,
    /// How late the load generator wrote the message to the socket.
    pub(crate) lag: Percentiles,
    /// Of all messages, the warm-up's included.
    pub(crate) tally: Tally,
    /// Deliveries that the messages of the measured time lead to.
    pub(crate) measured_deliveries: u64,
    pub(crate) lost_connections: u64,
    pub(crate) trimmed: u64,
    pub(crate) notices: u64,
    /// The measured time.
    pub(crate) interval: Interval,
}

impl RateReport {
    /// What is wrong with the result, a sentence each.
    pub(crate) fn faults(&self) -> Vec<String> {
        let tally = &self.tally;
        let mut faults: Vec<String> = [
            (tally.missing, "deliveries are missing"),
            (tally.duplicate, "deliveries came twice"),
            (tally.out_of_order, "deliveries came out of order"),
            (tally.wrong, "deliveries had a wrong text, chat or recipient"),
            (tally.unanswered, "messages were not answered"),
            (self.lost_connections, "connections were lost"),
            (self.trimmed, "inboxes lost entries"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        for (code, count) in &tally.refused {
            let advice = match code.as_str() {
                "rate_limited" => ": start the system with `tidings up --rate-limits off`",
                _ => "",
            };
            faults.push(format!("{count} messages were refused with {code}{advice}"));
        }
        faults
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let options = &self.options;
        let _ = writeln!(
            out,
            "{} clients online ({}), {} chats of {}, {} messages/s of {} bytes for {} s\n",
            options.clients,
            options.codec,
            options.chats,
            options.members,
            options.rate,
            options.body_bytes,
            options.seconds,
        );
        let _ = writeln!(
            out,
            "latency, ms    {:>9} {:>9} {:>9} {:>9} {:>9}",
            "p50", "p90", "p99", "p99.9", "max"
        );
        for (name, latency) in [
            ("accept", &self.accept),
            ("delivery", &self.delivery),
            ("lag", &self.lag),
        ] {
            let Percentiles {
                p50,
                p90,
                p99,
                p999,
                max,
                ..
            } = latency;
            let _ = writeln!(
                out,
                "{name:<14} {p50:>9.2} {p90:>9.2} {p99:>9.2} {p999:>9.2} {max:>9.2}"
            );
        }
        let tally = &self.tally;
        let refused: u64 = tally.refused.values().sum();
        let _ = writeln!(
            out,
            "\nmessages       {} sent, {} accepted, {refused} refused, {} unanswered",
            tally.sent, tally.accepted, tally.unanswered
        );
        for (code, count) in &tally.refused {
            let _ = writeln!(out, "               {count} {code}");
        }
        let _ = writeln!(
            out,
            "deliveries     {} expected, {} received, {} missing, {} duplicate, {} out of order, {} wrong",
            tally.expected, tally.received, tally.missing, tally.duplicate, tally.out_of_order, tally.wrong
        );
        for (count, what) in [
            (
                tally.unaccepted,
                "deliveries of messages that were refused or not answered",
            ),
            (self.lost_connections, "connections lost"),
            (self.trimmed, "times that an inbox lost entries"),
            (self.notices, "notices"),
        ] {
            if count > 0 {
                let _ = writeln!(out, "               {count} {what}");
            }
        }
        self.interval
            .write_table(&mut out, Some(self.measured_deliveries));
        out
    }
}

impl Interval {
    /// What the processes used; with the CPU time of a delivery where there were deliveries.
    pub(crate) fn write_table(&self, out: &mut String, deliveries: Option<u64>) {
        let per_delivery = deliveries.filter(|deliveries| *deliveries > 0);
        let column = per_delivery.map_or("", |_| "us/delivery");
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
            let cost = per_delivery.map_or(String::new(), |deliveries| {
                format!("{:.1}", cpu_seconds * 1e6 / deliveries as f64)
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
