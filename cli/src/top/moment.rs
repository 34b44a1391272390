//! Everything that is asked, at one moment. What does not answer is a problem that is shown, and no reason to stop.

use std::time::Instant;

use tidings_nats::{ApiError, Bus, CHATS, ConsumerSummary, StreamBounds, StreamSummary};

use super::scrape::{Scraped, Scraper};
use crate::look::TIMEOUT;
use crate::print;

/// A look at the whole system.
pub(super) struct Moment {
    pub(super) at: Instant,
    pub(super) processes: Vec<Scraped>,
    pub(super) streams: Vec<StreamSummary>,
    /// The consumers of CHATS.
    pub(super) partitions: Vec<ConsumerSummary>,
    /// Of CHATS.
    pub(super) chats: Option<StreamBounds>,
    pub(super) problems: Vec<String>,
}

impl Moment {
    pub(super) async fn look(bus: &Bus, scraper: &Scraper) -> Self {
        let mut problems = Vec::new();
        if !scraper.knows_processes() {
            problems.push("which services run is not known: --metrics-url says it".to_owned());
        }
        let at = Instant::now();
        let (processes, streams, partitions, chats) = tokio::join!(
            scraper.scrape(),
            bus.stream_summaries(TIMEOUT),
            bus.consumer_summaries(CHATS, TIMEOUT),
            bus.stream_bounds(CHATS, TIMEOUT),
        );
        let processes = processes.unwrap_or_else(|error| {
            problems.push(print::error(&error));
            Vec::new()
        });
        for process in &processes {
            if let Err(error) = &process.metrics {
                problems.push(format!("{}: {error}", process.name));
            }
        }
        let streams = known(streams, "JetStream's streams", &mut problems).unwrap_or_default();
        let partitions = known(partitions, "the consumers of CHATS", &mut problems).unwrap_or_default();
        let chats = known(chats, "the stream CHATS", &mut problems);
        Self {
            at,
            processes,
            streams,
            partitions,
            chats,
            problems,
        }
    }
}

fn known<T>(result: Result<T, ApiError>, what: &str, problems: &mut Vec<String>) -> Option<T> {
    result
        .map_err(|error| problems.push(format!("cannot read {what}: {error}")))
        .ok()
}
