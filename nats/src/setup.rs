//! Creating, upgrading and checking streams and consumers. `tidings setup` applies; services only compare.

use std::fmt;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Map, Value, json};

use crate::api::{ApiError, Bus};
use crate::partition_consumer::partition_consumer_config;
use crate::shard::Topology;
use crate::subject::inbox_stream;

/// For one request: creating a replicated stream waits for an election.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at a time. Each replicated stream waits for an election, which takes the servers no work; beyond this
/// their queue of requests, which is dropped when it is full, would hold up others.
const CONCURRENT_MAX: usize = 16;
/// Error code of a stream that does not exist.
const STREAM_NOT_FOUND: u16 = 10059;

/// How far above what is remembered a stream begins that has to be made anew. Messages leave no trace in Postgres: at
/// 10,000 a second, this many take five days, and chats change more often. Sequences of CHATS stay below 2^53 for two
/// million such leaps, those of inboxes, which no client sees, for two thousand.
const LEAP: u64 = 1 << 32;
/// How much faster a stream of inboxes may count than CHATS: an event becomes an entry for each of 300 clients at most.
const ENTRIES_OF_EVENT: u64 = 1 << 10;

/// What a system is set up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupOptions {
    /// Copies of every stream: 1, or 3 on three nodes.
    pub replicas: u8,
    /// Into how many parts chats and inboxes are cut. Fixed at the first setup; later setups keep it.
    pub topology: Topology,
    /// The highest sequence that Postgres remembers of CHATS and INVALIDATIONS; 0 if none. When those streams have to
    /// be made, they begin far above it: what counted from 1 again would stand before every change of a chat's
    /// participants, and before every client's registration. So do streams of inboxes, where a gateway may still want
    /// to delete what was confirmed before.
    pub remembered: u64,
}

impl Default for SetupOptions {
    fn default() -> Self {
        Self {
            replicas: 1,
            topology: Topology::default(),
            remembered: 0,
        }
    }
}

/// One difference between what is and what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `stream CHATS`, `consumer CHATS/fanout-03`.
    pub what: String,
    /// `create`, or the fields that differ.
    pub how: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.how)
    }
}

/// Why a system cannot be set up or used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A request failed.
    #[error("{what}: {error}")]
    Api {
        /// What was asked for.
        what: String,
        /// Why not.
        error: ApiError,
    },
    /// A service found something else than it needs.
    #[error("streams are not as this version needs them ({0}); run `tidings setup`")]
    Mismatch(String),
    /// A stream keeps by another rule than this version needs, and no server changes that.
    #[error(
        "{what}: its retention is {actual}, this version needs {wanted}, and no server changes that. Stop every gateway and \
         inbox worker, wait until it is empty, stop every fan-out worker, delete it, and run `tidings setup \
         --replicas {replicas}`: it is made anew and counts on where it was. Then start this version"
    )]
    Retention {
        /// The stream.
        what: String,
        /// What it has.
        actual: String,
        /// What it should have.
        wanted: String,
        /// How many copies it has.
        replicas: u64,
    },
}

/// Brings streams and consumers to what this version needs, or with `dry_run` only says what it would do.
pub async fn apply(bus: &Bus, options: &SetupOptions, dry_run: bool) -> Result<Vec<Change>, SetupError> {
    let options = SetupOptions {
        topology: existing(bus).await?.unwrap_or(options.topology),
        ..options.clone()
    };
    let mut changes = Vec::new();
    let (streams, consumers) = (streams(&options), consumers(&options));
    let of_streams = streams
        .iter()
        .map(|stream| apply_stream(bus, stream, options.remembered, dry_run));
    changes.extend(in_order(of_streams).await?);
    let of_consumers = consumers
        .iter()
        .map(|consumer| apply_consumer(bus, consumer, dry_run));
    changes.extend(in_order(of_consumers).await?);
    Ok(changes)
}

/// Runs several requests at a time and gives their changes in order.
async fn in_order<F>(requests: impl Iterator<Item = F>) -> Result<Vec<Change>, SetupError>
where
    F: Future<Output = Result<Option<Change>, SetupError>>,
{
    let changes: Vec<Option<Change>> = futures::stream::iter(requests)
        .buffered(CONCURRENT_MAX)
        .try_collect()
        .await?;
    Ok(changes.into_iter().flatten().collect())
}

/// The topology of a system that is set up as this version needs it. Looks at CHATS alone unless something is
/// wrong: a service must start fast, and setup has looked at everything.
pub async fn check(bus: &Bus) -> Result<Topology, SetupError> {
    let mismatch = |what: &str| SetupError::Mismatch(what.to_owned());
    let topology = existing(bus).await?.ok_or_else(|| mismatch("no stream CHATS"))?;
    let options = SetupOptions {
        topology,
        ..SetupOptions::default()
    };
    for mut stream in streams(&options) {
        // How many copies and bytes is the operator's choice; a service runs with any.
        let name = name(&stream);
        if matches!(
            name.as_str(),
            "CHATS"
                | "BODIES"
                | "INVALIDATIONS"
                | "DEAD_LETTERS"
                | "KV_SESSIONS"
                | "KV_INSTANCES"
                | "KV_TRIALS"
        ) {
            let object = stream.as_object_mut().expect("definitions are objects");
            object.retain(|key, _| !matches!(key.as_str(), "num_replicas" | "max_bytes" | "description"));
            match stream_config(bus, &name).await? {
                Some(actual) => {
                    let fields = differences(&stream, &actual);
                    if !fields.is_empty() {
                        return Err(mismatch(&format!("stream {name}: {}", fields.join(", "))));
                    }
                }
                None => return Err(mismatch(&format!("no stream {name}"))),
            }
        }
    }
    Ok(topology)
}

/// The settings of a stream, if it exists.
pub async fn stream_config(bus: &Bus, stream: &str) -> Result<Option<Value>, SetupError> {
    info(bus, &format!("STREAM.INFO.{stream}")).await
}

/// The topology written into CHATS, if there is one.
async fn existing(bus: &Bus) -> Result<Option<Topology>, SetupError> {
    let Some(config) = stream_config(bus, "CHATS").await? else {
        return Ok(None);
    };
    let number = |key: &str| {
        config["metadata"][key]
            .as_str()
            .and_then(|text| text.parse::<u16>().ok())
    };
    match (number("tidings.partitions"), number("tidings.inbox_shards")) {
        (Some(partitions), Some(shards)) => Ok(Some(Topology { partitions, shards })),
        _ => Err(SetupError::Mismatch(
            "stream CHATS was not made by tidings".to_owned(),
        )),
    }
}

pub(crate) fn definition(text: &str) -> Value {
    serde_json::from_str(text).expect("definitions are JSON, a test reads them")
}

fn name(definition: &Value) -> String {
    definition["name"]
        .as_str()
        .expect("definitions have names")
        .to_owned()
}

/// Every stream of a system.
pub fn streams(options: &SetupOptions) -> Vec<Value> {
    let topology = options.topology;
    let mut chats = definition(include_str!("../definitions/chats.json"));
    chats["metadata"]["tidings.partitions"] = json!(topology.partitions.to_string());
    chats["metadata"]["tidings.inbox_shards"] = json!(topology.shards.to_string());
    let mut streams = vec![
        chats,
        definition(include_str!("../definitions/bodies.json")),
        definition(include_str!("../definitions/invalidations.json")),
        definition(include_str!("../definitions/dead_letters.json")),
        definition(include_str!("../definitions/sessions.json")),
        definition(include_str!("../definitions/instances.json")),
        definition(include_str!("../definitions/trials.json")),
    ];
    let inbox = definition(include_str!("../definitions/inbox.json"));
    streams.extend(topology.shards().map(|shard| {
        let mut inbox = inbox.clone();
        inbox["name"] = json!(inbox_stream(shard));
        inbox["subjects"] = json!([format!("inbox.{shard}.>")]);
        inbox["description"] = json!(
            inbox["description"]
                .as_str()
                .expect("a description")
                .replace("shard 00", &format!("shard {shard}"))
        );
        inbox
    }));
    for stream in &mut streams {
        stream["num_replicas"] = json!(options.replicas);
    }
    streams
}

/// Every consumer that setup makes; those of clients are made by gateways.
pub fn consumers(options: &SetupOptions) -> Vec<Value> {
    options
        .topology
        .partitions()
        .map(partition_consumer_config)
        .collect()
}

async fn apply_stream(
    bus: &Bus,
    wanted: &Value,
    remembered: u64,
    dry_run: bool,
) -> Result<Option<Change>, SetupError> {
    let name = name(wanted);
    let what = format!("stream {name}");
    let Some(actual) = stream_config(bus, &name).await? else {
        let (wanted, how) = first(wanted, remembered);
        if !dry_run {
            call(bus, &format!("STREAM.CREATE.{name}"), &wanted, &what).await?;
        }
        return Ok(Some(Change { what, how }));
    };
    let fields = differences(wanted, &actual);
    if fields.is_empty() {
        return Ok(None);
    }
    let retention = |config: &Value| config["retention"].as_str().unwrap_or_default().to_owned();
    if retention(&actual) != retention(wanted) {
        return Err(SetupError::Retention {
            what,
            actual: retention(&actual),
            wanted: retention(wanted),
            replicas: actual["num_replicas"].as_u64().unwrap_or(1),
        });
    }
    if !dry_run {
        call(
            bus,
            &format!("STREAM.UPDATE.{name}"),
            &merged(wanted, &actual),
            &what,
        )
        .await?;
    }
    Ok(Some(Change {
        what,
        how: format!("update {}", fields.join(", ")),
    }))
}

/// How fast a stream counts, beside CHATS, that must count on if it has to be made anew.
fn counts_on(name: &str) -> Option<u64> {
    match name {
        "CHATS" | "INVALIDATIONS" => Some(1),
        // Whoever removes bodies may remember places in the lost one.
        "BODIES" => Some(ENTRIES_OF_EVENT),
        _ if name.starts_with("INBOX_") => Some(ENTRIES_OF_EVENT),
        _ => None,
    }
}

/// Whether a stream is missing for which [`SetupOptions::remembered`] matters.
pub async fn is_one_lost(bus: &Bus) -> Result<bool, SetupError> {
    #[derive(serde::Deserialize)]
    struct Page {
        total: usize,
        streams: Option<Vec<String>>,
    }
    let options = SetupOptions {
        topology: existing(bus).await?.unwrap_or_default(),
        ..SetupOptions::default()
    };
    let mut there = std::collections::HashSet::new();
    loop {
        let body = json!({ "offset": there.len() });
        let page = bus.api::<Page>("STREAM.NAMES", &body, TIMEOUT).await;
        let page = page.map_err(|error| SetupError::Api {
            what: "the streams' names".to_owned(),
            error,
        })?;
        let before = there.len();
        there.extend(page.streams.into_iter().flatten());
        if there.len() >= page.total || there.len() == before {
            break;
        }
    }
    let wanted = streams(&options);
    let mut wanted = wanted.iter().map(name);
    Ok(wanted.any(|name| counts_on(&name).is_some() && !there.contains(&name)))
}

/// A stream that is made now, and how.
fn first(wanted: &Value, remembered: u64) -> (Value, String) {
    let Some(times) = counts_on(&name(wanted)).filter(|_| remembered > 0) else {
        return (wanted.clone(), "create".to_owned());
    };
    let mut wanted = wanted.clone();
    wanted["first_seq"] = json!((remembered + LEAP) * times);
    (
        wanted,
        format!("create, above the lost one's sequence {remembered}"),
    )
}

async fn apply_consumer(bus: &Bus, wanted: &Value, dry_run: bool) -> Result<Option<Change>, SetupError> {
    let name = name(wanted);
    let what = format!("consumer CHATS/{name}");
    let actual = info(bus, &format!("CONSUMER.INFO.CHATS.{name}")).await?;
    let fields = actual.as_ref().map(|actual| differences(wanted, actual));
    // No server changes where a consumer has its state. Nothing is lost with it: a worker reads from the beginning.
    let anew = actual
        .as_ref()
        .is_some_and(|actual| is_true(&actual["mem_storage"]) != is_true(&wanted["mem_storage"]));
    let how = match &fields {
        None => "create".to_owned(),
        Some(fields) if fields.is_empty() => return Ok(None),
        Some(fields) if anew => format!("make anew {}", fields.join(", ")),
        Some(fields) => format!("update {}", fields.join(", ")),
    };
    if !dry_run {
        if anew {
            let subject = format!("CONSUMER.DELETE.CHATS.{name}");
            call(bus, &subject, &json!({}), &what).await?;
        }
        let config = actual.map_or_else(|| wanted.clone(), |actual| merged(wanted, &actual));
        bus.create_partition_consumer(&config, TIMEOUT)
            .await
            .map_err(|error| SetupError::Api {
                what: what.clone(),
                error,
            })?;
    }
    Ok(Some(Change { what, how }))
}

/// The server leaves out what is false.
fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or(false)
}

/// The `config` of a stream or consumer, if it exists.
async fn info(bus: &Bus, subject: &str) -> Result<Option<Value>, SetupError> {
    match bus.api::<Value>(subject, &json!({}), TIMEOUT).await {
        Ok(mut info) => Ok(Some(info["config"].take())),
        Err(error) if error.not_found() || error.code() == Some(STREAM_NOT_FOUND) => Ok(None),
        Err(error) => Err(SetupError::Api {
            what: subject.to_owned(),
            error,
        }),
    }
}

async fn call(bus: &Bus, subject: &str, body: &Value, what: &str) -> Result<(), SetupError> {
    bus.api::<Value>(subject, body, TIMEOUT)
        .await
        .map(|_| ())
        .map_err(|error| SetupError::Api {
            what: what.to_owned(),
            error,
        })
}

/// The fields of `wanted` that `actual` has otherwise. The server leaves out what is zero, false or empty.
fn differences(wanted: &Value, actual: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    collect("", wanted, actual, &mut fields);
    fields
}

fn collect(path: &str, wanted: &Value, actual: &Value, fields: &mut Vec<String>) {
    let Some(object) = wanted.as_object() else {
        if wanted != actual && !(is_default(wanted) && actual.is_null()) {
            fields.push(format!("{path} ({actual} -> {wanted})"));
        }
        return;
    };
    for (key, value) in object {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        collect(&path, value, &actual[key.as_str()], fields);
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

/// `actual` with the fields of `wanted`: what an operator has set beside ours stays.
fn merged(wanted: &Value, actual: &Value) -> Value {
    let mut result = actual.as_object().cloned().unwrap_or_else(Map::new);
    if let Some(object) = wanted.as_object() {
        for (key, value) in object {
            let value = if value.is_object() {
                merged(value, &result[key.as_str()])
            } else {
                value.clone()
            };
            result.insert(key.clone(), value);
        }
    }
    Value::Object(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_complete() {
        let options = SetupOptions::default();
        assert_eq!(streams(&options).len(), 7 + 64);
        assert_eq!(consumers(&options).len(), 32);
        for stream in streams(&options) {
            for field in [
                "retention",
                "storage",
                "discard",
                "num_replicas",
                "description",
                "max_bytes",
            ] {
                assert!(!stream[field].is_null(), "{} has no {field}", stream["name"]);
            }
        }
    }

    #[test]
    fn what_is_made_anew_counts_on() {
        for stream in streams(&SetupOptions::default()) {
            let begins = |remembered| first(&stream, remembered).0["first_seq"].as_u64();
            assert_eq!(begins(0), None);
            let expected = match name(&stream).as_str() {
                "CHATS" | "INVALIDATIONS" => Some(7 + LEAP),
                name if name.starts_with("INBOX_") || name == "BODIES" => Some((7 + LEAP) * ENTRIES_OF_EVENT),
                _ => None,
            };
            assert_eq!(begins(7), expected, "{}", stream["name"]);
        }
    }

    #[test]
    fn what_an_operator_added_is_no_difference_and_stays() {
        let wanted = json!({ "max_age": 0, "metadata": { "owner": "tidings" } });
        let actual =
            json!({ "metadata": { "owner": "tidings", "team": "x" }, "placement": { "tags": ["a"] } });
        assert!(differences(&wanted, &actual).is_empty());
        let wanted = json!({ "max_age": 5, "metadata": { "owner": "tidings" } });
        assert_eq!(differences(&wanted, &actual), ["max_age (null -> 5)"]);
        let merged = merged(&wanted, &actual);
        assert_eq!(merged["metadata"]["team"], "x");
        assert_eq!(merged["placement"]["tags"][0], "a");
        assert_eq!(merged["max_age"], 5);
    }
}
