//! What an inbox worker measures.

use tidings_service::{Metric, describe_metrics};

const METRICS: &[Metric] = &[
    Metric::gauge(
        "tidings_inbox_entries",
        "Entries and marks that wait in the inboxes of a shard",
    ),
    Metric::gauge("tidings_inbox_oldest_seconds", "Age of the oldest of them"),
    Metric::gauge("tidings_stream_bytes", "Bytes of a stream"),
    Metric::gauge(
        "tidings_stream_full_ratio",
        "Bytes of a stream by what it may hold; 1 is full",
    ),
    Metric::gauge(
        "tidings_fanout_lag_events",
        "Events of a partition that are accepted and not fanned out",
    ),
    Metric::gauge(
        "tidings_fanout_oldest_seconds",
        "Age of the oldest event that is not fanned out",
    ),
    Metric::gauge("tidings_dead_letters", "Events in DEAD_LETTERS"),
    Metric::gauge(
        "tidings_outbox_oldest_seconds",
        "Age of the oldest change in Postgres that is not published",
    ),
    Metric::counter(
        "tidings_backlog_failures_total",
        "Questions for the numbers above that were not answered",
    ),
    Metric::gauge(
        "tidings_outbox_waiting_keys",
        "Chats and users whose changes wait to be published by the relay",
    ),
    Metric::counter(
        "tidings_outbox_relayed_total",
        "Changes that the relay has published",
    ),
    Metric::counter(
        "tidings_pruned_rows_total",
        "Rows of Postgres that nobody needed any more",
    )
    .by("table", &["requests", "outbox", "attachments"]),
    Metric::gauge(
        "tidings_clocks_wrong",
        "Clocks that differ from Postgres' by more than a minute",
    ),
    Metric::counter(
        "tidings_expired_entries_total",
        "Entries that were too old and were deleted",
    ),
    Metric::counter(
        "tidings_expiry_failures_total",
        "Looks for what is too old in a stream that failed",
    ),
    Metric::gauge(
        "tidings_bodies_waiting",
        "Large bodies that are looked at until no entry refers to them any more",
    ),
    Metric::counter(
        "tidings_bodies_removed_total",
        "Large bodies to which no entry referred any more, and that were removed",
    ),
    Metric::counter(
        "tidings_bodies_failures_total",
        "Looks at large bodies that failed, and are made again",
    ),
    Metric::gauge(
        "tidings_clients_idle_soon",
        "Clients that will be idle within a week unless they connect",
    ),
    Metric::counter("tidings_clients_idled_total", "Clients that became idle"),
    Metric::gauge(
        "tidings_inbox_sweeps_waiting",
        "Inboxes of clients that are gone, to be emptied; 100 is at least 100",
    ),
    Metric::counter("tidings_inbox_sweeps_total", "Inboxes that were emptied"),
    Metric::counter("tidings_swept_entries_total", "Entries that were in them"),
    Metric::counter("tidings_attachments_expired_total", "Attachments that are gone"),
    Metric::counter("tidings_uploads_left_total", "Uploads that nobody went on with"),
    Metric::gauge(
        "tidings_blobs_to_remove",
        "Bytes that nobody needs, still in the store; 64 is at least 64",
    ),
    Metric::counter(
        "tidings_blobs_removed_total",
        "Bytes that were removed from the store",
    ),
    Metric::counter(
        "tidings_blob_removal_failures_total",
        "Removals from the store that failed",
    ),
    Metric::counter(
        "tidings_attachment_failures_total",
        "Rounds of the removal of attachments that failed",
    ),
    Metric::counter(
        "tidings_blob_orphans_total",
        "Bytes in the store that no row of Postgres knew of",
    ),
];

/// Makes them known.
pub(crate) fn describe() {
    describe_metrics(METRICS);
}
