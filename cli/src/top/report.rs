//! What happened between two looks.

use std::collections::BTreeMap;

use serde::Serialize;
use tidings_nats::{CHATS, DEAD_LETTERS, StreamSummary, Topology, fanout_consumer, inbox_stream};
use tidings_protocol::ChatId;

use super::hot_chats::HotChats;
use super::moment::Moment;
use super::scrape::Metrics;

/// Chats of a report; more than anybody reads.
const CHATS_MAX: usize = 1_000;
/// Latencies in the order of a message's way, by the histograms that tell them: the first that there is.
const LATENCIES: [(&str, &[&str]); 4] = [
    ("accept", &["tidings_accept_seconds"]),
    (
        "fan-out",
        &["tidings_fanout_lag_seconds", "tidings_fanout_seconds"],
    ),
    ("delivery", &["tidings_delivery_seconds"]),
    ("confirm", &["tidings_confirm_seconds"]),
];

/// What a system did. Rates are a second's; what is not known is absent.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Over how long.
    pub(super) seconds: f64,
    pub(super) sends: Option<f64>,
    /// Entries that fan-out workers have stored.
    pub(super) entries: Option<f64>,
    pub(super) deliveries: Option<f64>,
    pub(super) confirms: Option<f64>,
    /// FAILUREs by code, where there were any.
    pub(super) errors: BTreeMap<String, f64>,
    pub(super) latencies: Vec<Latency>,
    pub(super) sessions: Option<f64>,
    pub(super) lag: Option<Lag>,
    pub(super) inboxes: Inboxes,
    pub(super) dead_letters: Option<u64>,
    pub(super) chats: Vec<HotChat>,
    pub(super) shards: Vec<HotShard>,
    pub(super) partitions: Vec<HotPartition>,
    pub(super) processes: Vec<Process>,
    /// What does not answer.
    pub(super) problems: Vec<String>,
}

/// How long something took, in seconds; absent where it did not happen.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) of: &'static str,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// Events that some inbox does not have yet.
#[derive(Debug, Serialize)]
pub(super) struct Lag {
    pub(super) events: u64,
    /// Of these, that no worker has read.
    pub(super) unprocessed: u64,
    pub(super) oldest_seconds: Option<f64>,
}

/// All inboxes together.
#[derive(Debug, Default, Serialize)]
pub(super) struct Inboxes {
    pub(super) unconfirmed: u64,
    pub(super) bytes: u64,
    pub(super) stored: f64,
    pub(super) deleted: f64,
    pub(super) durables: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct HotChat {
    pub(super) chat_id: ChatId,
    pub(super) partition: String,
    pub(super) events: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct HotShard {
    pub(super) stream: String,
    #[serde(flatten)]
    pub(super) holds: Inboxes,
}

#[derive(Debug, Serialize)]
pub(super) struct HotPartition {
    pub(super) consumer: String,
    pub(super) events: f64,
    pub(super) unprocessed: u64,
    pub(super) outstanding: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Process {
    pub(super) name: String,
    /// Absent where it does not answer.
    pub(super) service: Option<String>,
    pub(super) ready: bool,
    /// Seconds of processors a second.
    pub(super) cpu: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) sessions: Option<f64>,
    /// Of a gateway: sends. Of a fan-out worker: events.
    pub(super) events: Option<f64>,
    /// Of a gateway: deliveries. Of a fan-out worker: entries.
    pub(super) entries: Option<f64>,
}

impl Report {
    pub(super) fn between(before: &Moment, now: &Moment, hot: &HotChats, topology: Topology) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
        let pairs = pairs(before, now);
        let rate = |name: &str| rate(&pairs, name, seconds);
        let stream = |name: &str| now.streams.iter().find(|stream| stream.name == name);
        let mut shards: Vec<HotShard> = topology
            .shards()
            .filter_map(|shard| {
                let now = stream(&inbox_stream(shard))?;
                let before = before.streams.iter().find(|stream| stream.name == now.name);
                Some(hot_shard(before, now, seconds))
            })
            .collect();
        let inboxes = sum(&shards);
        shards.sort_by(|a, b| {
            let rate = b.holds.stored.total_cmp(&a.holds.stored);
            rate.then_with(|| b.holds.unconfirmed.cmp(&a.holds.unconfirmed))
        });
        Self {
            seconds,
            sends: rate("tidings_messages_accepted_total"),
            entries: rate("tidings_fanout_entries_total"),
            deliveries: rate("tidings_deliveries_total"),
            confirms: rate("tidings_confirmed_total"),
            errors: errors(&pairs, seconds),
            latencies: latencies(&pairs),
            sessions: total(&pairs, "tidings_sessions"),
            lag: lag(now),
            inboxes,
            dead_letters: stream(DEAD_LETTERS).map(|stream| stream.messages),
            chats: hot
                .hottest(CHATS_MAX)
                .into_iter()
                .map(|(chat_id, partition, events)| HotChat {
                    chat_id,
                    partition: partition.to_owned(),
                    events,
                })
                .collect(),
            shards,
            partitions: partitions(now, hot, topology),
            processes: processes(before, now, seconds),
            problems: now.problems.clone(),
        }
    }
}

/// The processes that answered both times, before and now.
fn pairs<'a>(before: &'a Moment, now: &'a Moment) -> Vec<(&'a Metrics, &'a Metrics)> {
    let earlier: BTreeMap<&str, &Metrics> = before
        .processes
        .iter()
        .filter_map(|process| Some((process.name.as_str(), process.metrics.as_ref().ok()?)))
        .collect();
    now.processes
        .iter()
        .filter_map(|process| {
            let before = earlier.get(process.name.as_str())?;
            Some((*before, process.metrics.as_ref().ok()?))
        })
        .collect()
}

/// How much a counter has grown. One that was started again began at zero.
fn grown(before: f64, now: f64) -> f64 {
    if now < before { now } else { now - before }
}

fn rate(pairs: &[(&Metrics, &Metrics)], name: &str, seconds: f64) -> Option<f64> {
    let rates: Vec<f64> = pairs
        .iter()
        .filter_map(|(before, now)| Some(grown(before.total(name).unwrap_or(0.0), now.total(name)?)))
        .collect();
    (!pairs.is_empty()).then(|| rates.iter().sum::<f64>() / seconds)
}

fn total(pairs: &[(&Metrics, &Metrics)], name: &str) -> Option<f64> {
    let totals: Vec<f64> = pairs.iter().filter_map(|(_, now)| now.total(name)).collect();
    (!totals.is_empty()).then(|| totals.iter().sum())
}

fn errors(pairs: &[(&Metrics, &Metrics)], seconds: f64) -> BTreeMap<String, f64> {
    let mut errors: BTreeMap<String, f64> = BTreeMap::new();
    for (before, now) in pairs {
        let before = before.by_label("tidings_errors_total", "code");
        for (code, count) in now.by_label("tidings_errors_total", "code") {
            let grown = grown(before.get(&code).copied().unwrap_or(0.0), count);
            *errors.entry(code).or_default() += grown / seconds;
        }
    }
    errors.retain(|_, rate| *rate > 0.0);
    errors
}

fn latencies(pairs: &[(&Metrics, &Metrics)]) -> Vec<Latency> {
    let latencies = LATENCIES.iter().filter_map(|(of, names)| {
        let name = names.iter().find(|name| {
            let mut buckets = pairs.iter().map(|(_, now)| now.buckets(name));
            buckets.any(|buckets| !buckets.is_empty())
        })?;
        let buckets = between(pairs, name);
        Some(Latency {
            of,
            p50: quantile(&buckets, 0.5),
            p99: quantile(&buckets, 0.99),
        })
    });
    latencies.collect()
}

/// What a histogram has counted between the looks, over all processes.
fn between(pairs: &[(&Metrics, &Metrics)], name: &str) -> Vec<(f64, f64)> {
    let mut sums: Vec<(f64, f64)> = Vec::new();
    for (before, now) in pairs {
        let before = before.buckets(name);
        let now = now.buckets(name);
        let again = now.last().map_or(0.0, |last| last.1) < before.last().map_or(0.0, |last| last.1);
        for (index, (bound, count)) in now.into_iter().enumerate() {
            let earlier = before
                .get(index)
                .filter(|_| !again)
                .map_or(0.0, |bucket| bucket.1);
            match sums.get_mut(index) {
                Some((_, sum)) => *sum += count - earlier,
                None => sums.push((bound, count - earlier)),
            }
        }
    }
    sums
}

/// Where so many of all lie below, within a bucket as if they were spread evenly; beyond the last bound that there is, that one.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let all = buckets.last()?.1;
    if all <= 0.0 {
        return None;
    }
    let rank = share * all;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            if bound.is_infinite() {
                return Some(low);
            }
            let inside = (count - below).max(f64::MIN_POSITIVE);
            return Some(low + (bound - low) * (rank - below) / inside);
        }
        (low, below) = (*bound, *count);
    }
    Some(low)
}

fn lag(now: &Moment) -> Option<Lag> {
    let chats = now.chats?;
    let oldest = (chats.messages > 0).then(|| (chats.now.0 - chats.first_stored_at.0).max(0) as f64 / 1000.0);
    Some(Lag {
        events: chats.messages,
        unprocessed: now.partitions.iter().map(|partition| partition.unprocessed).sum(),
        oldest_seconds: oldest,
    })
}

fn hot_shard(before: Option<&StreamSummary>, now: &StreamSummary, seconds: f64) -> HotShard {
    // A stream that was made anew began at zero.
    let (stored, deleted) = before
        .filter(|before| before.last_sequence <= now.last_sequence)
        .map_or((0, 0), |before| {
            let stored = now.last_sequence - before.last_sequence;
            (stored, (before.messages + stored).saturating_sub(now.messages))
        });
    HotShard {
        stream: now.name.clone(),
        holds: Inboxes {
            unconfirmed: now.messages,
            bytes: now.bytes,
            stored: stored as f64 / seconds,
            deleted: deleted as f64 / seconds,
            durables: now.consumers,
        },
    }
}

fn sum(shards: &[HotShard]) -> Inboxes {
    shards
        .iter()
        .map(|shard| &shard.holds)
        .fold(Inboxes::default(), |sum, holds| Inboxes {
            unconfirmed: sum.unconfirmed + holds.unconfirmed,
            bytes: sum.bytes + holds.bytes,
            stored: sum.stored + holds.stored,
            deleted: sum.deleted + holds.deleted,
            durables: sum.durables + holds.durables,
        })
}

/// Those with most before them first, then the busiest.
fn partitions(now: &Moment, hot: &HotChats, topology: Topology) -> Vec<HotPartition> {
    let mut partitions: Vec<HotPartition> = topology
        .partitions()
        .filter_map(|partition| {
            let name = fanout_consumer(partition);
            let consumer = now.partitions.iter().find(|consumer| consumer.name == name)?;
            Some(HotPartition {
                consumer: format!("{CHATS}/{name}"),
                events: hot.of_partition(&partition.to_string()),
                unprocessed: consumer.unprocessed,
                outstanding: consumer.outstanding,
            })
        })
        .collect();
    partitions.sort_by(|a, b| {
        let waiting = |partition: &HotPartition| partition.unprocessed + partition.outstanding;
        waiting(b)
            .cmp(&waiting(a))
            .then_with(|| b.events.total_cmp(&a.events))
    });
    partitions
}

fn processes(before: &Moment, now: &Moment, seconds: f64) -> Vec<Process> {
    let processes = now.processes.iter().map(|process| {
        let Ok(metrics) = &process.metrics else {
            return Process {
                name: process.name.clone(),
                service: None,
                ready: false,
                cpu: None,
                resident_bytes: None,
                sessions: None,
                events: None,
                entries: None,
            };
        };
        let earlier = before.processes.iter().find(|other| other.name == process.name);
        let earlier = earlier.and_then(|earlier| earlier.metrics.as_ref().ok());
        let rate = |names: [&str; 2]| {
            let name = names.into_iter().find(|name| metrics.total(name).is_some())?;
            Some(grown(earlier?.total(name).unwrap_or(0.0), metrics.total(name)?) / seconds)
        };
        let cpu = "process_cpu_seconds_total";
        Process {
            name: process.name.clone(),
            service: metrics.service().map(str::to_owned),
            ready: metrics.total("tidings_ready") == Some(1.0),
            cpu: rate([cpu, cpu]),
            resident_bytes: metrics.total("process_resident_memory_bytes"),
            sessions: metrics.total("tidings_sessions"),
            events: rate(["tidings_messages_accepted_total", "tidings_fanout_events_total"]),
            entries: rate(["tidings_deliveries_total", "tidings_fanout_entries_total"]),
        }
    });
    processes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [f64; 4] = [0.001, 0.002, 0.01, f64::INFINITY];

    fn near(value: Option<f64>, expected: f64) {
        let value = value.expect("something was counted");
        assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
    }

    #[test]
    fn quantiles_are_read_from_buckets() {
        let buckets = |counts: [f64; 4]| BOUNDS.into_iter().zip(counts).collect::<Vec<_>>();
        near(quantile(&buckets([10.0, 10.0, 10.0, 10.0]), 0.5), 0.000_5);
        near(quantile(&buckets([0.0, 50.0, 100.0, 100.0]), 0.5), 0.002);
        near(quantile(&buckets([0.0, 50.0, 100.0, 100.0]), 0.75), 0.006);
        // Nobody knows how much longer it took.
        near(quantile(&buckets([0.0, 0.0, 1.0, 100.0]), 0.99), 0.01);
        assert_eq!(quantile(&buckets([0.0; 4]), 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    fn gateway(accepted: u32, fast: u32) -> Metrics {
        Metrics::of(&format!(
            "# TYPE tidings_messages_accepted_total counter\n\
             tidings_messages_accepted_total{{service=\"gateway\"}} {accepted}\n\
             # TYPE tidings_errors_total counter\n\
             tidings_errors_total{{service=\"gateway\",code=\"forbidden\"}} {fast}\n\
             # TYPE tidings_accept_seconds histogram\n\
             tidings_accept_seconds_bucket{{service=\"gateway\",le=\"0.001\"}} {fast}\n\
             tidings_accept_seconds_bucket{{service=\"gateway\",le=\"0.01\"}} {accepted}\n\
             tidings_accept_seconds_bucket{{service=\"gateway\",le=\"+Inf\"}} {accepted}\n"
        ))
    }

    #[test]
    fn what_several_processes_did_is_added_up_even_if_one_was_started_again() {
        let (before, now) = (
            [gateway(100, 90), gateway(50, 0)],
            [gateway(120, 100), gateway(10, 10)],
        );
        let pairs: Vec<_> = before.iter().zip(&now).collect();
        // 20 and 10, of which 20 took at most a millisecond.
        near(rate(&pairs, "tidings_messages_accepted_total", 2.0), 15.0);
        assert_eq!(
            between(&pairs, "tidings_accept_seconds"),
            [(0.001, 20.0), (0.01, 30.0), (f64::INFINITY, 30.0)]
        );
        assert_eq!(
            errors(&pairs, 2.0),
            BTreeMap::from([("forbidden".to_owned(), 10.0)])
        );
        let latencies = latencies(&pairs);
        assert_eq!(latencies.len(), 1);
        near(latencies[0].p50, 0.000_75);
        assert_eq!(rate(&[], "tidings_messages_accepted_total", 2.0), None);
    }

    #[test]
    fn a_shard_is_told_by_its_sequences() {
        let stream = |messages, last_sequence| StreamSummary {
            name: "INBOX_07".to_owned(),
            messages,
            bytes: 0,
            bytes_max: None,
            last_sequence,
            first_stored_at: None,
            consumers: 2,
        };
        let told = |before: Option<StreamSummary>, now: StreamSummary| {
            let shard = hot_shard(before.as_ref(), &now, 2.0);
            (shard.holds.stored, shard.holds.deleted)
        };
        assert_eq!(told(Some(stream(10, 100)), stream(4, 120)), (10.0, 13.0));
        assert_eq!(told(Some(stream(10, 100)), stream(1, 1)), (0.0, 0.0));
        assert_eq!(told(None, stream(1, 1)), (0.0, 0.0));
    }
}
