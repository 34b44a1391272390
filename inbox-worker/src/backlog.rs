//! How much waits in the streams and in the outbox, and for how long: what only JetStream and Postgres know, told as
//! metrics.
//!
//! Every worker asks, and all of them tell the same. One alone that holds a lease would leave its last numbers behind
//! when it dies, and whoever comes next would have to be told from it; and all it takes is two requests, whatever there is,
//! which cost nats-server 4 ms of processor time on one node. What cannot be learned is told as NaN, to which no alert compares, so that an old number is not taken for a new one.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_metadata::in_time;
use tidings_nats::{
    BODIES, CHATS, ConsumerSummary, DEAD_LETTERS, INSTANCES, INVALIDATIONS, SESSIONS, StreamSummary, TRIALS,
    Topology, fanout_consumer, inbox_stream,
};
use tidings_protocol::Timestamp;
use tidings_service::{Context, clock};

use crate::QUESTION_TIMEOUT;

/// How often, about: Prometheus asks every 15 s, and nobody is woken by what lasts for less.
const INTERVAL: Duration = Duration::from_secs(15);
/// Workers that were started together ask at different times: an interval is longer by up to this part of it.
const JITTER: f64 = 0.2;
/// For one page of an answer. A cluster waits for streams without a leader, 4 s or so, and leaves them out.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Looks until the service is asked to stop.
pub(crate) async fn run(context: Context) {
    let look = async {
        loop {
            tell(&context).await;
            let jitter = JITTER * rand::random::<f64>();
            tokio::time::sleep(INTERVAL.mul_f64(1.0 + jitter)).await;
        }
    };
    context.stopping.run_until_cancelled(look).await;
}

async fn tell(context: &Context) {
    let streams = context.bus.stream_summaries(TIMEOUT).await;
    let streams = streams.map_err(|error| failed("the streams", &error));
    tell_streams(context.topology, &streams.unwrap_or_default(), clock::now());
    let consumers = context.bus.consumer_summaries(CHATS, TIMEOUT).await;
    let consumers = consumers.map_err(|error| failed("the consumers of CHATS", &error));
    tell_partitions(context.topology, &consumers.unwrap_or_default());
    let outbox = in_time(QUESTION_TIMEOUT, context.metadata.outbox_age()).await;
    let outbox = outbox.map_err(|error| failed("the outbox", &error));
    metrics::gauge!("tidings_outbox_oldest_seconds").set(outbox.map_or(f64::NAN, |age| age.as_secs_f64()));
}

fn failed(what: &'static str, error: &dyn std::fmt::Display) {
    metrics::counter!("tidings_backlog_failures_total").increment(1);
    tracing::debug!(what, %error, "how much waits is not known");
}

/// Of our own streams, so that there are no more series than those.
fn tell_streams(topology: Topology, streams: &[StreamSummary], now: Timestamp) {
    let by_name: BTreeMap<&str, &StreamSummary> = streams
        .iter()
        .map(|stream| (stream.name.as_str(), stream))
        .collect();
    let find = |name: &str| by_name.get(name).copied();
    for shard in topology.shards() {
        let name = inbox_stream(shard);
        let stream = find(&name);
        let shard = shard.to_string();
        metrics::gauge!("tidings_inbox_entries", "shard" => shard.clone()).set(messages(stream));
        metrics::gauge!("tidings_inbox_oldest_seconds", "shard" => shard).set(oldest_seconds(stream, now));
        tell_size(name, stream);
    }
    for name in [CHATS, BODIES, DEAD_LETTERS, INVALIDATIONS] {
        tell_size(name.to_owned(), find(name));
    }
    for bucket in [SESSIONS, INSTANCES, TRIALS] {
        let name = format!("KV_{bucket}");
        let stream = find(&name);
        tell_size(name, stream);
    }
    metrics::gauge!("tidings_fanout_oldest_seconds").set(oldest_seconds(find(CHATS), now));
    metrics::gauge!("tidings_dead_letters").set(messages(find(DEAD_LETTERS)));
}

fn tell_size(name: String, stream: Option<&StreamSummary>) {
    let bytes = stream.map_or(f64::NAN, |stream| stream.bytes as f64);
    let ratio = stream.map_or(f64::NAN, |stream| {
        stream
            .bytes_max
            .map_or(0.0, |max| stream.bytes as f64 / max as f64)
    });
    metrics::gauge!("tidings_stream_bytes", "stream" => name.clone()).set(bytes);
    metrics::gauge!("tidings_stream_full_ratio", "stream" => name).set(ratio);
}

fn messages(stream: Option<&StreamSummary>) -> f64 {
    stream.map_or(f64::NAN, |stream| stream.messages as f64)
}

/// By the clocks of this machine and of the stream's leader, which agree to a minute wherever anything expires.
fn oldest_seconds(stream: Option<&StreamSummary>, now: Timestamp) -> f64 {
    stream.map_or(f64::NAN, |stream| {
        let milliseconds = stream.first_stored_at.map_or(0, |at| now.0 - at.0);
        milliseconds.max(0) as f64 / 1000.0
    })
}

fn tell_partitions(topology: Topology, consumers: &[ConsumerSummary]) {
    for partition in topology.partitions() {
        let name = fanout_consumer(partition);
        let consumer = consumers.iter().find(|consumer| consumer.name == name);
        let events = consumer.map_or(f64::NAN, |consumer| {
            (consumer.unprocessed + consumer.outstanding) as f64
        });
        metrics::gauge!("tidings_fanout_lag_events", "partition" => partition.to_string()).set(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_a_number_and_what_is_empty_is_not_old() {
        let stream = |messages, first_stored_at| StreamSummary {
            name: "CHATS".to_owned(),
            messages,
            bytes: 100,
            bytes_max: None,
            last_sequence: 7,
            first_stored_at,
            consumers: 0,
        };
        let now = Timestamp(100_000);
        assert!(oldest_seconds(None, now).is_nan() && messages(None).is_nan());
        let seconds = |at| oldest_seconds(Some(&stream(1, at)), now);
        assert!((seconds(Some(Timestamp(97_500))) - 2.5).abs() < 1e-9);
        assert!(seconds(None).abs() < 1e-9);
        assert!(seconds(Some(Timestamp(100_001))).abs() < 1e-9, "a clock is ahead");
        assert!((messages(Some(&stream(3, None))) - 3.0).abs() < 1e-9);
    }
}
