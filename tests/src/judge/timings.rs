//! How fast messages came, as clients saw it. Nothing is judged by it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use tidings_protocol::{ChatId, ClientFrame, ClientId, MessageId, Received, ServerFrame, Status};

use super::weather::{Disturbance, Weather};
use crate::history::{Moment, Run, What};

/// Until how long after its end a fault counts as the cause of a late delivery.
const AFTER_FAULT: Duration = Duration::from_secs(10);
/// A connection that leaves so many deliveries unconfirmed is near its window of 256, or of fewer that are large: from
/// there on it waits for itself.
const HELD_BACK: usize = 128;

/// How fast messages came to clients that were connected, caught up and confirming when they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Deliveries that were measured.
    pub deliveries: usize,
    /// From the first attempt to send to the delivery, half of them. With faults in force all kinds of waiting are in it.
    pub p50: Duration,
    /// The same for 99 of 100.
    pub p99: Duration,
    /// The longest of all.
    pub max: Duration,
    /// From a SUCCESS reply to the delivery, 99 of 100; nothing for those that were delivered before the reply.
    pub accept_to_delivery_p99: Duration,
    /// The longest time from the end of a fault, or from the first attempt to send if that was later, to a delivery to a
    /// connection that was there before, of what was sent during the fault or within ten seconds after it.
    pub resume_max: Duration,
    /// Which fault that was.
    pub slowest: Option<String>,
    /// The same for each fault by its name.
    pub resume_by_fault: BTreeMap<String, Duration>,
    /// The longest time from the end of a fault until somebody got anything.
    pub silence_max: Duration,
    /// The longest time from sending to delivery of what was sent within ten seconds after a fan-out worker was killed,
    /// while nothing else disturbed the system: until another had taken over, also where it came back only later.
    pub take_over_max: Option<Duration>,
}

#[derive(Default)]
struct Sent {
    at: Option<Moment>,
    accepted: Option<Moment>,
}

/// Measures a run.
pub fn timings(run: &Run) -> Timings {
    let weather = Weather::of(&run.events);
    let sent = sends(run);
    let mut caught_up: HashMap<_, Moment> = HashMap::new();
    let mut seen: HashSet<(ClientId, ChatId, ClientId, MessageId)> = HashSet::new();
    let (mut waits, mut after_accept) = (Vec::new(), Vec::new());
    let mut timings = Timings::default();
    let mut delivered: Vec<Moment> = Vec::new();
    let mut unconfirmed: HashMap<_, BTreeSet<u64>> = HashMap::new();
    for record in &run.records {
        let frame = match &record.what {
            What::Received(frame) => frame,
            What::Sent(frame) => {
                if let ClientFrame::Received(received) = &**frame
                    && let Some(unconfirmed) = unconfirmed.get_mut(&record.connection)
                {
                    confirm(unconfirmed, received);
                }
                continue;
            }
            _ => continue,
        };
        let message = match &**frame {
            ServerFrame::CaughtUp(_) => {
                caught_up.insert(&record.connection, record.at);
                continue;
            }
            ServerFrame::NewMessage(message) => message,
            _ => continue,
        };
        delivered.push(record.at);
        let held = unconfirmed.entry(&record.connection).or_default();
        held.insert(message.delivery);
        if held.len() >= HELD_BACK {
            caught_up.remove(&record.connection);
        }
        let reader = record.connection.client_id;
        let key = (message.chat_id, message.client_id, message.message_id);
        let first = seen.insert((reader, key.0, key.1, key.2));
        let (
            Some(since),
            Some(Sent {
                at: Some(at),
                accepted,
            }),
        ) = (caught_up.get(&record.connection), sent.get(&key))
        else {
            continue;
        };
        if !first || since > at {
            continue;
        }
        waits.push(record.at.since(*at));
        if let Some(accepted) = accepted {
            after_accept.push(record.at.since(*accepted));
        }
        let take_over = take_over(&weather, *at, record.at);
        timings.take_over_max = timings.take_over_max.max(take_over);
        for fault in &weather.disturbances {
            if *at < fault.from || *at > fault.to.plus(AFTER_FAULT) || record.at < fault.to {
                continue;
            }
            // What another fault was in force for may have waited for that one's end.
            let others = weather
                .disturbances
                .iter()
                .filter(|other| !std::ptr::eq(*other, fault));
            if others
                .into_iter()
                .any(|other| other.from <= record.at && other.to >= fault.to)
            {
                continue;
            }
            let wait = record.at.since(fault.to.max(*at));
            let longest = timings.resume_by_fault.entry(fault.what.clone()).or_default();
            *longest = wait.max(*longest);
            if wait > timings.resume_max {
                timings.resume_max = wait;
                timings.slowest = Some(format!("{} at {}", fault.what, fault.from));
            }
        }
    }
    for fault in &weather.disturbances {
        let next = delivered.partition_point(|at| *at < fault.to);
        if let Some(next) = delivered.get(next) {
            timings.silence_max = timings.silence_max.max(next.since(fault.to));
        }
    }
    waits.sort_unstable();
    after_accept.sort_unstable();
    timings.deliveries = waits.len();
    timings.p50 = percentile(&waits, 50);
    timings.p99 = percentile(&waits, 99);
    timings.max = waits.last().copied().unwrap_or_default();
    timings.accept_to_delivery_p99 = percentile(&after_accept, 99);
    timings
}

/// How long something waited that was sent shortly after a worker's death, if nothing else can be why.
fn take_over(weather: &Weather, at: Moment, delivered: Moment) -> Option<Duration> {
    let mut killed = weather
        .disturbances
        .iter()
        .filter(|fault| kills_worker(fault) && at >= fault.from && at <= fault.from.plus(AFTER_FAULT));
    let killed = killed.next()?;
    let mut others = weather.between(killed.from, delivered);
    others
        .all(|other| whom(other) == whom(killed))
        .then(|| delivered.since(at))
}

fn kills_worker(fault: &Disturbance) -> bool {
    fault.what.starts_with("fanout-worker") && fault.what.ends_with("SIGKILL")
}

/// Whom a disturbance hits: `fanout-worker-1: SIGKILL`, `fanout-worker-1 is gone`.
fn whom(fault: &Disturbance) -> &str {
    fault.what.split([':', ' ']).next().unwrap_or_default()
}

fn sends(run: &Run) -> HashMap<(ChatId, ClientId, MessageId), Sent> {
    let mut sent: HashMap<_, Sent> = HashMap::new();
    let mut asked = HashMap::new();
    for record in &run.records {
        match &record.what {
            What::Sent(frame) => {
                if let ClientFrame::SendMessage(send) = &**frame {
                    let key = (send.chat_id, record.connection.client_id, send.message_id);
                    sent.entry(key).or_default().at.get_or_insert(record.at);
                    asked.insert((&record.connection, send.id), key);
                }
            }
            What::Received(frame) => {
                if let ServerFrame::Reply(reply) = &**frame
                    && reply.status == Status::Success
                    && let Some(key) = reply.id.and_then(|id| asked.get(&(&record.connection, id)))
                {
                    let known = sent.get_mut(key).expect("it was put when it was sent");
                    known.accepted.get_or_insert(record.at);
                }
            }
            _ => {}
        }
    }
    sent
}

fn confirm(unconfirmed: &mut BTreeSet<u64>, received: &Received) {
    if let Some(through) = received.through {
        *unconfirmed = unconfirmed.split_off(&(through + 1));
    }
    if let Some(delivery) = received.delivery {
        unconfirmed.remove(&delivery);
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        write!(
            f,
            "timings: {} deliveries to connected clients, send to delivery p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms; \
             reply to delivery p99 {:.0} ms; after a fault's end at most {:.1} s",
            self.deliveries,
            ms(self.p50),
            ms(self.p99),
            ms(self.max),
            ms(self.accept_to_delivery_p99),
            self.resume_max.as_secs_f64(),
        )?;
        if let Some(slowest) = &self.slowest {
            write!(f, " ({slowest})")?;
        }
        write!(
            f,
            ", and silence for at most {:.1} s",
            self.silence_max.as_secs_f64()
        )?;
        if let Some(longest) = self.take_over_max {
            let seconds = longest.as_secs_f64();
            write!(f, "; from a fan-out worker's death at most {seconds:.1} s")?;
        }
        Ok(())
    }
}
