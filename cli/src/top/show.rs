//! A report as text, for a terminal's screen and for a pipe alike.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::report::{Latency, Report};
use crate::print;

/// Lines beside those of the four tables: what is said above them, their titles, and what is between them.
const LINES_BESIDE: usize = 8 + 4 * 2;
/// Less is shown as 0.0.
const RATE_SHOWN: f64 = 0.05;
/// Of problems, and of latencies.
const LINES_MAX: usize = 6;

/// How many rows of each table fit into so many lines.
pub(super) fn rows_that_fit(lines: usize, rows_max: usize) -> usize {
    (lines.saturating_sub(LINES_BESIDE) / 4).clamp(1, rows_max)
}

/// The report, with at most so many rows in each table.
pub(super) fn text(report: &Report, rows: usize) -> String {
    let mut text = head(report);
    let chats: Vec<Vec<String>> = report
        .chats
        .iter()
        .map(|chat| {
            vec![
                chat.chat_id.to_string(),
                chat.partition.clone(),
                rate(Some(chat.events)),
            ]
        })
        .collect();
    table(
        &mut text,
        &["CHAT", "PARTITION", ">EVENTS/S"],
        chats,
        rows,
        "no event passed",
    );
    let shards: Vec<Vec<String>> = report
        .shards
        .iter()
        .filter(|shard| shard.holds.unconfirmed > 0 || shard.holds.stored > 0.0)
        .map(|shard| {
            let holds = &shard.holds;
            vec![
                shard.stream.clone(),
                rate(Some(holds.stored)),
                rate(Some(holds.deleted)),
                number(holds.unconfirmed as f64),
                bytes(holds.bytes),
                number(holds.durables as f64),
            ]
        })
        .collect();
    let titles = [
        "SHARD",
        ">STORED/S",
        ">DELETED/S",
        ">UNCONFIRMED",
        ">BYTES",
        ">DURABLES",
    ];
    table(&mut text, &titles, shards, rows, "nothing is stored");
    let partitions: Vec<Vec<String>> = report
        .partitions
        .iter()
        .filter(|partition| {
            partition.events >= RATE_SHOWN || partition.unprocessed + partition.outstanding > 0
        })
        .map(|partition| {
            vec![
                partition.consumer.clone(),
                rate(Some(partition.events)),
                number(partition.unprocessed as f64),
                number(partition.outstanding as f64),
            ]
        })
        .collect();
    let titles = ["PARTITION", ">EVENTS/S", ">UNPROCESSED", ">OUTSTANDING"];
    table(&mut text, &titles, partitions, rows, "nothing passed or waits");
    let processes: Vec<Vec<String>> = report
        .processes
        .iter()
        .map(|process| {
            let ready = match (&process.service, process.ready) {
                (None, _) => "no answer",
                (Some(_), false) => "no",
                (Some(_), true) => "yes",
            };
            vec![
                print::name(Some(&process.name)),
                ready.to_owned(),
                process.sessions.map_or_else(|| "-".to_owned(), number),
                rate(process.events),
                rate(process.entries),
                process
                    .cpu
                    .map_or_else(|| "-".to_owned(), |cpu| format!("{:.0}%", cpu * 100.0)),
                process
                    .resident_bytes
                    .map_or_else(|| "-".to_owned(), |held| bytes(held as u64)),
            ]
        })
        .collect();
    let titles = [
        "PROCESS",
        "READY",
        ">SESSIONS",
        ">EVENTS/S",
        ">ENTRIES/S",
        ">CPU",
        ">MEMORY",
    ];
    table(&mut text, &titles, processes, rows, "no service is known");
    text
}

/// Everything but the tables.
fn head(report: &Report) -> String {
    let mut text = services(report);
    let latency = |index: usize| report.latencies.get(index).map_or_else(String::new, latency);
    let left = [
        ("sends", rate(report.sends) + "/s"),
        ("deliveries", rate(report.deliveries) + "/s"),
        ("confirms", rate(report.confirms) + "/s"),
        ("sessions", report.sessions.map_or_else(|| "-".to_owned(), number)),
    ];
    for (index, (what, value)) in left.into_iter().enumerate() {
        line(
            &mut text,
            format_args!("{what:<11}{value:>12}   {}", latency(index)),
        );
    }
    let lag = report.lag.as_ref().map_or_else(
        || "not known".to_owned(),
        |lag| {
            let oldest = lag.oldest_seconds.map_or_else(String::new, |oldest| {
                format!(", the oldest for {}", print::age(Duration::from_secs_f64(oldest)))
            });
            let events = print::count(lag.events, "event", "events");
            format!(
                "{events} in CHATS ({} unprocessed){oldest}",
                number(lag.unprocessed as f64)
            )
        },
    );
    line(&mut text, format_args!("lag         {lag}"));
    let inboxes = &report.inboxes;
    line(
        &mut text,
        format_args!(
            "inboxes     {} unconfirmed, {}; {}/s stored, {}/s deleted; {} durables",
            number(inboxes.unconfirmed as f64),
            bytes(inboxes.bytes),
            rate(Some(inboxes.stored)),
            rate(Some(inboxes.deleted)),
            number(inboxes.durables as f64),
        ),
    );
    let dead = report.dead_letters.unwrap_or(0);
    if dead > 0 {
        let letters = print::count(dead, "dead letter", "dead letters");
        line(&mut text, format_args!("! {letters}: see `tidings dead-letters`"));
    }
    if !report.errors.is_empty() {
        let errors = report
            .errors
            .iter()
            .map(|(code, count)| format!("{code} {}/s", rate(Some(*count))));
        let errors: Vec<String> = errors.take(LINES_MAX).collect();
        line(&mut text, format_args!("! errors    {}", errors.join(", ")));
    }
    for problem in report.problems.iter().take(LINES_MAX) {
        line(&mut text, format_args!("! {}", print::name(Some(problem))));
    }
    text
}

/// Which services answer, and over how long.
fn services(report: &Report) -> String {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for service in report
        .processes
        .iter()
        .filter_map(|process| process.service.as_deref())
    {
        *kinds.entry(service).or_default() += 1;
    }
    let mut kinds: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    if kinds.is_empty() {
        kinds.push("no service".to_owned());
    }
    let kinds = print::name(Some(&kinds.join(", ")));
    format!("{kinds}; over {:.1} s\n", report.seconds)
}

fn latency(latency: &Latency) -> String {
    format!(
        "{:<9} p50 {:>8}   p99 {:>8}",
        latency.of,
        seconds(latency.p50),
        seconds(latency.p99)
    )
}

/// A table with a blank line before it, as long as it may be.
fn table(text: &mut String, titles: &[&str], mut all: Vec<Vec<String>>, rows: usize, none: &str) {
    text.push('\n');
    let more = all.len().saturating_sub(rows);
    all.truncate(rows);
    let empty = all.is_empty();
    *text += &print::table(titles, &all);
    if empty {
        line(text, format_args!("{none}"));
    } else if more > 0 && titles[0] == "PROCESS" {
        line(text, format_args!("and {more} more"));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes everything");
    let end = text.trim_end().len();
    text.truncate(end);
    text.push('\n');
}

/// `-`, `0`, `0.3`, `12.0`, `1,234`.
fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate < 100.0 => format!("{rate:.1}"),
        Some(rate) => number(rate),
    }
}

/// A whole number with commas.
fn number(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}

fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1000.0),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_eyes() {
        for (value, text) in [
            (0.0, "0.0"),
            (0.34, "0.3"),
            (99.9, "99.9"),
            (1_234.4, "1,234"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(rate(Some(value)), text);
        }
        assert_eq!(
            (number(7.0), number(123.0), number(1_000.0)),
            ("7".to_owned(), "123".to_owned(), "1,000".to_owned())
        );
        assert_eq!(
            (seconds(Some(0.0021)), seconds(Some(12.0)), seconds(None)),
            ("2.1 ms".to_owned(), "12.0 s".to_owned(), "-".to_owned())
        );
    }

    #[test]
    fn every_table_keeps_a_row_on_the_smallest_screen() {
        assert_eq!(rows_that_fit(5, 10), 1);
        assert_eq!(rows_that_fit(24, 10), 2);
        assert_eq!(rows_that_fit(50, 10), 8);
        assert_eq!(rows_that_fit(500, 10), 10);
    }
}
