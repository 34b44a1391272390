//! What a fan-out worker measures.

use tidings_service::{Metric, describe_metrics};

const METRICS: &[Metric] = &[
    Metric::counter(
        "tidings_fanout_events_total",
        "Events that were fanned out, by kind",
    )
    .by("kind", &["message", "chatUpdate", "gone", "superseded"]),
    Metric::counter("tidings_fanout_entries_total", "Entries that were stored"),
    Metric::counter(
        "tidings_fanout_bodies_total",
        "Large bodies that were to be stored once, by what came of it",
    )
    .by("outcome", &["stored", "failed", "unasked"]),
    Metric::counter(
        "tidings_fanout_body_lists_total",
        "Ends of the work on large bodies, by whether it is known who refers to them: others stay for 32 days",
    )
    .by("outcome", &["stored", "failed", "unknown"]),
    Metric::gauge(
        "tidings_fanout_body_lists_waiting",
        "Lists of who refers to a large body that BODIES did not take, and that are tried again",
    ),
    Metric::counter("tidings_fanout_notices_total", "Notices to gateways"),
    Metric::counter(
        "tidings_fanout_direct_answers_total",
        "What became of entries that were told before they were stored",
    )
    .by("answer", &["confirmed", "refused"]),
    Metric::counter(
        "tidings_fanout_direct_late_total",
        "Events that not all who were told have confirmed in time",
    ),
    Metric::gauge(
        "tidings_fanout_direct_held",
        "Events that are told and wait to be confirmed",
    ),
    Metric::counter(
        "tidings_fanout_direct_full_total",
        "Events that were stored at once, since no more could be held",
    ),
    Metric::histogram("tidings_fanout_recipients", "Inboxes that one event goes to"),
    Metric::histogram(
        "tidings_fanout_seconds",
        "From an event's reading to the storing of all its entries",
    ),
    Metric::histogram(
        "tidings_fanout_lag_seconds",
        "From an event's acceptance to the storing of all its entries, by the clocks of NATS and of the worker",
    ),
    Metric::gauge("tidings_fanout_partitions", "Partitions that this worker holds"),
    Metric::counter(
        "tidings_fanout_resets_total",
        "Fresh starts of a partition's reading",
    ),
    Metric::counter(
        "tidings_fanout_deletion_failures_total",
        "Finished events that could not be deleted from CHATS, and are tried again",
    ),
    Metric::counter(
        "tidings_fanout_reminders_total",
        "Consumers of CHATS that had forgotten what is stored, and were reset",
    ),
    Metric::counter(
        "tidings_fanout_retries_total",
        "Tries of an event that failed and are made again",
    ),
    Metric::gauge(
        "tidings_fanout_waiting",
        "Events that wait between two tries, by what for",
    )
    .by("for", &["weather", "newer_worker"]),
    Metric::counter(
        "tidings_fanout_inbox_full_total",
        "Entries that a full inbox refused",
    ),
    Metric::counter("tidings_overflow_marks_total", "Marks of that which were written"),
    Metric::counter(
        "tidings_fanout_dead_letters_total",
        "Events that were put into DEAD_LETTERS",
    ),
    Metric::counter(
        "tidings_fanout_trials_total",
        "Events that were tried under a mark",
    ),
    Metric::counter(
        "tidings_fanout_deaths_total",
        "Workers that died while they worked on such an event",
    ),
    Metric::counter(
        "tidings_fanout_read_again_total",
        "Events whose content was read a second time",
    ),
    Metric::counter(
        "tidings_fanout_late_grants_total",
        "Messages whose attachments were granted by the worker",
    ),
];

/// Makes them known.
pub(crate) fn describe() {
    describe_metrics(METRICS);
}

/// Counts what was looked up in a cache.
pub(crate) fn count_lookups(cache: &'static str, hits: usize, misses: usize) {
    for (outcome, count) in [("hit", hits), ("miss", misses)] {
        metrics::counter!("tidings_cache_lookups_total", "cache" => cache, "outcome" => outcome)
            .increment(count as u64);
    }
}
